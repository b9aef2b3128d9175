"""Terminals and pipes that are not UTF-8: what they lack is escaped, and names stay the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.host import Host
from tests.support.waiting import until

pytestmark = pytest.mark.exhaustive

# As Python is where the locale is an old one; it has UTF-8 by itself in the locale C.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NAMES = (b"caf\xc3\xa9 \xe2\x98\x83.img", b"latin-\xe9.img", b"\xe2\x80\xa6.iso.part.img")


def run(host: Host, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "uecwatchd", *arguments],
        env={**os.environ, "UECWATCHD_CONFIG": str(host.config), **environ},
        capture_output=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def full(host: Host) -> Host:
    for name in NAMES:
        Path(os.fsdecode(os.fsencode(host.spool) + b"/" + name)).write_bytes(b"hello")
    return host


# Each way to print in the poorest locale, and each locale with the table, which has the names themselves.
@pytest.mark.parametrize(
    ("arguments", "environ"),
    [
        (["status"], ASCII),
        (["status", "--json"], ASCII),
        (["once", "--dry-run"], ASCII),
        (["--help"], ASCII),
        (["status"], {"PYTHONIOENCODING": "ascii"}),
        (["status"], {"PYTHONIOENCODING": "latin-1:strict"}),
        (["status"], {"LC_ALL": "POSIX"}),
    ],
    ids=["table", "JSON", "dry run", "help", "ascii", "latin-1", "posix"],
)
def test_what_a_terminal_cannot_show_is_escaped(
    full: Host, arguments: list[str], environ: dict[str, str]
) -> None:
    ended = run(full, *arguments, **environ)
    assert ended.returncode == 0, ended.stderr
    assert b"Traceback" not in ended.stderr
    if arguments == ["status"]:
        assert b"\\u2603" in ended.stdout or "☃".encode() in ended.stdout


def test_a_set_has_one_name_in_every_locale(full: Host) -> None:
    def named(**environ: str) -> list[str]:
        rows = json.loads(run(full, "status", "--json", **environ).stdout)
        return sorted(json.dumps(row) for row in rows)

    until(lambda: "unchanged" not in full.ask("status", "--json")[0], "all files to have lain still")
    assert named(**ASCII) == named()
    found = run(full, "status", "café ☃.img", **ASCII)
    assert found.returncode == 0, found.stderr


def test_a_folder_is_found_by_its_name_in_every_locale(host: Host) -> None:
    spool = host.folder / "café"
    spool.mkdir()
    host.configure(host.config.read_text().replace(str(host.spool), str(spool)))
    ended = run(host, "status", **ASCII)
    assert (ended.returncode, ended.stderr) == (0, b"The spool folders are empty.\n")


def test_a_name_that_is_not_text_can_be_printed_in_messages(host: Host) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "uecwatchd", "status", b"\xff\xfe"],
        env={**os.environ, "UECWATCHD_CONFIG": str(host.config), **ASCII},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 66
    assert rb"\xff\xfe" in ended.stderr


ALL = "0<&- >&- 2>&-"


@pytest.mark.parametrize(
    ("closed", "locale"),
    [("0<&-", {}), (">&-", {}), ("2>&-", {}), (">&- 2>&-", {}), (ALL, {}), (ALL, ASCII)],
    ids=["input", "output", "talk", "both outputs", "all", "all in ASCII"],
)
def test_a_closed_standard_stream_does_not_stop_the_work(
    full: Host, closed: str, locale: dict[str, str]
) -> None:
    for verb in ("once", "status"):
        ended = in_shell(full, f"{verb} {closed}", **locale)
        assert (verb, ended.returncode) == (verb, 65 if verb == "once" else 0), ended.stderr
    assert full.outputs(), "the work was done"


@pytest.mark.parametrize("words", ["--version", "--help", "sandbox --help", "once --help", "status --json"])
def test_a_failed_write_to_standard_output_is_reported_for_every_verb(full: Host, words: str) -> None:
    ended = in_shell(full, f"{words} >/dev/full")
    assert (ended.returncode, ended.stderr.splitlines()[0]) == (
        74,
        "uecwatchd: standard output: cannot write to it: No space left on device",
    )


@pytest.mark.parametrize(("words", "code"), [("status nonesuch", 66), ("nonesuch", 64), ("status", 0)])
def test_a_full_standard_error_changes_no_exit_code(host: Host, words: str, code: int) -> None:
    assert in_shell(host, f"{words} 2>/dev/full").returncode == code


def in_shell(host: Host, words: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m uecwatchd {words}"],
        env={**os.environ, "UECWATCHD_CONFIG": str(host.config), **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
