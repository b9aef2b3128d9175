"""Paths that a unit lets its service read and write, and the drop-in for missing ones.

Rules without I/O, after systemd.exec(5): of several settings for a path the one with the longest prefix
applies, and of several for one prefix the strictest. Below a closed path (ProtectHome=yes,
InaccessiblePaths=) no other setting applies, and below an empty one (PrivateTmp=, TemporaryFileSystem=) only
bind mounts.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Literal

from uecwatchd.cli.unit.systemd import Unit

Access = Literal["write", "read", "empty", "shut"]
HOMES = ("/home", "/root", "/run/user")
TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 (whether they are hidden is the question)
# For ProtectSystem=; "strict" is everything.
SYSTEM = {"yes": ("/usr", "/boot", "/efi"), "full": ("/usr", "/boot", "/efi", "/etc"), "strict": ("/",)}
# "strict" does not include these.
NOT_OF_THE_SYSTEM = ("/dev", "/proc", "/sys", *HOMES)
DIRECTORIES = {
    "StateDirectory": "/var/lib",
    "CacheDirectory": "/var/cache",
    "LogsDirectory": "/var/log",
    "RuntimeDirectory": "/run",
}


@dataclass(frozen=True, slots=True)
class Need:
    """A path that the service has to read, or to write or execute, with links resolved.

    `credential` is the name of a credential that can replace it, if any.
    """

    path: PurePath
    write: bool = False
    credential: str = ""
    execute: bool = False


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A path that the service cannot use, the setting at fault, and the lines of a drop-in."""

    need: Need
    setting: str
    lines: tuple[str, ...]

    @property
    def why(self) -> str:
        if self.setting == NO_EXECUTION:
            return f"the service may not execute {self.need.path} ({self.setting})"
        verb = "read-only to" if self.need.write and not self.setting.startswith(_HIDING) else "hidden from"
        return f"{self.need.path} is {verb} the service ({self.setting})"


@dataclass(frozen=True, slots=True)
class _Rule:
    prefix: PurePath
    access: Access
    setting: str
    bound: bool = False


NO_EXECUTION = "NoExecPaths="
_HIDING = ("ProtectHome=yes", "ProtectHome=tmpfs", "PrivateTmp", "TemporaryFileSystem", "InaccessiblePaths")


def obstacles(unit: Unit, needs: Iterable[Need]) -> tuple[Obstacle, ...]:
    """Return the obstacle of each path, if any. A unit with its own root directory is not analysed."""
    if unit.text("RootDirectory") or unit.text("RootImage"):
        return ()
    rules, needs = _in_order(unit), tuple(needs)
    written = {need.path for need in needs if need.write}
    locked = [path for path in map(_path, unit.listed("ReadOnlyPaths")) if path not in written]
    found = []
    for need in needs:
        rule = _that_counts(need.path, rules)
        if rule.access != "write" and (need.write or rule.access != "read"):
            found.append(Obstacle(need, rule.setting, tuple(_lines(need, rule, locked))))
        if need.execute and not _may_execute(need.path, unit):
            found.append(Obstacle(need, NO_EXECUTION, (f"ExecPaths={_word(str(need.path))}",)))
    return tuple(found)


def bound(unit: Unit, path: PurePath) -> str:
    """Return the setting that puts another file at this path for the service; empty if there is none."""
    rule = _that_counts(path, _in_order(unit))
    return rule.setting if rule.bound else ""


def _in_order(unit: Unit) -> Sequence[_Rule]:
    """Return one rule for each prefix, the shorter first. A bind mount at a read-only path is read-only."""
    counting: dict[PurePath, _Rule] = {}
    for rule in _rules(unit):
        before = counting.get(rule.prefix, rule)
        stays = (before.access, rule.access) == ("read", "write")
        counting[rule.prefix] = replace(rule, access="read", setting=before.setting) if stays else rule
    return sorted(counting.values(), key=lambda rule: len(rule.prefix.parts))


def _may_execute(path: PurePath, unit: Unit) -> bool:
    """Return True unless the longest path above it that the unit names is one without execution."""
    allowed, forbidden = (
        max(
            (len(one.parts) for one in map(_path, unit.listed(setting)) if path.is_relative_to(one)),
            default=0,
        )
        for setting in ("ExecPaths", "NoExecPaths")
    )
    return not forbidden or allowed > forbidden


