"""What can go wrong, as sentences: each error says what, why, and what to do about it.

Whether something is tried again is a property of its type, decided where it is raised:

- `Rejected`: the user must change something. Tried again when the files change, or on request.
- `Deferred`: something passing. Tried again by itself, on a schedule.
- `Halted`: our own side is wrong, and every set would fail of it: the cloud is left alone until it is mended.
"""

import re
from typing import ClassVar, TypeVar

# Room for ten mistakes of a sidecar, or for the longest path there is. What more a stranger's text would add
# is of use to nobody, and a listing keeps the errors of thousands of files.
LONGEST_TEXT_CHARS = 5000


class UecError(Exception):
    """The root of the tree. `exit_code` is the sysexits value of a command that ends with it.

    `trace` is the traceback as text, of what nobody thought of alone.
    """

    kind: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 70
    trace: str = ""

    def __init__(self, what: str, why: str, hint: str, *, request_id: str = "") -> None:
        what, why, hint = map(_cut, (what, why, hint))
        super().__init__(what, why, hint)
        self.what = what
        self.why = why
        self.hint = hint
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.what}: {self.why}. {self.hint}"


class Rejected(UecError):
    kind = "rejected"
    exit_code = 65


class BundleRefused(Rejected):
    """The cloud does not take a bundle as it lies in the bucket; another attempt has to make it anew."""


class Deferred(UecError):
    kind = "deferred"
    exit_code = 75


class CloudAway(Deferred):
    """The cloud did not answer, or said that it cannot just now."""

    exit_code = 69


class StillAway(CloudAway):
    """It failed several times, with pauses in between: not to be tried again before a longer one."""


class Unforeseen(CloudAway):
    """Asking the cloud failed in a way that nobody thought of. It is treated like one that is away: asked
    less and less, told once."""

    def __init__(self, what: str, why: str, hint: str, *, trace: str) -> None:
        super().__init__(what, why, hint)
        self.trace = trace


class NotYet(UecError):
    """No failure: somebody may still be at work on the files, so the set goes back to waiting for `reason`.

    `until` is when, in seconds of the epoch, it is looked at again if nothing has changed by then.
    """

    kind = "waiting"
    exit_code = 75

    def __init__(self, reason: str, *, until: float) -> None:
        super().__init__(reason, "it is not so yet", "It is looked at again as soon as a file changes.")
        self.reason = reason
        self.until = until


class Pending(UecError):
    """No failure: the cloud has registered an image, and is still at work on it."""

    kind = "waiting"
    exit_code = 75

    def __init__(self, role: str, image_id: str) -> None:
        super().__init__(image_id, "it is pending", "It is looked at again by itself.")
        self.role = role
        self.image_id = image_id


class Halted(UecError):
    kind = "halted"
    exit_code = 78


class NotPermitted(Halted):
    """The system does not let us read or write something of our own."""

    exit_code = 77


class Stopped(UecError):
    """The service was asked to stop between two steps. No failure: the work goes on at the next start."""

    kind = "stopped"
    exit_code = 75


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT_CHARS else f"{text[:LONGEST_TEXT_CHARS]}…"


Error = TypeVar("Error", bound=BaseException)


def cause_of(why: str) -> str:
    """A reason without what may differ each time that it is met: numbers, and others' words in brackets."""
    return re.sub(r" \(.*|[0-9]+", "", why)


def words_of(error: Error) -> Error:
    """Strip an error of all but its words, so that it can be kept.

    A traceback holds the variables of each function that the error came through, and grows each time that the
    same error is raised; what the error was raised from holds its own.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error
