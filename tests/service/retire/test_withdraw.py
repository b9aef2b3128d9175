"""A published image that is taken back: on request, and because its files were removed."""

import json
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.support.clock import Clocks
from tests.support.daemon import daemon_process, opened_service, stop_daemon
from tests.support.host import Host
from tests.support.listener import Recorder
from tests.support.published_sets import images, keys, publish, row, tag, versions
from tests.support.spool_files import drop_image
from tests.support.terminal import on_terminal
from tests.support.waiting import until
from uecwatchd.demo.material import RealSet
from uecwatchd.ledger.sqlite import open_ledger

DAY = 86400.0


# --- on request -------------------------------------------------------------------------------------------


def test_an_image_leaves_with_its_bundle_and_the_set_is_held(host: Host) -> None:
    image_id = publish(host)
    data, talk = host.ask("withdraw", "karmic", "--yes")
    assert (images(host), keys(host)) == ([], [])
    assert data == f"{image_id} gone\n"
    assert f"karmic: deregistered machine {image_id} on cloud default, and deleted its bundle" in talk
    assert not (host.spool / "karmic.emi").exists()
    assert host.report("karmic")["state"] == "withdrawn"
    assert host.report("karmic")["ids"]["machine"] is None
    found = row(host)
    assert (found["state"], "withdrawn" in str(found["detail"])) == ("held", True)
    assert [one.state for one in versions(host)] == ["withdrawn"]
    host.ask("once")
    assert images(host) == [], "it is held"


def test_a_withdrawn_set_is_published_again_once_it_is_released(host: Host) -> None:
    publish(host)
    host.ask("withdraw", "karmic", "--yes")
    _, talk = host.ask("release", "karmic")
    assert "It is published again." in talk
    host.ask("once")
    assert images(host) == [(host.spool / "karmic.emi").read_text().strip()]
    assert [one.state for one in versions(host)] in (["current", "withdrawn"], ["current"])


def test_kernel_and_ramdisk_leave_with_their_machine(host: Host, small_set: RealSet) -> None:
    host.drop_set(small_set)
    host.ask("once")
    assert len(images(host)) == 3
    host.ask("withdraw", "karmic", "--yes")
    assert (images(host), keys(host)) == ([], [])
    assert not {path.suffix for path in host.spool.iterdir()} & {".emi", ".eki", ".eri"}


def test_a_kernel_that_another_set_boots_with_stays(host: Host, small_set: RealSet) -> None:
    for name in ("karmic", "lucid"):
        host.drop_set(small_set, name)
    with (host.spool / "lucid.img").open("ab") as image:
        image.write(b"1" * 4096)
    host.ask("once")
    host.ask("withdraw", "karmic", "--yes")
    left = [(host.spool / f"lucid{suffix}").read_text().strip() for suffix in (".eki", ".emi", ".eri")]
    assert images(host) == sorted(left)


def test_a_kernel_of_an_older_version_stays(host: Host, small_set: RealSet) -> None:
    host.drop_set(small_set)
    host.ask("once")
    older = images(host)
    with (host.spool / "karmic.img").open("ab") as image:
        image.write(b"1" * 4096)
    host.ask("once")
    host.ask("withdraw", "karmic", "--yes")
    assert images(host) == older
    assert [one.state for one in versions(host)] == ["withdrawn", "older"]


def test_an_image_that_another_set_has_stays(host: Host) -> None:
    publish(host, "lucid")
    image_id = publish(host, "karmic")
    data, talk = host.ask("withdraw", "karmic", "--yes", code=65)
    assert data == f"{image_id} stays\n"
    assert f"{image_id} stays in cloud default: set lucid uses it" in talk
    assert images(host) == [image_id]
    assert (host.spool / "lucid.emi").exists()


def test_nothing_is_done_without_a_terminal_and_without_yes(host: Host) -> None:
    publish(host)
    before = (images(host), keys(host))
    ended = host.run("withdraw", "karmic")
    assert ended.returncode == 64
    assert "--yes" in ended.stderr
    assert (images(host), keys(host)) == before
    assert row(host)["state"] == "done"