def _that_counts(path: PurePath, rules: Sequence[_Rule]) -> _Rule:
    counts = _Rule(PurePath("/"), "write", "")
    for rule in rules:
        if not path.is_relative_to(rule.prefix) or (counts.access == "empty" and not rule.bound):
            continue
        counts = rule
        if rule.access == "shut":
            break
    return counts


def _lines(need: Need, rule: _Rule, locked: Sequence[PurePath]) -> Iterator[str]:
    """Yield lines of a drop-in; `locked` paths stay read-only if the setting has to be reset."""
    path, is_same = str(need.path), rule.prefix == need.path
    if need.credential and rule.access != "read":
        yield f"LoadCredential={need.credential}:{path.replace('%', '%%')}"
    elif rule.access == "empty":
        yield f"{'BindPaths' if need.write else 'BindReadOnlyPaths'}={_word(path, also=':')}"
    elif rule.setting.startswith("ProtectHome") and is_same:
        yield "ProtectHome=tmpfs"
        yield f"BindPaths={_word(path, also=':')}"
    elif rule.access == "read" and not is_same:
        yield f"ReadWritePaths={_word(path)}"
    elif rule.setting == "ReadOnlyPaths=":
        yield rule.setting
        yield from (f"ReadOnlyPaths={_word(str(other))}" for other in locked)
        yield f"ReadWritePaths={_word(path)}"
    elif rule.setting.startswith("ProtectHome"):
        yield "ProtectHome=read-only"
        if need.write:
            yield f"ReadWritePaths={_word(path)}"


def _word(path: str, *, also: str = "") -> str:
    """Return one word of a list of paths.

    With the "-" the service starts, and reports it, if the path is missing.
    """
    escaped = "".join(f"\\{char}" if char in f'\\"{also}' else char for char in path.replace("%", "%%"))
    return f'"-{escaped}"' if any(char in escaped for char in " \t'\\") else f"-{escaped}"


def drop_in(found: Iterable[Obstacle]) -> tuple[str, ...]:
    """Return the lines of a drop-in that removes all these obstacles; empty if no line can."""
    lines = dict.fromkeys(line for obstacle in found for line in obstacle.lines)
    return ("[Service]", *lines) if lines else ()


def _rules(unit: Unit) -> Iterator[_Rule]:
    """Yield the rules; the last one for a path applies (systemd's namespace.c, MountMode)."""
    system, home = unit.text("ProtectSystem"), unit.text("ProtectHome")

    def of_homes(wanted: str, access: Access) -> Iterator[_Rule]:
        return _all(HOMES if home == wanted else (), access, f"ProtectHome={home}")

    yield from _all(NOT_OF_THE_SYSTEM if system == "strict" else (), "write", "")
    for setting, top in DIRECTORIES.items():
        yield from _all((f"{top}/{name}" for name in unit.listed(setting)), "write", setting)
    yield from of_homes("tmpfs", "empty")
    yield from _all(
        (path for path, *_ in unit.listed("TemporaryFileSystem")), "empty", "TemporaryFileSystem="
    )
    yield from _all(unit.listed("ReadWritePaths"), "write", "ReadWritePaths=")
    yield from _all(SYSTEM.get(system, ()), "read", f"ProtectSystem={system}")
    yield from of_homes("read-only", "read")
    yield from _all(unit.listed("ReadOnlyPaths"), "read", "ReadOnlyPaths=")
    yield from _all(TEMPORARY if unit.settings.get("PrivateTmp") else (), "empty", "PrivateTmp=yes")
    for setting, access in _BINDING.items():
        bound = [target for _, target, *_ in unit.listed(setting)]
        yield from _all(bound, access, f"{setting}=", bound=True)
    yield from of_homes("yes", "shut")
    yield from _all(unit.listed("InaccessiblePaths"), "shut", "InaccessiblePaths=")


_BINDING: dict[str, Access] = {"BindPaths": "write", "BindReadOnlyPaths": "read"}


def _all(paths: Iterable[str], access: Access, setting: str, *, bound: bool = False) -> Iterator[_Rule]:
    for path in paths:
        yield _Rule(_path(path), access, setting, bound)


def _path(listed: str) -> PurePath:
    return PurePath(listed.lstrip("-+"))
