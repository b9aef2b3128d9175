"""Output of the verbs: data on standard output, messages on standard error, with file names escaped."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper

from uecwatchd.errors import UecError
from uecwatchd.system.text import json_text, printable


class OutputUnwritable(UecError):
    """Standard output accepts no more data. The work itself did not fail."""

    exit_code = 74


def never_closed() -> None:
    """Open /dev/null for each of the three standard streams that the caller has closed.

    Otherwise the next file that is opened would get its number, and messages would be written into it.
    """
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(descriptor)
        except OSError:
            free = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(free, True)  # noqa: FBT003 (it has no name)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode))  # noqa: PTH123, SIM115 (a descriptor, and for good)


def speak_utf8() -> None:
    """Restart, if needed, with file names and configuration in UTF-8, for any locale.

    Otherwise the same name would have other bytes for the daemon and for an administrator. Output keeps the
    encoding of the terminal. Call this before anything else: it may not return.
    """
    if sys.getfilesystemencoding() == "utf-8":
        return
    os.environ["PYTHONIOENCODING"] = f"{sys.stdout.encoding}:backslashreplace"
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def escape() -> None:
    """Print characters that the terminal's encoding lacks as escapes, instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    with suppress(OSError):  # nobody can read it, and the exit code is enough
        print(printable(text), file=sys.stderr)


def put(text: str) -> None:
    """Print one line, in which a file name cannot hide another line or control the terminal."""
    with written():
        print(printable(text))


def put_text(text: str) -> None:
    """Print our own text."""
    with written():
        sys.stdout.write(text)


def put_row(fields: Iterable[str]) -> None:
    """Print one line of fields separated by tabs, in which no field can hide another."""
    with written():
        print("\t".join(printable(field) for field in fields))


def put_json(value: object) -> None:
    with written():
        print(json_text(value, ascii_only=True))


def flush() -> None:
    """Flush standard output before a verb succeeds: a failure to write may only show now."""
    with written():
        sys.stdout.flush()


def discard_output() -> None:
    """Discard buffered output for standard output, and suppress Python's message about it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def written() -> Iterator[None]:
    """Raise OutputUnwritable for a failure to write to standard output, BrokenPipeError as it is."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as fault:
        discard_output()
        why = f"cannot write to it: {fault.strerror}"
        raise OutputUnwritable("standard output", why, "Send it where there is room.") from fault
