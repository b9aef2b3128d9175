"""Which paths a unit lets its service see and write, and what a drop-in has to say where that is not enough.

Rules without I/O, after systemd.exec(5): of several settings that cover a path the longest prefix counts.
Below a path that is shut (ProtectHome=yes, InaccessiblePaths=) no other one does, and below one that is empty
(PrivateTmp=, TemporaryFileSystem=) only what is bound there.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from uecwatchd.unit.asked import Unit

Access = Literal["write", "read", "empty", "shut"]
HOMES = ("/home", "/root", "/run/user")
TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 (whether they are hidden is the question)
# For ProtectSystem=; "strict" is everything.
SYSTEM = {"yes": ("/usr", "/boot", "/efi"), "full": ("/usr", "/boot", "/efi", "/etc"), "strict": ("/",)}
DIRECTORIES = {
    "StateDirectory": "/var/lib",
    "CacheDirectory": "/var/cache",
    "LogsDirectory": "/var/log",
    "RuntimeDirectory": "/run",
}


@dataclass(frozen=True, slots=True)
class Need:
    """A path that the service has to read, or to write, links resolved.

    `credential` is the name under which systemd can hand it over instead, if it can.
    """

    path: PurePath
    write: bool = False
    credential: str = ""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A path that the unit does not let the service use, by which setting, and the lines that would."""

    need: Need
    setting: str
    lines: tuple[str, ...]

    @property
    def why(self) -> str:
        verb = "read-only to" if self.need.write and not self.setting.startswith(_HIDING) else "hidden from"
        return f"{self.need.path} is {verb} the service ({self.setting})"


@dataclass(frozen=True, slots=True)
class _Rule:
    prefix: PurePath
    access: Access
    setting: str
    bound: bool = False


_HIDING = ("ProtectHome=yes", "ProtectHome=tmpfs", "PrivateTmp", "TemporaryFileSystem", "InaccessiblePaths")


def obstacles(unit: Unit, needs: Iterable[Need]) -> tuple[Obstacle, ...]:
    """What stands in the way of each; nothing is known of a unit with a root of its own."""
    if unit.text("RootDirectory") or unit.text("RootImage"):
        return ()
    rules = _in_order(unit)
    return tuple(found for need in needs if (found := _obstacle(need, rules)))


def bound(unit: Unit, path: PurePath) -> str:
    """The setting by which something else than for others lies at that path for the service, or nothing."""
    rule = _that_counts(path, _in_order(unit))
    return rule.setting if rule.bound else ""


def _in_order(unit: Unit) -> Sequence[_Rule]:
    return sorted(_rules(unit), key=lambda rule: len(rule.prefix.parts))


def _obstacle(need: Need, rules: Sequence[_Rule]) -> Obstacle | None:
    rule = _that_counts(need.path, rules)
    if rule.access == "write" or (rule.access == "read" and not need.write):
        return None
    return Obstacle(need, rule.setting, tuple(_lines(need, rule)))


def _that_counts(path: PurePath, rules: Sequence[_Rule]) -> _Rule:
    counts = _Rule(PurePath("/"), "write", "")
    for rule in rules:
        if not path.is_relative_to(rule.prefix) or (counts.access == "empty" and not rule.bound):
            continue
        counts = rule
        if rule.access == "shut":
            break
    return counts


def _lines(need: Need, rule: _Rule) -> Iterator[str]:
    path = str(need.path)
    if need.credential and rule.access != "read":
        yield f"LoadCredential={need.credential}:{path.replace('%', '%%')}"
    elif rule.access == "empty":
        yield f"{'BindPaths' if need.write else 'BindReadOnlyPaths'}={_word(path, also=':')}"
    elif rule.access == "read":
        yield f"ReadWritePaths={_word(path)}"
    elif rule.setting.startswith("ProtectHome"):
        yield "ProtectHome=read-only"
        if need.write:
            yield f"ReadWritePaths={_word(path)}"


def _word(path: str, *, also: str = "") -> str:
    """One word of a list of paths; "-" has the service start, and say so itself, while it is not there."""
    escaped = "".join(f"\\{char}" if char in f'\\"{also}' else char for char in path.replace("%", "%%"))
    return f'"-{escaped}"' if any(char in escaped for char in " \t'\\") else f"-{escaped}"


def drop_in(found: Iterable[Obstacle]) -> tuple[str, ...]:
    """The lines of a drop-in that removes all of these; none where no line can."""
    lines = dict.fromkeys(line for obstacle in found for line in obstacle.lines)
    return ("[Service]", *lines) if lines else ()


def _rules(unit: Unit) -> Iterator[_Rule]:
    system = unit.text("ProtectSystem")
    yield from _all(SYSTEM.get(system, ()), "read", f"ProtectSystem={system}")
    homes: dict[str, Access] = {"yes": "shut", "tmpfs": "empty", "read-only": "read"}
    if home := homes.get(unit.text("ProtectHome")):
        yield from _all(HOMES, home, f"ProtectHome={unit.text('ProtectHome')}")
    if unit.settings.get("PrivateTmp"):
        yield from _all(TEMPORARY, "empty", "PrivateTmp=yes")
    empty = [path for path, *_ in unit.listed("TemporaryFileSystem")]
    yield from _all(empty, "empty", "TemporaryFileSystem=")
    yield from _all(unit.listed("ReadOnlyPaths"), "read", "ReadOnlyPaths=")
    yield from _all(unit.listed("ReadWritePaths"), "write", "ReadWritePaths=")
    for setting, top in DIRECTORIES.items():
        yield from _all((f"{top}/{name}" for name in unit.listed(setting)), "write", setting)
    for setting, access in _BINDING.items():
        bound = [target for _, target, *_ in unit.listed(setting)]
        yield from _all(bound, access, f"{setting}=", bound=True)
    yield from _all(unit.listed("InaccessiblePaths"), "shut", "InaccessiblePaths=")


_BINDING: dict[str, Access] = {"BindPaths": "write", "BindReadOnlyPaths": "read"}


def _all(paths: Iterable[str], access: Access, setting: str, *, bound: bool = False) -> Iterator[_Rule]:
    for path in paths:
        yield _Rule(PurePath(path.lstrip("-+")), access, setting, bound)
