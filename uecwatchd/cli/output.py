"""What the verbs print: data on standard output, talk on standard error, and no file name as it comes."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper

from uecwatchd.errors import UecError
from uecwatchd.system.text import json_text, printable


class Unwritten(UecError):
    """Standard output takes no more, and that is no fault of the work that was done."""

    exit_code = 74


def never_closed() -> None:
    """Have the three standard streams where whoever began us has closed one: it leads to /dev/null.

    Whatever is opened next would otherwise have its number, and get what is said to people written into it.
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
    """Begin anew, if need be, with file names and configuration in UTF-8, whatever the locale says.

    The same name would otherwise be other bytes for the daemon and for an administrator. What is printed
    stays in the terminal's own encoding. To be called before anything else is done: it may not return.
    """
    if sys.getfilesystemencoding() == "utf-8":
        return
    os.environ["PYTHONIOENCODING"] = f"{sys.stdout.encoding}:backslashreplace"
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def escape() -> None:
    """Have what the terminal's encoding lacks printed as an escape, and not end in an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    with suppress(OSError):  # nobody hears it, and the exit code says enough
        print(printable(text), file=sys.stderr)


def put(text: str) -> None:
    """One line, in which no file name can hide another line or an order to the terminal."""
    with _written():
        print(printable(text))


def put_text(text: str) -> None:
    """Lines of our own making."""
    with _written():
        sys.stdout.write(text)


def put_row(fields: Iterable[str]) -> None:
    """One line of fields parted by tabs, in which no field can hide another."""
    with _written():
        print("\t".join(printable(field) for field in fields))


def put_json(value: object) -> None:
    with _written():
        print(json_text(value, ascii_only=True))


def flush() -> None:
    """Before a verb has succeeded: what could not be written is known only now."""
    with _written():
        sys.stdout.flush()


def let_go() -> None:
    """Nobody is to hear of what is still held back for standard output, nor Python's complaint about that."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _written() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as fault:
        let_go()
        why = f"cannot write to it: {fault.strerror}"
        raise Unwritten("standard output", why, "Send it where there is room.") from fault
