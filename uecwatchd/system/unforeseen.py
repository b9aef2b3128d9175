"""What is no error of ours, put into words: a mistake of this program, or of a library.

It may come from anywhere, so it is caught where one thing ends and the next begins: an attempt at a set, a
look at a folder, a turn of the loop, a thread, a verb. There it becomes an error like any other: a sentence
that is told once, and a pause before the next try.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from uecwatchd.errors import Deferred, UecError
from uecwatchd.system.text import printable

# Enough to tell one fault from another; a library may quote a whole answer of a cloud in its message.
WORDS_CHARACTERS = 200
# A passing fault is over at once; one that lasts is tried as seldom as a folder is looked at without events.
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
HERE = Path(__file__).parents[1]


class OurFault(Deferred):
    """Something that uecwatchd did not foresee. `trace` is the traceback as text, for the journal; `way` the
    places in it in one line.
    """

    exit_code = 70

    def __init__(self, what: str, why: str, hint: str, *, trace: str = "", way: str = "") -> None:
        super().__init__(what, why, hint)
        self.trace = trace
        self.way = way


@contextmanager
def in_words(what: str) -> Iterator[None]:
    """Raise `OurFault` about `what` for any exception that is not an error of ours."""
    try:
        yield
    except UecError:
        raise
    except Exception as fault:  # noqa: BLE001 (it is what this is for)
        raise our_fault(what, fault) from None


def our_fault(what: str, fault: BaseException) -> OurFault:
    places = list(_places(fault))
    why = f"{_words(fault)} (at {places[-1]})" if places else _words(fault)
    return OurFault(
        f"{what}: a fault of uecwatchd itself",
        why,
        "Please report it, with the journal's lines about it.",
        trace="".join(traceback.format_exception(fault)),
        way=" → ".join(places),
    )


def _words(fault: BaseException) -> str:
    said = printable(" ".join(str(fault).split())).rstrip(".")
    said = said if len(said) <= WORDS_CHARACTERS else f"{said[:WORDS_CHARACTERS]}…"
    return f"{type(fault).__name__}: {said}" if said else type(fault).__name__


def _places(fault: BaseException) -> Iterator[str]:
    """Where in this package it was, the innermost place last."""
    for frame in traceback.extract_tb(fault.__traceback__):
        if Path(frame.filename).is_relative_to(HERE):
            yield f"{Path(frame.filename).relative_to(HERE)}:{frame.lineno}"


class Recurring:
    """Something that may fail again and again: told when it is news, tried after pauses that grow.

    `pause` is the one before the next try, in seconds; 0 while all is well.
    """

    def __init__(self, what: str, *, tell: Callable[[OurFault], None]) -> None:
        self.pause = 0.0
        self._what = what
        self._tell = tell
        self._told = ""

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Do it once. A fault of ours goes no further; other errors are raised."""
        try:
            with in_words(self._what):
                yield
        except OurFault as fault:
            self.pause = min(max(2 * self.pause, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
            if str(fault) != self._told:
                self._tell(fault)
            self._told = str(fault)
        else:
            self.pause, self._told = 0.0, ""
