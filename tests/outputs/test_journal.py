import io
import json
import logging
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import pyte
import pytest

from tests.support.clock import Clock
from uecwatchd.events import Event, Kind, Progress, Tee
from uecwatchd.outputs.journal import MESSAGE_IDS
from uecwatchd.outputs.log import EventLog, choose_output, open_log, take_over_stdlib
from uecwatchd.types import SetId

KARMIC, LUCID = SetId("/spool", "karmic"), SetId("/spool", "lucid")
DONE = Event(Kind.DONE, "karmic is registered as emi-1", KARMIC, fields={"emi": "emi-1", "seconds": 2.5})
REJECTED = Event(
    Kind.REJECTED, "karmic.img: cannot read it", KARMIC, "error", {"hint": "Try: chmod g+r karmic.img"}
)


class Sent(list[tuple[str, dict[str, Any]]]):
    """Stub in the place of systemd.journal.send."""

    def __call__(self, message: str, **fields: Any) -> None:
        self.append((message, fields))


def stream_id(stream: TextIO) -> str:
    status = os.fstat(stream.fileno())
    return f"{status.st_dev}:{status.st_ino}"


@pytest.fixture
def stderr(tmp_path: Path) -> Iterator[TextIO]:
    with (tmp_path / "stderr").open("w+", encoding="utf-8") as stream:
        yield stream


def said(stream: TextIO) -> list[str]:
    stream.seek(0)
    return stream.read().splitlines()


BELL = "\a"


