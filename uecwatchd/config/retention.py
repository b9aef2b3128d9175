"""The rule for older images of a set: how many of them stay, and for how long."""

import re
from dataclasses import dataclass, fields, replace
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict

AGE = re.compile(r"([0-9]{1,6})([mhdw])")
AGE_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
# More than any cloud lists for one account.
MOST_KEPT = 100_000


def _kept(number: object) -> object:
    if isinstance(number, str) and number.isdecimal():  # from the environment
        number = int(number[:10])
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueError("must be a number")
    if number < 1:
        raise ValueError("must be 1 or more: the image in use, and the one before it, always stay")
    if number > MOST_KEPT:
        raise ValueError(f"must be at most {MOST_KEPT}")
    return number


def _as_seconds(value: object) -> object:
    """Return an age in seconds, from a text such as "30d"."""
    found = AGE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('must be a number with a unit, such as "36h", "30d" or "8w"')
    return float(int(found[1]) * AGE_UNITS[found[2]])


Kept = Annotated[int, BeforeValidator(_kept)]
Age = Annotated[float, BeforeValidator(_as_seconds)]


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """Settings under [retention]: what is done with the older images of a set. Ages are in seconds.

    The newest `keep` images stay, and all that are younger than `min_age`. The others are deprecated and
    deleted so long after another image has replaced them. None: nothing is said; without `keep`, nothing is
    deleted.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    keep: Kept | None = None
    min_age: Age | None = None
    deprecate_after: Age | None = None
    delete_after: Age | None = None

    @property
    def is_on(self) -> bool:
        return self.keep is not None or self.deprecate_after is not None

    def over(self, other: "RetentionRule") -> "RetentionRule":
        """Return this rule, with what it leaves open from another one."""
        own = {one.name: getattr(self, one.name) for one in fields(self)}
        return replace(other, **{key: value for key, value in own.items() if value is not None})


def write_age(seconds: float) -> str:
    """Return an age as in the configuration, in the largest unit that fits."""
    units = sorted(AGE_UNITS.items(), key=lambda item: -item[1])
    unit, size = next((one for one in units if seconds >= one[1] and seconds % one[1] == 0), units[-1])
    return f"{seconds / size:g}{unit}"