@pytest.mark.parametrize(("answer", "code"), [("n", 64), ("y", 0)])
def test_a_terminal_is_asked(host: Host, answer: str, code: int) -> None:
    image_id = publish(host)
    with on_terminal(host, "withdraw", "karmic") as screen:
        screen.await_text("[y/N]")
        screen.type(f"{answer}\n")
        assert screen.await_end() == code
    assert images(host) == ([image_id] if code else [])


def test_a_trial_changes_nothing_and_says_what_would_be_done(host: Host) -> None:
    image_id = publish(host)
    data, talk = host.ask("withdraw", "karmic", "--dry-run", "--json")
    assert f"To be taken back: machine {image_id} from cloud default" in talk
    assert json.loads(data)["images"] == [
        {"cloud": "default", "role": "machine", "id": image_id, "gone": False}
    ]
    assert images(host) == [image_id]
    assert row(host)["state"] == "done"


def test_json_says_what_is_gone(host: Host) -> None:
    image_id = publish(host)
    report = json.loads(host.ask("withdraw", "karmic", "--yes", "--json")[0])
    assert report["done"]
    assert [(one["id"], one["gone"]) for one in report["images"]] == [(image_id, True)]


@pytest.mark.parametrize(
    ("words", "code"), [(("nothing",), 66), (("karmic", "--cloud", "far"), 65), (("karmic",), 65)]
)
def test_what_cannot_be_meant_is_refused(host: Host, words: tuple[str, ...], code: int) -> None:
    publish(host)
    if words == ("karmic",):
        host.ask("withdraw", "karmic", "--yes")
    host.ask("withdraw", *words, "--yes", code=code)


def test_an_image_that_was_removed_by_hand_is_no_trouble(host: Host) -> None:
    image_id = publish(host)
    host.cloud.backend.registry.remove_image(image_id)
    host.ask("withdraw", "karmic", "--yes")
    assert (images(host), keys(host)) == ([], [])


@pytest.mark.parametrize(("key", "value"), [("host", "elsewhere"), ("owner", "somebody")])
def test_an_image_whose_tags_strangers_have_changed_stays(host: Host, key: str, value: str) -> None:
    image_id = publish(host)
    tag(host, image_id, key, value)
    _, talk = host.ask("withdraw", "karmic", "--yes", code=65)
    assert f"{image_id} stays in cloud default: its tag {key} is" in talk
    assert images(host) == [image_id]
    assert not (host.spool / "karmic.emi").exists()


def test_an_image_that_another_host_has_made_is_not_taken_from_it(make_host: Callable[..., Host]) -> None:
    """Both drop the same bytes, and the second finds the image of the first."""
    one, other = make_host("one"), make_host("other")
    image_id = publish(one)
    assert publish(other) == image_id
    _, talk = other.ask("withdraw", "karmic", "--yes", code=65)
    assert f"{image_id} stays in cloud default: it was not registered by this host" in talk
    assert images(one) == [image_id]


# --- with a daemon, and with a cloud that is away ---------------------------------------------------------


def test_a_running_daemon_takes_it_back(host: Host) -> None:
    image_id = publish(host)
    with daemon_process(host) as daemon:
        data, talk = host.ask("withdraw", "karmic", "--yes")
        assert data == f"{image_id} gone\n"
        assert f"deregistered machine {image_id}" in talk
        assert images(host) == []
        until(lambda: host.report("karmic")["state"] == "withdrawn")
        stop_daemon(daemon)
    with closing(open_ledger(host.state)) as book:
        assert book.requests() == ()


def test_a_request_outlives_a_cloud_that_is_away(host: Host) -> None:
    image_id = publish(host)
    host.cloud.faults.arm("down")
    _, talk = host.ask("withdraw", "karmic", "--yes", code=75)
    assert "goes on by itself" in talk
    assert images(host) == [image_id]
    assert not (host.spool / "karmic.emi").exists(), "no script starts it any more"
    host.cloud.faults.clear()
    host.ask("once")
    assert images(host) == []
    assert host.report("karmic")["state"] == "withdrawn"


