"""One description of our account on a cloud, translated into the words of our settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Remark:
    """A warning about a description that does not keep us from working."""

    what: str
    hint: str


@dataclass(frozen=True, slots=True)
class Source:
    """`values` by setting, as text, secrets among them; files are absolute paths.

    `spelled` is what the place calls each setting that it could have, and `remedies` how to say it there, as
    the beginning of a sentence; `reasons` why one that is there is not known. `files` are those with secrets
    in them; `lines` where each setting stands in the first of them.
    """

    name: str
    values: Mapping[str, str] = field(repr=False)
    spelled: Mapping[str, str]
    files: tuple[Path, ...] = ()
    remarks: tuple[Remark, ...] = ()
    remedies: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)

    def place_of(self, setting: str) -> str:
        """Name the place of a setting, for people who want to correct it."""
        line = self.lines.get(setting)
        name = f"{self.name}, line {line}" if line else self.name
        spelled = self.spelled.get(setting)
        return f"{spelled} in {name}" if spelled else f"{setting} under {name}"


# Settings whose values are paths.
PATHS = frozenset({"user_cert", "user_key", "cloud_cert", "ca_bundle"})


def at_home(path: Path) -> Path:
    """Expand `~`; if there is no such user, or none with a home, there is no such file either."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path
