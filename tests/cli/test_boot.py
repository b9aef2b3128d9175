"""`uecwatchd boot`: a test boot by hand, with its console, its answer and its exit code."""

import json
from contextlib import closing

import pytest

from tests.support.boots import account, living, quick_boots
from tests.support.host import Host
from uecwatchd.delivery.boot_lock import claim_boots
from uecwatchd.ledger.sqlite import open_ledger


@pytest.fixture(autouse=True)
def registered(host: Host) -> None:
    quick_boots(host, seconds=1.0, key_name="mykey", instance_type="c1.xlarge")
    (host.spool / "karmic.toml").write_text('kernel = "none"\nconvert = "keep"\n')
    (host.spool / "karmic.img").write_bytes(b"1" * 4096)
    host.ask("once")


def test_it_prints_the_console_and_the_command_to_type_next(host: Host) -> None:
    data, talk = host.ask("boot", "karmic")
    image_id = (host.spool / "karmic.emi").read_text().strip()
    assert "recorded login:\n" in data
    assert f"karmic: {image_id} has passed: its console says recorded login:" in talk
    assert talk.splitlines()[-1].endswith(f"euca-run-instances {image_id} -k mykey -t c1.xlarge")
    assert living(host.cloud) == []


def test_an_image_that_fails_stays_and_the_code_says_so(host: Host) -> None:
    host.cloud.faults.arm("boot-panics")
    data, talk = host.ask("boot", "karmic", code=65)
    assert "Kernel panic - not syncing" in data
    assert "has failed: its kernel panics" in talk
    assert (len(host.cloud.images), living(host.cloud)) == (1, [])
    assert (host.spool / "karmic.emi").exists()


def test_json_has_the_outcome_and_no_console_before_it(host: Host) -> None:
    data, _ = host.ask("boot", "karmic.img", "--json")
    answer = json.loads(data)
    assert (answer["outcome"], answer["set"], answer["cloud"]) == ("passed", "karmic", "default")
    assert answer["console"][-1] == "recorded login:"
    assert answer["next"].startswith("euca-run-instances emi-")


def test_the_expected_text_is_that_of_the_sidecar_or_of_the_command_line(host: Host) -> None:
    host.ask("boot", "karmic", "--expect", "sshd")
    host.ask("boot", "karmic", "--expect", "no such line", code=65)
    (host.spool / "karmic.toml").write_text('kernel = "none"\nconvert = "keep"\nexpect = "no such line"\n')
    host.ask("once")
    host.ask("boot", "karmic", code=65)
    assert living(host.cloud) == []


def test_a_cloud_without_room_is_a_reason_to_come_again(host: Host) -> None:
    host.cloud.faults.arm("boot-quota")
    _, talk = host.ask("boot", "karmic", code=75)
    assert "no room for another instance" in talk


def test_an_unknown_set_cloud_or_image_is_refused(host: Host) -> None:
    host.ask("boot", "lucid", code=66)
    host.ask("boot", "karmic", "--cloud", "none", code=78)
    for image in host.cloud.images:
        host.cloud.backend.registry.remove_image(image.id)
    _, talk = host.ask("boot", "karmic", code=65)
    assert "does not list it" in talk
    assert host.cloud.instances == ()


def test_while_another_boot_is_under_way_it_does_not_wait(host: Host) -> None:
    with claim_boots(host.state, account(host)):
        _, talk = host.ask("boot", "karmic", code=75)
    assert "another test boot is under way on cloud default" in talk
    assert host.cloud.instances == ()


def test_a_boot_by_hand_counts_for_the_service(host: Host) -> None:
    host.ask("boot", "karmic")
    (host.spool / "karmic.toml").write_text('kernel = "none"\nconvert = "keep"\ntest = true\n')
    host.ask("once")
    assert len(host.cloud.instances) == 1
    with closing(open_ledger(host.state)) as book:
        assert book.boots.passed("default", (host.spool / "karmic.emi").read_text().strip())
