"""Unexpected exceptions as sentences: an internal error of this program, or of a library.

They are caught at the border of each piece of work: an attempt at a set, a scan, a turn of the loop, a
thread, a verb. There they become an error like any other: reported once, and retried after a pause.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from uecwatchd.errors import Deferred, UecError
from uecwatchd.system.text import printable

# Enough to distinguish two errors. A library may quote a whole answer of a cloud in its message.
WORDS_CHARACTERS = 200
# A temporary error is over at once; a lasting one is retried as often as a folder is scanned without events.
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
PACKAGE = Path(__file__).parents[1]


class InternalError(Deferred):
    """An internal error. `trace` is the traceback for the journal, `way` its places in one line."""

    exit_code = 70

    def __init__(self, what: str, why: str, hint: str, *, trace: str = "", way: str = "") -> None:
        super().__init__(what, why, hint)
        self.trace = trace
        self.way = way


@contextmanager
def as_internal_error(what: str) -> Iterator[None]:
    """Raise `InternalError` about `what` for any exception that is not a UecError."""
    try:
        yield
    except UecError:
        raise
    except Exception as fault:  # noqa: BLE001 (its purpose)
        raise internal_error(what, fault) from None


def internal_error(what: str, fault: BaseException) -> InternalError:
    places = list(_places(fault))
    why = f"{_describe(fault)} (at {places[-1]})" if places else _describe(fault)
    return InternalError(
        f"{what}: a fault of uecwatchd itself",
        why,
        "Please report it, with the journal's lines about it.",
        trace="".join(traceback.format_exception(fault)),
        way=" → ".join(places),
    )


def _describe(fault: BaseException) -> str:
    message = printable(" ".join(str(fault).split())).rstrip(".")
    message = message if len(message) <= WORDS_CHARACTERS else f"{message[:WORDS_CHARACTERS]}…"
    return f"{type(fault).__name__}: {message}" if message else type(fault).__name__


def _places(fault: BaseException) -> Iterator[str]:
    """Yield the places in this package where the exception passed, the innermost last."""
    for frame in traceback.extract_tb(fault.__traceback__):
        if Path(frame.filename).is_relative_to(PACKAGE):
            yield f"{Path(frame.filename).relative_to(PACKAGE)}:{frame.lineno}"


class RepeatedWork:
    """Work that may fail again and again: retried after growing pauses.

    `pause` is the one before the next try, in seconds; 0 while all is well. `failed` is called with each
    fault, `worked` after each try without one.
    """

    def __init__(
        self,
        what: str,
        *,
        failed: Callable[[InternalError], object],
        worked: Callable[[], object] = lambda: None,
    ) -> None:
        self.pause = 0.0
        self._what = what
        self._failed = failed
        self._worked = worked

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Do the work once. An internal error is reported here; other errors are raised."""
        try:
            with as_internal_error(self._what):
                yield
        except InternalError as fault:
            self.pause = min(max(2 * self.pause, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
            self._failed(fault)
        else:
            self.pause = 0.0
            self._worked()
