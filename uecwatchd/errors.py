"""Errors as sentences: each says what went wrong, why, and what to do about it.

The class decides if the work is retried. The code that raises an error chooses the class:

    UecError
      Rejected          the user must change something; retried when the files change, or on request
        BundleRefused   the cloud refuses a bundle; the next attempt makes it again
      Deferred          a temporary failure; retried automatically, on a schedule
        Overtaken       another host has taken our work over: nothing more is written or published
        CloudAway       the cloud does not answer
          StillAway     for so long that only a longer pause can help
          Unforeseen    for an unknown reason
      Halted            our own side is wrong, for every set: the cloud is left alone until it is corrected
        NotPermitted    the system denies us access
      NotYet            not a failure: the files may not be complete
      Pending           not a failure: the cloud has not finished an image
      Booting           not a failure: a test boot is under way on the cloud
      Building          not a failure: the system of a set is being installed
      Stopped           not a failure: the service was asked to stop

Other modules define subclasses where they need to catch them.
"""

import re
from collections.abc import Mapping
from typing import ClassVar, Protocol, TypeVar

# Space for ten mistakes of a sidecar, or for the longest possible path. More untrusted text is not useful,
# and a listing keeps the errors of thousands of files.
LONGEST_TEXT_CHARS = 5000


class UecError(Exception):
    """Root of the errors. `exit_code` is the sysexits value of a command that ends with it.

    `trace` is the traceback as text, only for unexpected errors; `console` are the last lines of an instance,
    only for failed test boots.
    """

    kind: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 70
    trace: str = ""
    console: tuple[str, ...] = ()

    def __init__(self, what: str, why: str, hint: str, *, request_id: str = "") -> None:
        what, why, hint = map(_cut, (what, why, hint))
        super().__init__(what, why, hint)
        self.what = what
        self.why = why
        self.hint = hint
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{problem(self)}. {self.hint}"


class Rejected(UecError):
    kind = "rejected"
    exit_code = 65


class BundleRefused(Rejected):
    """The cloud does not accept a bundle as it is in the bucket; another attempt has to make it again."""


class Deferred(UecError):
    kind = "deferred"
    exit_code = 75


class Overtaken(Deferred):
    """Another host took this one for dead, and has its work. The process ends, to be started again."""


class CloudAway(Deferred):
    """The cloud did not answer, or answered that it cannot do so now."""

    exit_code = 69


class StillAway(CloudAway):
    """The cloud failed several times, with pauses in between: the next attempt needs a longer pause."""


class Unforeseen(CloudAway):
    """A request to the cloud failed in an unexpected way.

    It is treated like a cloud that is away: asked less and less often, reported once.
    """

    def __init__(self, what: str, why: str, hint: str, *, trace: str) -> None:
        super().__init__(what, why, hint)
        self.trace = trace


class NotYet(UecError):
    """Not a failure: the files may still be changing, so the set goes back to waiting for `reason`.

    `until` is when to look again if nothing has changed by then, in seconds of the epoch; None if only a
    change of the files can help.
    """

    kind = "waiting"
    exit_code = 75

    def __init__(self, reason: str, *, until: float | None) -> None:
        super().__init__(reason, "it is not so yet", "It is checked again as soon as a file changes.")
        self.reason = reason
        self.until = until


class Pending(UecError):
    """Not a failure: the cloud has registered images, and has not finished them. `images` are ids by role."""

    kind = "waiting"
    exit_code = 75

    def __init__(self, images: Mapping[str, str]) -> None:
        what = " and ".join(images.values())
        super().__init__(what, "not finished yet", "It is checked again automatically.")
        self.images = images


class Booting(UecError):
    """Not a failure: the set waits for a test boot on its cloud, its own or another one, its `reason`."""

    kind = "waiting"
    exit_code = 75

    def __init__(self, reason: str) -> None:
        super().__init__(reason, "it is under way", "It goes on by itself when that is over.")
        self.reason = reason


class Building(UecError):
    """Not a failure: a set waits until its system is installed. `key` is that of the build."""

    kind = "waiting"
    exit_code = 75

    def __init__(self, key: str) -> None:
        super().__init__(key, "not built yet", "It is checked again automatically.")
        self.key = key


class Halted(UecError):
    kind = "halted"
    exit_code = 78


class NotPermitted(Halted):
    """The system does not allow us to read or write one of our own files."""

    exit_code = 77


class Stopped(UecError):
    """The service was asked to stop between two steps. Not a failure: the next start continues."""

    kind = "stopped"
    exit_code = 75


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT_CHARS else f"{text[:LONGEST_TEXT_CHARS]}…"


Error = TypeVar("Error", bound=BaseException)


class Explained(Protocol):
    """An error, or a record of one."""

    @property
    def what(self) -> str: ...

    @property
    def why(self) -> str: ...


def problem(error: Explained) -> str:
    """Return what failed and why, as a sentence without a full stop."""
    return f"{error.what}: {error.why}"


def cause_of(why: str) -> str:
    """Return a reason without the parts that differ each time: numbers, and quoted text in brackets."""
    return re.sub(r" \(.*|[0-9]+", "", why)


def words_of(error: Error) -> Error:
    """Remove everything but the texts from an error, so that it can be kept.

    A traceback contains the variables of each function on its way, and grows each time that the same error is
    raised; the cause of the error has its own traceback.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error