@pytest.fixture
def terminal() -> Iterator[tuple[TextIO, Callable[[], str]]]:
    """A terminal to write to, and a way to read its output since the last time."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as stream:
        yield stream, lambda: _until_bell(ours, stream)
    os.close(ours)


def _until_bell(ours: int, stream: TextIO) -> str:
    # The kernel passes text on in its own time: a bell character behind it shows that all has arrived.
    stream.write(BELL)
    stream.flush()
    shown = ""
    while not shown.endswith(BELL):
        assert select.select([ours], [], [], 10)[0], f"the terminal fell silent after {shown!r}"
        shown += os.read(ours, 65536).decode()
    return shown.removesuffix(BELL).replace("\r\n", "\n")


# --- which sink -------------------------------------------------------------------------------------------


def test_a_stream_of_the_journal_is_spoken_to_natively_or_in_marked_lines(stderr: TextIO) -> None:
    environ = {"JOURNAL_STREAM": stream_id(stderr)}
    assert choose_output(environ, stderr, native=True) == "journal"
    assert choose_output(environ, stderr, native=False) == "marked"


def test_a_redirected_stream_is_not_the_journal(stderr: TextIO) -> None:
    assert choose_output({"JOURNAL_STREAM": "1:1"}, stderr, native=True) == "plain"
    assert choose_output({"JOURNAL_STREAM": "1:1"}, io.StringIO(), native=True) == "plain"


def test_a_terminal_that_can_move_its_cursor_is_one(terminal: tuple[TextIO, Callable[[], str]]) -> None:
    assert choose_output({"TERM": "xterm"}, terminal[0], native=True) == "terminal"
    assert choose_output({"TERM": "dumb"}, terminal[0], native=True) == "plain"


# --- journald ---------------------------------------------------------------------------------------------


def native(stderr: TextIO) -> tuple[EventLog, Sent]:
    sent = Sent()
    return open_log({"JOURNAL_STREAM": stream_id(stderr)}, stderr, send=sent), sent


def test_the_journal_gets_a_sentence_and_its_data_as_fields(stderr: TextIO) -> None:
    journal, sent = native(stderr)
    journal.tell(DONE)
    message, fields = sent[0]
    assert message == DONE.sentence
    assert fields["MESSAGE_ID"] == MESSAGE_IDS[Kind.DONE]
    assert (fields["PRIORITY"], fields["SYSLOG_IDENTIFIER"]) == (6, "uecwatchd")
    assert {name: value for name, value in fields.items() if name.startswith("UEC_")} == {
        "UEC_SET": b"karmic",
        "UEC_ARGUMENT": b"/spool/karmic",
        "UEC_EMI": b"emi-1",
        "UEC_SECONDS": b"2.5",
    }
    assert said(stderr) == []


def test_the_journal_has_the_line_of_code_of_an_event(stderr: TextIO) -> None:
    journal, sent = native(stderr)
    Tee((journal,)).tell(DONE)
    fields = sent[0][1]
    assert fields["CODE_FILE"] == __file__
    assert fields["CODE_FUNC"] == "test_the_journal_has_the_line_of_code_of_an_event"


def test_the_journal_takes_a_set_whose_name_is_not_utf8(stderr: TextIO) -> None:
    journal, sent = native(stderr)
    journal.tell(Event(Kind.FOUND, "Found \udcff\x1b[2J", SetId("/spool", "\udcff")))
    assert sent[0][0] == r"Found \udcff\x1b[2J"
    assert sent[0][1]["UEC_SET"] == rb"\udcff"


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("karmic", b"karmic"),
        ("café ☃", "café ☃".encode()),
        ("\x1b]0;owned\x07", rb"\x1b]0;owned\x07"),
        ("\x9b2J", rb"\x9b2J"),
        ("a\rb\tc\x7f", rb"a\rb\tc\x7f"),
        ("\u202egnp.exe", rb"\u202egnp.exe"),
        ("\udcff\udc9b", rb"\udcff\udc9b"),
    ],
)
def test_no_field_can_control_a_terminal(name: str, field: bytes, stderr: TextIO) -> None:
    journal, sent = native(stderr)
    fields = {"file": name, "hint": name, "error": name, "bucket": name, "traceback": f"{name}\n{name}"}
    journal.tell(Event(Kind.REJECTED, name, SetId("/spool", name), fields=fields))
    found = sent[0][1]
    assert {found[f"UEC_{key}"] for key in ("SET", "FILE", "HINT", "ERROR", "BUCKET")} == {field}
    assert found["UEC_TRACEBACK"] == field + b"\n" + field


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("a b", b"'/spool/a b'"),
        ("$(reboot)", b"'/spool/$(reboot)'"),
        ("it's", b"""'/spool/it'"'"'s'"""),
        ("\x1b[2J;\udcff", rb"$'/spool/\x1b[2J;\xff'"),
    ],
)
def test_commands_about_a_set_get_it_as_one_word(name: str, word: bytes, stderr: TextIO) -> None:
    journal, sent = native(stderr)
    journal.tell(Event(Kind.FOUND, "Found it", SetId("/spool", name)))
    assert sent[0][1]["UEC_ARGUMENT"] == word


def test_an_unavailable_journal_stops_no_work(stderr: TextIO) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(105, "No buffer space available")

    open_log({"JOURNAL_STREAM": stream_id(stderr)}, stderr, send=refuse).tell(DONE)


def test_every_kind_has_a_message_id_of_its_own() -> None:
    assert set(MESSAGE_IDS) == set(Kind)
    assert len(set(MESSAGE_IDS.values())) == len(Kind)
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in MESSAGE_IDS.values())


# --- lines ------------------------------------------------------------------------------------------------


def test_marked_lines_carry_the_priority(stderr: TextIO) -> None:
    journal = open_log({"JOURNAL_STREAM": stream_id(stderr)}, stderr, send=None)
    journal.tell(DONE)
    journal.tell(REJECTED)
    assert said(stderr) == [
        "<6>karmic is registered as emi-1",
        "<3>karmic.img: cannot read it. Try: chmod g+r karmic.img",
    ]


def test_plain_lines_have_the_time_in_utc_and_the_level_if_it_matters(stderr: TextIO) -> None:
    journal = open_log({}, stderr)
    journal.tell(DONE)
    journal.tell(REJECTED)
    first, second = said(stderr)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ  karmic is registered as emi-1", first)
    assert second.endswith("Z  error: karmic.img: cannot read it. Try: chmod g+r karmic.img")


def test_an_event_of_a_lower_level_is_not_reported(stderr: TextIO) -> None:
    detail = Event(Kind.BUNDLED, "Part 1", KARMIC, "debug")
    open_log({}, stderr).tell(detail)
    assert said(stderr) == []
    open_log({}, stderr, level="debug").tell(detail)
    assert said(stderr)[0].endswith("Z  debug: Part 1")


def test_a_name_cannot_forge_a_line(stderr: TextIO) -> None:
    open_log({}, stderr).tell(
        Event(Kind.FOUND, "Found a\n2009-10-29 23:30:05Z  b is registered", SetId("/spool", "a"))
    )
    assert len(said(stderr)) == 1


def test_a_sentence_with_percent_signs_and_braces_is_left_alone(stderr: TextIO) -> None:
    open_log({}, stderr).tell(Event(Kind.FOUND, "Found 100%s {x}", SetId("/spool", "a")))
    assert said(stderr)[0].endswith("Found 100%s {x}")


def test_a_closed_stream_stops_no_work() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as stream:
        open_log({}, stream).tell(DONE)
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)  # so that closing finds somewhere to flush to


# --- a terminal -------------------------------------------------------------------------------------------


def no_library(_stream: TextIO, _environ: Mapping[str, str]) -> None:
    """Stand for a host without the library rich."""


def test_progress_is_one_line_written_over_with_events_above_it(
    terminal: tuple[TextIO, Callable[[], str]],
) -> None:
    stream, shown = terminal
    clock = Clock()
    journal = open_log({"TERM": "xterm", "NO_COLOR": "1"}, stream, clock=clock, rich=no_library)
    journal.progress(Progress(KARMIC, "upload", "karmic.img", 0, 100))
    clock.now = 2
    journal.progress(Progress(KARMIC, "upload", "karmic.img", 50, 100, 5))
    assert shown() == "\r\x1b[Kkarmic: upload, 0 %\r\x1b[Kkarmic: upload, part 5, 50 %, 0.0 MB/s"
    journal.tell(Event(Kind.FOUND, "Found lucid", LUCID))
    assert re.fullmatch(
        r"\r\x1b\[K\d\d:\d\d:\d\d  Found lucid\nkarmic: upload, part 5, 50 %, 0.0 MB/s", shown()
    )
    journal.tell(DONE)
    assert shown().endswith("karmic is registered as emi-1\n")


def test_progress_is_drawn_at_a_limited_rate(
    terminal: tuple[TextIO, Callable[[], str]],
) -> None:
    stream, shown = terminal
    clock = Clock()
    journal = open_log({"TERM": "xterm"}, stream, clock=clock, rich=no_library)
    for done in range(1000):
        clock.now = done / 1000
        journal.progress(Progress(KARMIC, "upload", "karmic.img", done, 1000))
    assert 9 <= shown().count("\r") <= 11


def test_a_narrow_terminal_gets_as_much_progress_as_fits_a_line(
    terminal: tuple[TextIO, Callable[[], str]],
) -> None:
    stream, shown = terminal
    termios.tcsetwinsize(stream.fileno(), (24, 20))
    journal = open_log({"TERM": "xterm"}, stream, rich=no_library)
    journal.progress(Progress(KARMIC, "upload the machine", "f", 0, 0))
    assert shown() == "\r\x1b[Kkarmic: upload the "


@pytest.mark.parametrize("columns", [80, 40])
def test_each_set_has_a_line_of_its_own_below_the_events(
    terminal: tuple[TextIO, Callable[[], str]], columns: int
) -> None:
    stream, shown = terminal
    termios.tcsetwinsize(stream.fileno(), (24, columns))
    screen = pyte.Screen(columns, 24)
    feed = pyte.Stream(screen)
    clock = Clock()
    journal = open_log({"TERM": "xterm"}, stream, clock=clock)
    for now, done in ((0, 0), (2, 40_000_000)):
        clock.now = now
        journal.progress(Progress(KARMIC, "upload the machine", "karmic.img", done, 100_000_000, 5))
        clock.now += 0.2
        journal.progress(Progress(LUCID._replace(name="[b]lucid\x1b[31m"), "check the sums", "", 0, 0))
    journal.tell(Event(Kind.FOUND, "Found hardy", SetId("/s", "hardy")))
    feed.feed(shown().replace("\n", "\r\n"))
    found, karmic, lucid = (line.rstrip() for line in screen.display[:3])
    assert found.endswith("  Found hardy")
    assert karmic.startswith("karmic: upload the machine")
    if columns == 80:
        assert "━" in karmic
        assert karmic.endswith(" 40 %  20.0 MB/s  3 s left")
    assert lucid == r"[b]lucid\x1b[31m: check the sums"
    assert not any(line.strip() for line in screen.display[3:])
    journal.tracker.clear()
    feed.feed(shown().replace("\n", "\r\n"))
    assert not any(line.strip() for line in screen.display[1:])


def test_warnings_and_errors_are_coloured_unless_told_not_to(
    terminal: tuple[TextIO, Callable[[], str]],
) -> None:
    stream, shown = terminal
    open_log({"TERM": "xterm"}, stream).tell(REJECTED)
    assert "\x1b[31m" in shown()
    open_log({"TERM": "xterm", "NO_COLOR": "1"}, stream).tell(REJECTED)
    assert "\x1b[31m" not in shown()


def test_progress_goes_nowhere_but_to_a_terminal(stderr: TextIO) -> None:
    open_log({}, stderr).progress(Progress(KARMIC, "upload", "karmic.img", 1, 2))
    assert said(stderr) == []


# --- libraries --------------------------------------------------------------------------------------------


@pytest.fixture
def library(stderr: TextIO) -> Iterator[logging.Logger]:
    handler = take_over_stdlib(open_log({}, stderr))
    yield logging.getLogger("botocore.test")
    logging.getLogger().removeHandler(handler)


def test_what_libraries_warn_of_is_reported_and_nothing_less(library: logging.Logger, stderr: TextIO) -> None:
    library.info("connecting")
    library.warning("retrying %s", "once")
    library.critical("giving up")
    assert [line.split("  ", 1)[1] for line in said(stderr)] == [
        "warning: botocore.test: retrying once",
        "error: botocore.test: giving up",
    ]


def test_the_traceback_of_a_library_is_kept(library: logging.Logger, stderr: TextIO) -> None:
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        library.exception("oh")
    lines = said(stderr)
    assert lines[0].endswith("error: botocore.test: oh")
    assert lines[1] == "    Traceback (most recent call last):"
    assert lines[-1] == "    ZeroDivisionError"


# --- a real journald --------------------------------------------------------------------------------------

JOURNALD = "/lib/systemd/systemd-journald"
# In its own mount and process namespace: nothing of it outlives the shell, whatever happens to that.
WITH_JOURNALD = f"""
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journald.conf.d /run/log
printf '[Journal]\\nStorage=volatile\\nAudit=no\\nReadKMsg=no\\nRateLimitBurst=0\\n' \
  > /run/systemd/journald.conf.d/test.conf
