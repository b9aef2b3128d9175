"""`status` on a terminal: the drawing by itself, and the program on a pseudo terminal."""

import io
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import pytest
from rich.console import Console

from tests.support.host import Host
from tests.support.terminal import WITHOUT_RICH, on_terminal
from uecwatchd.cli.status.answer import StatusAnswer
from uecwatchd.cli.status.drawing import draw, draw_frame, rows_that_fit
from uecwatchd.cli.status.rows import Row
from uecwatchd.cli.status.watch import repeat
from uecwatchd.errors import Deferred
from uecwatchd.ledger.records import ProgressRecord, SetRecord
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.ledger.state_folder import lock_state
from uecwatchd.system import lockfile
from uecwatchd.types import SetId

KARMIC = SetId("/s", "karmic")
WORKING = SetRecord(KARMIC, "stamp", "working", 1.0, stage="upload the machine", attempt=1)
PROGRESS = ProgressRecord(KARMIC, "upload the machine", "karmic.img", 31 << 20, 100 << 20, 4, 1.0, 11.0)
AT_WORK = Row(
    KARMIC,
    "working",
    "upload the machine: karmic.img, part 4, 31 %, 3.3 MB/s, 22 s left (attempt 1)",
    WORKING,
    progress=PROGRESS,
)
DONE = Row(SetId("/s", "hardy"), "done", "emi-12345678")


WATCH = ("status", "--watch", "0.1")
HOSTILE = ["[bold red]x[/]", ":smile:", "a\x1b[31m", "x" * 300, "\u202etxt", "名" * 60]


def answer(*rows: Row, **more: Any) -> StatusAnswer:
    return StatusAnswer(1256858000.0, rows, 1, **more)


def printed(what: Any, columns: int) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=columns, markup=False, emoji=False).print(what)
    return [line.rstrip() for line in text.getvalue().splitlines()]


# --- the drawing ------------------------------------------------------------------------------------------


def test_a_set_at_work_has_a_bar_with_rate_and_time_left() -> None:
    lines = printed(draw(answer(AT_WORK, DONE), columns=80), 80)
    assert lines[0] == "SET     STATE"
    assert lines[1] == "karmic  working    upload the machine: karmic.img, part 4 (attempt 1)"
    bar, numbers = lines[2].split(" 31 %", 1)
    assert set(bar.strip()) <= set("━╸╺")
    assert numbers == "  3.3 MB/s  22 s left"
    assert lines[3] == "hardy   done       emi-12345678"


def test_a_narrow_terminal_has_the_sentence_below_the_name() -> None:
    lines = printed(draw(answer(AT_WORK, DONE), columns=40), 40)
    assert lines[0] == "karmic  working"
    assert lines[1:3] == ["  upload the machine: karmic.img, part 4", "  (attempt 1)"]
    assert lines[3].endswith("31 %  3.3 MB/s  22 s left")
    assert lines[4:] == ["hardy  done", "  emi-12345678"]
    assert max(map(len, lines)) <= 40


@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize(
    "name", ["[bold red]x[/]", ":smile:", "a\x1b[31m", "x" * 300, "\u202etxt", "名" * 60]
)
def test_a_name_is_text_and_nothing_else(name: str, columns: int) -> None:
    lines = printed(draw(answer(replace(DONE, id=SetId("/s", name), detail=name)), columns=columns), columns)
    text = "".join("".join(lines).split())
    assert "\x1b" not in text
    assert "\u202e" not in text
    if len(name) < 20:
        assert text.count(name.encode("unicode_escape").decode().replace(" ", "")) == 2
    assert all(len(line) <= columns for line in lines)


def test_a_picture_has_what_is_watched_for_if_there_is_no_space_for_all() -> None:
    many = [replace(DONE, id=SetId("/s", f"done-{number}")) for number in range(50)]
    failed = Row(SetId("/s", "zesty"), "rejected", "zesty.img: " + "it is no disk " * 20)
    shown = answer(*many, AT_WORK, failed, remarks=("No daemon is running.",))
    for columns, lines in ((80, 24), (40, 12)):
        drawn = printed(draw_frame(shown, columns=columns, lines=lines, footer=", Ctrl-C ends"), columns)
        assert len(drawn) <= lines
        text = "\n".join(drawn)
        assert "No daemon is running." in text
        assert "31 %" in text
        assert "zesty" in text
        assert "more, for which there is no space" in text
        assert "1 working, 1 rejected, 50 done" in text
        assert "Ctrl-C ends" in text


def test_rows_that_fit_keep_their_order() -> None:
    first, last = replace(DONE, id=SetId("/s", "a")), replace(DONE, id=SetId("/s", "z"), state="waiting")
    assert rows_that_fit([first, AT_WORK, last], lines=3, columns=80) == (AT_WORK, last)
    assert rows_that_fit([first, AT_WORK, last], lines=4, columns=80) == (first, AT_WORK, last)
    assert rows_that_fit([first, AT_WORK], lines=0, columns=80) == ()


