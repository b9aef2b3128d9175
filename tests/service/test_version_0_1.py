"""A spool and a ledger of version 0.1 go on with today's program.

`fixtures/version-0.1/make.py` made them with that version: `karmic` is done, `older` done and archived,
`wrong` rejected for its sidecar, `half` deferred during its upload, `held` held before it began.
"""

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.host import Host
from tests.support.listener import Recorder
from uecwatchd.clouds.assumed_dialect import assume_dialects
from uecwatchd.config.load import load
from uecwatchd.intake.sets import assemble
from uecwatchd.intake.spool import scan
from uecwatchd.ledger.records import SetRecord
from uecwatchd.ledger.schema import FILE_NAME
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.outputs.result_files import read_report
from uecwatchd.sandbox.server import Sandbox
from uecwatchd.service.daemon import Service
from uecwatchd.service.policy import due_clouds, make_rules
from uecwatchd.service.set_owners import folder_history, folder_rules
from uecwatchd.system.clocks import Clocks
from uecwatchd.types import FileStamp

FIXTURE = Path(__file__).parent / "fixtures" / "version-0.1"
WHOLE = 'kernel = "none"\nconvert = "keep"\n'


def write_database(dump: Path, to: Path, *, folder: Path) -> None:
    with closing(sqlite3.connect(to)) as opened:
        opened.executescript(dump.read_text().replace("/srv/uec", str(folder)))


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Host]:
    """The host as version 0.1 left it. Its files have other inodes now, as after a copy to another disk."""
    shutil.copytree(FIXTURE / "cloud", tmp_path / "cloud", ignore=shutil.ignore_patterns("*.sql"))
    for name in ("objects", "registry"):
        write_database(
            FIXTURE / "cloud" / f"{name}.sql", tmp_path / "cloud" / f"{name}.sqlite", folder=tmp_path
        )
    with Sandbox(tmp_path / "cloud") as cloud:
        host = Host.made(tmp_path, cloud)
        shutil.copytree(FIXTURE / "spool", host.spool, dirs_exist_ok=True)
        host.state.mkdir(mode=0o700)
        write_database(FIXTURE / "ledger.sql", host.state / FILE_NAME, folder=tmp_path)
        with closing(sqlite3.connect(host.state / FILE_NAME)) as ledger, ledger:
            for table in ("sets", "bundles"):
                ledger.execute(f"UPDATE {table} SET owner = ?", [os.geteuid()])  # noqa: S608
        yield host


@pytest.fixture
def started(old: Host) -> Host:
    """The same after today's service has opened the ledger for the first time."""
    lost: list[str] = []
    open_ledger(old.state, lost=lost.append).close()
    assert lost == []
    return old


def records(host: Host) -> dict[str, SetRecord]:
    with closing(open_ledger(host.state)) as book:
        return {record.name: record for record in book.sets()}


def once(host: Host, listener: Recorder) -> dict[str, SetRecord]:
    """Do all that can be done, a quarter of an hour after the last record of version 0.1."""
    now = max(record.since for record in records(host).values()) + 900
    with closing(open_ledger(host.state)) as book:
        service = Service(
            load(host.config, environ={}), listener=listener, ledger=book, clocks=Clocks(now=lambda: now)
        )
        return {record.name: record for record in service.once()}


def ids() -> dict[str, str]:
    return {path.stem: path.read_text().strip() for path in (FIXTURE / "spool").glob("*.emi")}


def rows(host: Host) -> dict[str, Any]:
    return {row["name"]: row for row in json.loads(host.ask("status", "--json")[0])}


def test_what_was_registered_keeps_its_id_and_nothing_is_registered_twice(
    old: Host, listener: Recorder
) -> None:
    ended = once(old, listener)
    assert ended["karmic"].image_id("machine") == ids()["karmic"]
    assert (old.spool / "karmic.emi").read_text().strip() == ids()["karmic"]
    assert [seen.path for seen in old.cloud.calls("PutObject") if "half" not in seen.path] == []
    assert len(old.cloud.calls("RegisterImage")) == 1, "that of `half`"
    assert len(old.cloud.images) == 3
    assert (old.spool / "older.emi").read_text().strip() == ids()["older"]