mount --bind machine-id /etc/machine-id
{JOURNALD} > journald.out 2>&1 &
for turn in $(seq 100); do
  [ -S /run/systemd/journal/stdout ] && [ -S /run/systemd/journal/socket ] && break
  sleep 0.05
done
"$@"
journalctl --sync
journalctl --directory=/run/log/journal --output=json --no-pager --identifier=uecwatchd > entries.json
kill $!
wait $! || true
"""
# What systemd does for a service: standard error leads to the journal, and a variable says so.
CONNECT = """
import os, sys
from systemd.journal import stream
connected = stream("uecwatchd", level_prefix=True)
os.dup2(connected.fileno(), 2)
status = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
TELL = """
import os, sys
from uecwatchd.outputs.journal import journal_send
from uecwatchd.outputs.log import open_log
from uecwatchd.events import Event, Kind
from uecwatchd.types import SetId
karmic = SetId("/spool", "karmic")
for send in (journal_send, None):
    journal = open_log(os.environ, sys.stderr, send=send)
    journal.tell(Event(Kind.DONE, "karmic is registered as emi-1", karmic, fields={"emi": "emi-1"}))
    journal.tell(Event(Kind.HALTED, "no\\nuse", karmic, "error", {"cloud": "lab", "traceback": "a\\nb"}))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a journald of our own needs root")
@pytest.mark.skipif(not Path(JOURNALD).exists(), reason="no journald here")
@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare here")
def test_a_real_journal_keeps_sentence_fields_and_priority(tmp_path: Path) -> None:
    pytest.importorskip("systemd.journal")
    (tmp_path / "machine-id").write_text("0123456789abcdef" * 2 + "\n", encoding="ascii")
    namespace = [
        "unshare",
        "--mount",
        "--propagation=private",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]
    program = [sys.executable, "-c", CONNECT, "-c", TELL]
    subprocess.run(
        [*namespace, "bash", "-c", WITH_JOURNALD, "bash", *program], cwd=tmp_path, check=True, timeout=60
    )
    text = (tmp_path / "entries.json").read_text(encoding="utf-8")
    entries = [json.loads(line) for line in text.splitlines()]
    done, halted = (entry for entry in entries if entry["_TRANSPORT"] == "journal")
    assert (done["MESSAGE"], done["PRIORITY"]) == ("karmic is registered as emi-1", "6")
    assert (done["UEC_SET"], done["UEC_EMI"], done["MESSAGE_ID"]) == (
        "karmic",
        "emi-1",
        MESSAGE_IDS[Kind.DONE],
    )
    assert (halted["MESSAGE"], halted["PRIORITY"], halted["UEC_CLOUD"]) == (r"no\nuse", "3", "lab")
    assert halted["UEC_TRACEBACK"] == "a\nb"
    lines = [(one["PRIORITY"], one["MESSAGE"]) for one in entries if one["_TRANSPORT"] == "stdout"]
    assert lines == [("6", "karmic is registered as emi-1"), ("3", r"no\nuse"), ("3", "a"), ("3", "b")]