# --- again and again --------------------------------------------------------------------------------------


def test_an_error_while_it_is_watched_is_shown_beside_the_rows_before() -> None:
    drawn: list[StatusAnswer] = []
    wakes: SimpleQueue[Any] = SimpleQueue()

    def look() -> StatusAnswer:
        raise Deferred("the ledger", "it is busy", "Wait.")

    def show(shown: StatusAnswer) -> None:
        drawn.append(shown)
        if len(drawn) == 2:
            wakes.put("end")

    last = repeat(look, answer(DONE), show, wakes, every_seconds=0.0)
    assert [shown.rows for shown in drawn] == [(DONE,), (DONE,)]
    assert last.troubles == ("uecwatchd: the ledger: it is busy. Wait.",)
    assert last.exit_code == Deferred.exit_code


# --- the program ------------------------------------------------------------------------------------------


@pytest.fixture
def at_work(host: Host) -> Iterator[Host]:
    """A host with a set at work, by the ledger and the lock of a daemon, and a file with a hostile name."""
    spool = str(host.spool)
    (host.spool / "[bold]\x1b[31m.txt").write_text("x")
    (host.spool / "karmic.img").write_bytes(b"x" * 512)
    with closing(open_ledger(host.state)) as ledger:
        ledger.put_set(replace(WORKING, id=SetId(spool, "karmic")))
        now = time.time()
        ledger.put_progress(replace(PROGRESS, set_id=SetId(spool, "karmic"), began=now - 10, moment=now))
    lock = lock_state(host.state, patience_seconds=1)
    try:
        yield host
    finally:
        lockfile.release(lock)


@pytest.mark.parametrize("columns", [80, 40])
def test_a_watched_status_is_one_picture_until_it_is_interrupted(at_work: Host, columns: int) -> None:
    with on_terminal(at_work, *WATCH, columns=columns) as terminal:
        text = terminal.await_text("Ctrl-C ends", "31 %  3.3 MB/s  22 s left", r"[bold]\x1b[31m.txt")
        assert max(map(len, text.splitlines())) <= columns
        assert terminal.colours_of("working") == {"cyan"}
        (at_work.spool / "later.txt").write_text("x")
        terminal.await_text("later.txt")
        terminal.interrupt()
        assert terminal.await_end() == 0
    assert b"\x1b[31m.txt" not in terminal.written
    assert not terminal.cursor_is_hidden
    assert b"\x1b[?1049l" in terminal.written, "the screen from before is back"
    assert "22 s left" in terminal.text, "the last answer stays"


@pytest.mark.parametrize(
    ("environ", "escapes", "bar"),
    [({"NO_COLOR": "1"}, True, True), ({"TERM": "dumb"}, False, False)],
    ids=["no colour", "dumb"],
)
def test_colours_are_left_out_on_request(at_work: Host, environ: Any, escapes: bool, bar: bool) -> None:  # noqa: FBT001
    with on_terminal(at_work, "status", **environ) as terminal:
        assert terminal.await_end() == 0
    assert b"\x1b[3" not in terminal.written, "no colour"
    assert (b"\x1b" in terminal.written, "━" in terminal.text) == (escapes, bar)


def test_without_a_terminal_the_lines_are_plain_and_repeated_while_watched(at_work: Host) -> None:
    plain = at_work.ask("status")[0]
    assert plain.splitlines()[0] == "SET                 STATE"
    assert "part 4, 31 %, 3.3 MB/s, 22 s left (attempt 1)" in plain
    process = at_work.popen("status", "--watch", "0.1")
    assert process.stdout
    table = [line.rstrip() for line in plain.splitlines()]
    for _ in range(2):
        assert process.stdout.readline().endswith(" UTC\n")
        assert [process.stdout.readline().rstrip() for _ in table] == table
        assert process.stdout.readline() == "\n"
    process.terminate()
    process.communicate()
    assert process.returncode == 0


def test_an_unknown_name_is_not_watched(host: Host) -> None:
    data, talk = host.ask("status", "nonesuch", "--watch", code=66)
    assert (data, "nothing named nonesuch" in talk) == ("", True)


@pytest.mark.parametrize("more", ["karmic", "0", "nan", "--json"])
def test_a_wrong_use_of_watch_is_explained(host: Host, more: str) -> None:
    with pytest.raises(SystemExit) as ended:
        host.ask("status", "--watch", more)
    assert ended.value.code == 64


def test_without_the_library_the_lines_are_plain_and_it_is_named(at_work: Host) -> None:
    with on_terminal(at_work, *WATCH, columns=120, program=WITHOUT_RICH) as terminal:
        text = terminal.await_text("UTC", "karmic")
        terminal.interrupt()
        assert terminal.await_end() == 0
    assert "pip install 'uecwatchd[rich]'" in text
    assert b"\x1b" not in terminal.written
