"""Rules about builds: which are needed, when they are looked at, and how much of a console is logged."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from uecwatchd.install.request import CONSOLE, is_withdrawn
from uecwatchd.ledger.records import SetBuild, SetRecord
from uecwatchd.service.builds import (
    LINE_CHARACTERS,
    LOGGED_BYTES,
    LOOK_BYTES,
    is_wanted,
    needs_build,
    next_look_at,
    read_console,
    withdraw_unneeded,
)
from uecwatchd.service.policy import GONE, earliest_retry
from uecwatchd.types import SetId

KEY = "0" * 32
BUILD = SetBuild(KEY, (), "running", began=100.0)
WAITING = SetRecord(SetId("/s", "web"), "s", "waiting", 100.0, next_retry=110.0, build=BUILD)


@pytest.mark.parametrize(
    ("record", "needed"),
    [
        (WAITING, True),
        (replace(WAITING, reason=GONE), False),
        (replace(WAITING, build=None), False),
        (replace(WAITING, stamp="", reason="the set base to be done, its base"), False),
        (replace(WAITING, stamp="", reason="a.iso", build=replace(BUILD, state="done")), True),
        (replace(WAITING, state="deferred", build=replace(BUILD, state="done")), True),
        (replace(WAITING, state="rejected", build=replace(BUILD, state="failed")), False),
        (replace(WAITING, state="done", build=replace(BUILD, state="done")), False),
        (replace(WAITING, state="done", build=replace(BUILD, state="done", keeps_disk=True)), True),
        (replace(WAITING, state="rejected", build=replace(BUILD, state="failed", keeps_disk=True)), False),
    ],
)
def test_a_set_needs_its_build_until_it_is_done_and_longer_if_it_keeps_the_disk(
    record: SetRecord, *, needed: bool
) -> None:
    assert needs_build(record) is needed


def test_a_held_set_keeps_a_disk_and_no_running_machine() -> None:
    held = {WAITING.id}
    assert not is_wanted(WAITING, held)
    assert is_wanted(replace(WAITING, state="queued", build=replace(BUILD, state="done")), held)


@pytest.mark.parametrize("status", ["", "{}", '{"version": 1, "key": "of another build"}'])
def test_a_build_that_no_set_needs_is_withdrawn_whatever_its_status_is(tmp_path: Path, status: str) -> None:
    (tmp_path / KEY).mkdir()
    (tmp_path / KEY / "status.json").write_text(status)
    withdraw_unneeded(tmp_path, KEY, ())
    assert is_withdrawn(tmp_path, KEY)


@pytest.mark.parametrize(("now", "pause"), [(100.0, 1.0), (140.0, 2.0), (4000.0, 10.0)])
def test_a_build_is_looked_at_soon_at_first_and_later_less_often(now: float, pause: float) -> None:
    assert next_look_at(BUILD, now) == now + pause


def test_a_set_that_waits_for_its_system_counts_among_those_to_be_looked_at() -> None:
    waits_for_file = replace(WAITING, build=None, next_retry=105.0)
    assert earliest_retry([WAITING, waits_for_file], suspended=(), looks=True) == 110.0


@pytest.fixture
def console(tmp_path: Path) -> Path:
    (tmp_path / KEY).mkdir()
    return tmp_path / KEY / CONSOLE


def looks(builds: Path, build: SetBuild) -> Iterator[tuple[list[str], SetBuild]]:
    while (lines_and_build := read_console(builds, build))[0]:
        yield lines_and_build
        build = lines_and_build[1]


def test_each_line_is_told_once_when_it_is_whole_and_without_what_controls_a_terminal(
    console: Path, tmp_path: Path
) -> None:
    console.write_bytes(b"\x1b[2Jone\r\n\r\ntwo\r\nlogin: ")
    lines, build = read_console(tmp_path, BUILD)
    assert lines == ["one", "two"]
    assert read_console(tmp_path, build) == ([], build)
    assert read_console(tmp_path, replace(build, state="done"))[0] == ["login: "]


def test_a_console_that_begins_again_is_read_from_its_beginning(console: Path, tmp_path: Path) -> None:
    console.write_bytes(b"first\nsecond\n")
    build = read_console(tmp_path, BUILD)[1]
    console.write_bytes(b"again\n")
    assert read_console(tmp_path, build)[0] == ["again"]


def test_the_console_of_an_earlier_attempt_is_not_told_again(console: Path, tmp_path: Path) -> None:
    console.write_bytes(b"of the failed one\n")
    queued = replace(BUILD, state="queued")
    assert read_console(tmp_path, queued) == ([], queued)


def test_a_guest_that_writes_without_end_fills_no_log(console: Path, tmp_path: Path) -> None:
    console.write_bytes(b"x" * 79 + b"\n")
    with console.open("ab") as file:
        file.truncate(4 * LOGGED_BYTES)  # zeros are one long line
    told = list(looks(tmp_path, BUILD))
    assert max(len(line) for lines, _ in told for line in lines) == LINE_CHARACTERS
    assert max(sum(map(len, lines)) for lines, _ in told) <= LOOK_BYTES
    assert LOGGED_BYTES <= told[-1][1].logged < LOGGED_BYTES + LOOK_BYTES
    assert told[-1][0][-1].startswith("(it goes on; the rest is not in this log")


def test_a_build_without_a_console_yet_has_no_lines(tmp_path: Path) -> None:
    assert read_console(tmp_path, BUILD) == ([], BUILD)
