"""Judgement of a console: whether the system on it has come up, has failed, or is still on its way.

A console is text of a stranger's image. It is searched for fixed patterns, and shown without its control
sequences. The patterns are those that other testers of images look for.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from uecwatchd.system.text import printable

# Enough to see how a boot has ended, and short enough for a message.
LAST_LINES = 40
LINE_CHARACTERS = 200

# A control sequence of a terminal, or one of its character sets.
SEQUENCES = re.compile(
    r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[()][0-9A-B]|[=>78cDEHM])"
)

# A getty's prompt, which kernel messages may follow, and the last word of cloud-init.
UP = re.compile(r"(?<!last )\blogin:(?=\s|$)|\bcloud-init v\. ?\S{1,60} finished\b", re.IGNORECASE)
FAILURES: Mapping[str, re.Pattern[str]] = {
    "its kernel panics": re.compile(r"Kernel panic - not syncing"),
    "its kernel cannot mount the root file system": re.compile(r"Unable to mount root fs"),
    "its ramdisk finds no root file system": re.compile(r"^\(initramfs\)", re.MULTILINE),
    "its boot loader waits for a command": re.compile(r"^grub>", re.MULTILINE),
    "its firmware fails": re.compile(r"Synchronous Exception at"),
    "a program of it hangs": re.compile(r"blocked for more than \d+ seconds|hung_task: blocked tasks"),
    "it has halted": re.compile(r"The operating system has halted"),
}


@dataclass(frozen=True, slots=True)
class ConsoleVerdict:
    """The verdict on a console. `why` is the reason of a failure; `line` is the line that shows it."""

    state: Literal["up", "failed", "open"]
    why: str = ""
    line: str = ""


STILL_OPEN = ConsoleVerdict("open")


def judge_console(text: str, *, expect: str = "") -> ConsoleVerdict:
    """Judge a console. `expect` is the text that it has when the system is up, in place of a login.

    What shows a failure counts more than what shows a success.
    """
    plain = without_sequences(text)
    for why, pattern in FAILURES.items():
        if found := pattern.search(plain):
            return ConsoleVerdict("failed", why, _line_at(plain, found.start()))
    if expect:
        place = plain.find(expect)
    else:
        shown = UP.search(plain)
        place = shown.start() if shown else -1
    return STILL_OPEN if place < 0 else ConsoleVerdict("up", line=_line_at(plain, place))


def last_lines(text: str, count: int = LAST_LINES) -> tuple[str, ...]:
    """Return the last lines of a console that are not empty, printable, each shortened."""
    lines = (line.rstrip() for line in without_sequences(text).split("\n"))
    kept = [line for line in lines if line][-count:]
    return tuple(map(_shown, kept))


def new_text(before: str, now: str) -> str:
    """Return what a console has beyond an earlier one. A cloud may keep only its end."""
    if now.startswith(before):
        return now[len(before) :]
    end = before[-LINE_CHARACTERS:]
    place = now.rfind(end)
    return now if place < 0 else now[place + len(end) :]


def without_sequences(text: str) -> str:
    """Return a console's text with plain line ends, and without what controls a terminal."""
    return SEQUENCES.sub("", text).replace("\r\n", "\n").replace("\r", "\n")


def _line_at(plain: str, place: int) -> str:
    begin, end = plain.rfind("\n", 0, place) + 1, plain.find("\n", place)
    return _shown(plain[begin : end if end >= 0 else None].strip())


def _shown(line: str) -> str:
    return printable(line if len(line) <= LINE_CHARACTERS else f"{line[:LINE_CHARACTERS]}…")