# --- because the files were removed -----------------------------------------------------------------------


@pytest.fixture
def withdrawing(host: Host) -> Host:
    """A host that takes images back when their files were removed for a day."""
    host.configure(host.config.read_text().replace("[spool]\n", '[spool]\nremoved = "withdraw"\n'))
    return host


def after(host: Host, clocks: Clocks) -> None:
    """Do all that can be done by these clocks."""
    with opened_service(host, Recorder(), now=clocks.now, monotonic=clocks.monotonic) as service:
        service.once()


def remove(host: Host, *names: str) -> None:
    for name in names or ("karmic.img", "karmic.toml"):
        (host.spool / name).unlink()


def test_files_that_were_removed_for_a_day_take_their_image_with_them(withdrawing: Host) -> None:
    host, clocks = withdrawing, Clocks()
    image_id = publish(host)
    remove(host)
    after(host, clocks)
    assert images(host) == [image_id]
    clocks.pass_by(DAY / 2)
    after(host, clocks)
    assert images(host) == [image_id]
    clocks.pass_by(DAY)
    after(host, clocks)
    assert (images(host), keys(host)) == ([], [])
    with closing(open_ledger(host.state)) as book:
        assert book.holds() == {}


def test_files_that_come_back_keep_their_image(withdrawing: Host) -> None:
    host, clocks = withdrawing, Clocks()
    image_id = publish(host)
    data = (host.spool / "karmic.img").read_bytes()
    remove(host)
    after(host, clocks)
    clocks.pass_by(DAY / 2)
    drop_image(host.spool, "karmic", data)
    after(host, clocks)
    clocks.pass_by(DAY)
    after(host, clocks)
    assert images(host) == [image_id]
    with closing(open_ledger(host.state)) as book:
        assert book.requests() == ()


def test_a_folder_that_lost_all_is_no_reason(withdrawing: Host) -> None:
    """As when a file server vanishes, and an empty folder is in its place: our own files are gone too."""
    host, clocks = withdrawing, Clocks()
    image_id = publish(host)
    host.spool.rename(host.folder / "away")
    host.spool.mkdir()
    for _ in range(3):
        after(host, clocks)
        clocks.pass_by(DAY)
    assert images(host) == [image_id]


def test_a_folder_that_vanishes_later_is_no_reason_either(withdrawing: Host) -> None:
    host, clocks = withdrawing, Clocks()
    image_id = publish(host)
    remove(host)
    after(host, clocks)
    away = host.folder / "away"
    host.spool.rename(away)
    clocks.pass_by(2 * DAY)
    after(host, clocks)
    host.spool.mkdir()
    after(host, clocks)
    assert images(host) == [image_id]


def test_a_part_of_the_files_is_not_all(withdrawing: Host) -> None:
    host, clocks = withdrawing, Clocks()
    image_id = publish(host)
    remove(host, "karmic.img")
    (host.spool / "karmic.img.bak").write_bytes(b"1")
    for _ in range(3):
        after(host, clocks)
        clocks.pass_by(DAY)
    assert images(host) == [image_id]


def test_by_default_an_image_outlives_its_files(host: Host) -> None:
    clocks = Clocks()
    image_id = publish(host)
    remove(host)
    for _ in range(3):
        after(host, clocks)
        clocks.pass_by(DAY)
    assert images(host) == [image_id]


def test_files_that_the_service_removes_itself_are_no_reason(host: Host) -> None:
    text = host.config.read_text()
    host.configure(text.replace("[spool]\n", '[spool]\nafter = "archive"\nremoved = "withdraw"\n'))
    _, talk = host.ask("once", code=78)
    assert 'spool.removed = "withdraw" needs spool.after = "keep"' in talk
