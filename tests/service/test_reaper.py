"""The reaper finds what a crash has left: by its id, its token, its image, or after a lost ledger."""

import socket
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.boots import account, drop_tested, living, quick_boots
from tests.support.host import Host, cloud_host
from uecwatchd.clouds.client import make_cloud
from uecwatchd.clouds.dialects import DIALECTS
from uecwatchd.clouds.instances import LaunchRequest, launch
from uecwatchd.delivery.boot_lock import claim_boots
from uecwatchd.delivery.test_boot import token_mark
from uecwatchd.ledger.boots import BootRecord
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.types import SetId

TOKEN = "uecwatchd-0123456789ab-0123456789abcdef"


def registered(host: Host) -> str:
    """Register an image without a test, and return its id."""
    (host.spool / "lucid.toml").write_text('kernel = "none"\nconvert = "keep"\n')
    (host.spool / "lucid.img").write_bytes(b"2" * 4096)
    host.ask("once")
    return (host.spool / "lucid.emi").read_text().strip()


def start(host: Host, image_id: str, *, dialect: str = "sandbox", token: str = TOKEN) -> str:
    cloud = make_cloud(account(host), DIALECTS[dialect], uploads=1)
    return launch(cloud, LaunchRequest(image_id, token)).id


def leave(host: Host, boot: BootRecord) -> None:
    with closing(open_ledger(host.state)) as book:
        book.boots.put(boot)


def boots(host: Host) -> tuple[BootRecord, ...]:
    with closing(open_ledger(host.state)) as book:
        return book.boots.open()


def a_boot(host: Host, image_id: str, **fields: Any) -> BootRecord:
    return BootRecord(TOKEN, "default", image_id, SetId(str(host.spool), "lucid"), 1e9, **fields)


def test_an_instance_with_a_known_id_is_terminated_at_the_start(host: Host) -> None:
    quick_boots(host)
    image_id = registered(host)
    ours, other = start(host, image_id), start(host, image_id, token="of somebody else")
    leave(host, a_boot(host, image_id, instance_id=ours))
    _, talk = host.ask("once")
    assert living(host.cloud) == [other]
    assert boots(host) == ()
    assert f"terminating {ours}, which was left from a test boot of {image_id}" in talk


def test_an_instance_without_an_id_is_found_by_its_token(host: Host) -> None:
    quick_boots(host)
    image_id = registered(host)
    start(host, image_id)
    other = start(host, image_id, token="of somebody else")
    leave(host, a_boot(host, image_id))
    host.ask("once")
    assert (living(host.cloud), boots(host)) == ([other], ())


def test_where_no_token_is_shown_it_is_the_only_new_instance_of_its_image(tmp_path: Path) -> None:
    with cloud_host(tmp_path, "uec") as host:
        quick_boots(host)
        image_id = registered(host)
        before = start(host, image_id, dialect="uec")
        ours = start(host, image_id, dialect="uec")
        leave(host, a_boot(host, image_id, others=(before,)))
        host.ask("once")
        assert (living(host.cloud), boots(host)) == ([before], ())
        assert ours not in living(host.cloud)


def test_of_several_candidates_none_is_terminated(tmp_path: Path) -> None:
    with cloud_host(tmp_path, "uec") as host:
        quick_boots(host)
        image_id = registered(host)
        started = {start(host, image_id, dialect="uec") for _ in range(2)}
        leave(host, a_boot(host, image_id))
        _, talk = host.ask("once")
        assert set(living(host.cloud)) == started
        assert "terminate it by hand" in talk


def test_a_boot_whose_request_never_arrived_is_forgotten_after_an_hour(host: Host) -> None:
    quick_boots(host)
    image_id = registered(host)
    leave(host, a_boot(host, image_id))
    host.ask("once")
    assert boots(host) == (), "it is from 2001"
    young = replace(a_boot(host, image_id), began=time.time())
    leave(host, young)
    host.ask("once")
    assert boots(host) == (young,)


def test_what_a_lost_ledger_knew_is_terminated_before_the_next_boot(host: Host) -> None:
    quick_boots(host)
    image_id = registered(host)
    start(host, image_id, token=f"{token_mark(socket.gethostname(), host.state)}0123456789abcdef")
    drop_tested(host)
    host.ask("once")
    assert (living(host.cloud), boots(host)) == ([], ())


@pytest.mark.parametrize("age", [60.0, 3700.0])
def test_an_instance_under_another_name_of_the_account_is_left_alone_for_an_hour(
    host: Host, age: float
) -> None:
    """No boot takes longer, and a name that is not configured any more has nobody else to end it."""
    quick_boots(host)
    image_id = registered(host)
    token = f"{token_mark(socket.gethostname(), host.state)}0123456789abcdef"
    ours, began = start(host, image_id, token=token), time.time() - age
    boot = BootRecord(token, "twin", image_id, SetId(str(host.spool), "lucid"), began, (), ours)
    leave(host, boot)
    drop_tested(host)
    host.ask("once")
    assert (living(host.cloud), boots(host)) == (([ours], (boot,)) if age < 3600.0 else ([], ()))


def test_two_names_of_one_account_have_one_claim(host: Host) -> None:
    quick_boots(host)
    image_id = registered(host)
    text = host.config.read_text()
    twin = text.partition("[cloud.default]\n")[2]
    text = text.replace("[defaults]\n", '[defaults]\nclouds = ["default"]\n')
    host.configure(f"{text}\n[cloud.twin]\n{twin}")
    leave(host, replace(a_boot(host, image_id), instance_id=start(host, image_id)))
    with claim_boots(host.state, account(host, "twin")):
        host.ask("once")
        assert len(living(host.cloud)) == 1
    host.ask("once")
    assert living(host.cloud) == []


def test_while_a_boot_is_under_way_its_instance_is_left_alone(host: Host) -> None:
    quick_boots(host)
    image_id = registered(host)
    ours = start(host, image_id)
    leave(host, a_boot(host, image_id, instance_id=ours))
    with claim_boots(host.state, account(host)):
        host.ask("once")
        assert living(host.cloud) == [ours]
    host.ask("once")
    assert living(host.cloud) == []


def test_a_boot_on_a_cloud_that_is_not_configured_any_more_stays(host: Host) -> None:
    quick_boots(host)
    image_id = registered(host)
    boot = replace(a_boot(host, image_id), cloud="gone")
    leave(host, boot)
    host.ask("once")
    assert boots(host) == (boot,)


def test_boots_survive_a_damaged_ledger(host: Host) -> None:
    quick_boots(host)
    image_id = registered(host)
    ours = start(host, image_id)
    leave(host, a_boot(host, image_id, instance_id=ours))
    with closing(sqlite3.connect(host.state / "ledger.sqlite")) as book:
        book.execute("UPDATE sets SET error = 'nonsense'")
        book.commit()
    host.ask("once")
    assert (living(host.cloud), boots(host)) == ([], ())