def test_a_bundle_that_was_begun_is_finished_under_its_name(old: Host, listener: Recorder) -> None:
    with closing(open_ledger(old.state)) as book:
        (begun,) = (one for one in book.all_bundles() if one.state == "planned")
    half = once(old, listener)["half"]
    assert half.state == "done", half.error
    assert half.target.image("machine").manifest == begun.location
    assert not (old.spool / "half.uec.error").exists()


def test_files_that_have_not_changed_are_not_looked_at_again(old: Host) -> None:
    """As after an update of the program: the stamps in the ledger are those that a scan finds today."""
    settings, before = load(old.config, environ={}), records(old)
    stamps = json.loads((FIXTURE / "stamps.json").read_text())
    listing = scan.scan(old.spool, now=1000.0)
    entries = {
        path: replace(entry, stamp=FileStamp(*stamps[path]), since=0.0)
        for path, entry in listing.entries.items()
    }
    rules = folder_rules(
        old.spool,
        make_rules(settings, assume_dialects(settings.clouds, {})),
        settings.spool,
        service=os.geteuid(),
    )
    history = folder_history(before.values(), rules.users)
    assembly = assemble.assemble(replace(listing, entries=entries), rules=rules, **history)
    ready = {found.name: found for found in assembly.ready}
    assert not due_clouds(before["karmic"], ready["karmic"], now=before["karmic"].since + 1, suspended={})
    assert before["half"].stamp == ready["half"].stamp
    assert [(one.name, one.stamp) for one in assembly.refused] == [("wrong", before["wrong"].stamp)]


def test_verbs_leave_the_ledger_to_the_first_start_of_the_service(old: Host) -> None:
    """The daemon of version 0.1 may still run after an update."""
    for words in (["status"], ["hold", "karmic"], ["forget", "karmic"]):
        assert "this ledger is of version 8" in old.ask(*words, code=78)[1]


def test_status_reads_what_version_0_1_wrote(started: Host) -> None:
    found = rows(started)
    states = {name: found[name]["state"] for name in ("karmic", "half", "wrong", "held")}
    assert states["held"] == "held"
    assert found["karmic"]["report"]["ids"]["machine"] == ids()["karmic"]
    assert "wrong.toml" in found["wrong"]["detail"]


def test_a_rejected_set_goes_on_when_it_is_corrected(old: Host, listener: Recorder) -> None:
    (old.spool / "wrong.toml").write_text(WHOLE)
    assert once(old, listener)["wrong"].state == "done"
    assert (old.spool / "wrong.emi").exists()
    assert not (old.spool / "wrong.uec.error").exists()


def test_a_hold_stays_until_its_release(old: Host, listener: Recorder) -> None:
    once(old, listener)
    assert not [seen.path for seen in old.cloud.calls("PutObject") if "held" in seen.path]
    old.ask("release", "held")
    assert once(old, listener)["held"].state == "done"


def test_old_reports_can_be_read(old: Host) -> None:
    for path in old.spool.glob("*.uec.json"):
        assert read_report(path.read_bytes())["set"] == path.name.removesuffix(".uec.json")


def test_an_image_of_version_0_1_is_compared_with_its_file(started: Host) -> None:
    started.ask("verify", "karmic")


@pytest.mark.parametrize("name", ["karmic", "older"])
def test_a_set_is_forgotten_with_the_result_files_of_version_0_1(started: Host, name: str) -> None:
    started.ask("forget", name)
    assert sorted(path.name for path in started.spool.glob(f"{name}.*")) == (
        ["karmic.img", "karmic.toml"] if name == "karmic" else []
    )
    assert name not in records(started)


def test_an_interrupted_set_goes_on_from_a_stage_with_an_older_name(
    started: Host, listener: Recorder
) -> None:
    """The name of a stage is only shown: none decides how the work goes on."""
    with closing(sqlite3.connect(started.state / FILE_NAME)) as ledger, ledger:
        ledger.execute("UPDATE sets SET state = 'working', stage = 'enter the cloud' WHERE name = 'half'")
    assert once(started, listener)["half"].state == "done"
