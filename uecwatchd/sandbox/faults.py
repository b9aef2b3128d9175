"""Faults that tests can arm, by name: how clouds fail without refusing anything.

A fault either strikes a number of times and is used up, or has a value and lasts until it is cleared. Faults
may be changed while requests are being answered.

Each fault is carried out where it strikes: uploads and connections in `http.fault_injection` and `router`,
images and tags in their own modules under `ec2`.
"""

import math
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Self

from uecwatchd.errors import Rejected

LARGEST = 1e9  # thirty years of seconds: a clock that is off by many more has left the calendar


@dataclass(frozen=True, slots=True)
class FaultUnit:
    """The unit of a fault's value, and the range of values that have an effect."""

    name: str
    least: float = 1
    most: float = LARGEST
    is_integer: bool = True


TIMES = FaultUnit("times", most=math.inf)
REQUESTS, LOOKS, UPLOADS = FaultUnit("requests"), FaultUnit("looks"), FaultUnit("uploads")
SECONDS = FaultUnit("seconds", least=0, is_integer=False)
SECONDS_EITHER_WAY = FaultUnit("seconds", least=-LARGEST, is_integer=False)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. With the unit TIMES it is used up by striking. `value` is the default."""

    text: str
    unit: FaultUnit = TIMES
    value: float = 1


FAULTS: Mapping[str, Fault] = {
    "put-500": Fault("an upload is answered with 500 InternalError, and nothing is kept"),
    "put-503": Fault("an upload is answered with 503 SlowDown, and nothing is kept"),
    "put-503-every": Fault("one upload of so many is answered with 503 SlowDown", UPLOADS, 3),
    "reset-in-body": Fault("the connection is reset in the middle of an upload"),
    "delete-500": Fault("a deletion of an object is answered with 500 InternalError, and it stays"),
    "get-forbidden": Fault("a download is refused, because the object is closed to our account"),
    "empty-list": Fault("a list of a bucket has no objects in it"),
    "wrong-etag": Fault("an upload is kept, and answered with the ETag of something else"),
    "lost-answer": Fault("RegisterImage is carried out, and the connection reset without an answer"),
    "lost-launch": Fault("RunInstances is carried out, and the connection reset without an answer"),
    "boot-forbidden": Fault("RunInstances is refused, because our account may not start instances"),
    "boot-quota": Fault("RunInstances is refused, because the account has no more room"),
    "boot-pending": Fault("an instance stays pending"),
    "boot-silent": Fault("an instance runs, and its console stays empty"),
    "boot-never": Fault("an instance runs, and its console stops before a login"),
    "boot-panics": Fault("an instance runs, and its kernel panics"),
    "boot-ends": Fault("an instance is terminated by itself"),
    "boot-stays": Fault("an instance that is terminated stays shutting-down", value=math.inf),
    "boot-address": Fault("an instance has the address 127.0.0.1", value=math.inf),
    "image-fails": Fault("an image is pending when it is registered, and then failed"),
    "pending": Fault("an image is pending for so many DescribeImages after it is registered", LOOKS, 3),
    "lost-tags": Fault("CreateTags answers false, and nothing is kept"),
    "down": Fault("a request is answered with 503 and a line of text", value=math.inf),
    "away": Fault("a connection is reset before its request gets an answer", value=math.inf),
    "slow": Fault("every answer waits", SECONDS),
    "skew": Fault("the cloud's clock is ahead, or behind if this is negative", SECONDS_EITHER_WAY, 600),
    "requests": Fault("a connection is closed after fewer requests", REQUESTS),
}


@dataclass(frozen=True, slots=True)
class ArmedFault:
    """A fault that is armed: its remaining times or its value."""

    value: float
    spared: int = 0  # how many occasions pass before the first it strikes


class Faults:
    """The faults of one cloud, safe to change from any thread."""

    def __init__(self, armed: Mapping[str, float] | None = None) -> None:
        self._lock = threading.Lock()
        self._armed: dict[str, ArmedFault] = {}
        self._struck: Counter[str] = Counter()
        self._occasions: Counter[str] = Counter()
        for name, value in (armed or {}).items():
            self.arm(name, value)

    @classmethod
    def parse(cls, words: Iterable[str]) -> Self:
        """Parse words like `put-503` and `slow=0.5`. Raises `Rejected`."""
        return cls(dict(map(_read, words)))

    def arm(self, name: str, value: float | None = None, *, spare: int = 0) -> None:
        """Prepare a fault that spares its first `spare` occasions. Raises `KeyError`: for an unknown name."""
        fault = FAULTS[name]
        wanted = fault.value if value is None else value
        with self._lock:
            self._armed[name] = ArmedFault(min(wanted, fault.unit.most), spare)

    def clear(self) -> None:
        with self._lock:
            self._armed.clear()

    def strikes(self, name: str) -> bool:
        """Tell if this occasion is struck, and use up one time."""
        with self._lock:
            armed = self._armed.get(name, ArmedFault(0))
            if armed.spared:
                self._armed[name] = replace(armed, spared=armed.spared - 1)
            elif armed.value >= 1:
                self._armed[name] = replace(armed, value=armed.value - 1)
            strikes = armed.value >= 1 and not armed.spared
            self._struck[name] += strikes
            return strikes

    def strikes_one_in(self, name: str) -> bool:
        """Tell if this occasion is the last one of as many as the fault's value says."""
        with self._lock:
            every = self._armed.get(name, ArmedFault(0)).value
            self._occasions[name] += 1
            strikes = every >= 1 and self._occasions[name] % every == 0
            self._struck[name] += strikes
            return strikes

    def struck(self) -> Mapping[str, int]:
        """Count the occasions that each fault has struck so far."""
        with self._lock:
            return +self._struck

    def value(self, name: str) -> float:
        """Return a lasting fault's value, 0 if it is not armed; of another fault, its remaining times."""
        with self._lock:
            value = self._armed.get(name, ArmedFault(0)).value
            self._struck[name] += bool(value)
            return value


def _read(word: str) -> tuple[str, float]:
    name, _, number = word.partition("=")
    what = f"{word}: cannot make this go wrong"
    if name not in FAULTS:
        *most, last = FAULTS
        raise Rejected(what, "there is no such fault", f"Use {', '.join(most)} or {last}.")
    unit, value = FAULTS[name].unit, FAULTS[name].value
    hint = f"Try: {name}={value:g}."
    try:
        value = float(number) if number else value
    except ValueError as error:
        raise Rejected(what, f"{number} is not a number", hint) from error
    if not unit.least <= value <= unit.most:
        raise Rejected(what, f"{number} is no number of {unit.name} to work with", hint)
    if unit.is_integer and value % 1 != 0 and value != math.inf:
        raise Rejected(what, f"{number} is not a whole number", hint)
    return name, value


def described() -> tuple[str, ...]:
    """Return a line for each fault: how to write it, and its effect."""
    return tuple(f"{name}[={fault.unit.name}]: {fault.text}" for name, fault in FAULTS.items())
