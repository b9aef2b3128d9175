"""What lies in a folder: names, ages, and what the files say of themselves in their first bytes."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from uecwatchd import checksums, image, sidecar
from uecwatchd.errors import Deferred, UecError
from uecwatchd.spool.door import (
    EntryKind,
    Stamp,
    cannot_open,
    folder_descriptor,
    kind_of,
    open_below,
    reading,
    stamp_of,
)
from uecwatchd.spool.kinds import is_sidecar, is_sums
from uecwatchd.spool.output import is_foreign, is_output
from uecwatchd.spool.passed_over import ignored_by
from uecwatchd.strangers import spelled

NOT_UTF8 = "a name that is not UTF-8"  # stands where the pattern would that a name matches


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a folder, as `lstat` sees it. `since` is our own monotonic clock's reading in seconds when
    this stamp was first seen: modification times are forged by `cp -p` and differ between NFS hosts."""

    name: str
    kind: EntryKind
    size: int
    stamp: Stamp
    since: float


Peek = image.Facts | UecError


@dataclass(frozen=True, slots=True)
class Listing:
    """A folder and its sub-folders, one level deep, at one moment.

    Mappings are keyed by the path relative to `folder`: "karmic.img", "karmic/disk.img".
    A file that cannot be read, or a folder that cannot be listed, stands in them as the error that says why.
    `keys` are the keys of a sidecar that a small text under another name gives.
    `planted` is what bears the name of an output and was not put there by the service.
    """

    folder: Path
    now: float
    entries: Mapping[str, Entry] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)
    peeks: Mapping[str, Peek] = field(default_factory=dict)
    sidecars: Mapping[str, sidecar.Sidecar | UecError] = field(default_factory=dict)
    checksums: Mapping[str, Mapping[str, str] | UecError] = field(default_factory=dict)
    planted: Mapping[str, Entry] = field(default_factory=dict)
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def top(self) -> list[Entry]:
        return [entry for path, entry in self.entries.items() if "/" not in path]


def scan(
    folder: Path,
    *,
    now: float,
    before: Listing | None = None,
    ignore: Sequence[str] = (),
    seen: float | None = None,
    owner: int | None = None,
) -> Listing:
    """List a folder. What has the same stamp as in the listing `before` is not read again.

    `seen` is the time at which to take what is new here to have been seen first; `now` unless told.
    `owner` is the user as whom the service runs; this process's unless told.
    Raises NotPermitted when the folder cannot be listed, Deferred when it is not there.
    """
    since = now if seen is None else seen
    entries: dict[str, Entry] = {}
    ignored: dict[str, str] = {}
    with folder_descriptor(folder) as descriptor:
        _list(descriptor, "", entries, ignored, ignore=ignore, since=since)
        closed: dict[str, Peek] = {}
        for name in [e.name for e in entries.values() if e.kind == "folder"]:
            try:
                _list_below(descriptor, name, entries, ignored, ignore=ignore, since=since)
            except OSError as error:
                closed[name] = cannot_open(descriptor, name, error)
        entries = {path: _with_age(path, entry, before) for path, entry in entries.items()}
        planted = _planted(descriptor, ignored, owner=os.geteuid() if owner is None else owner, since=since)
        found = Listing(folder, now, entries, ignored, closed, planted=planted)
        return _read_contents(descriptor, found, before)


def _list_below(
    parent: int,
    name: str,
    entries: dict[str, Entry],
    ignored: dict[str, str],
    *,
    ignore: Sequence[str],
    since: float,
) -> None:
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        _list(descriptor, f"{name}/", entries, ignored, ignore=ignore, since=since)
    finally:
        os.close(descriptor)


def _list(
    descriptor: int,
    prefix: str,
    entries: dict[str, Entry],
    ignored: dict[str, str],
    *,
    ignore: Sequence[str],
    since: float,
) -> None:
    for name in sorted(os.listdir(descriptor)):
        if not _is_text(name):  # no cloud, journal or ledger could be told of it
            ignored[prefix + spelled(name)] = NOT_UTF8
            continue
        if pattern := ignored_by(name, ignore):
            ignored[prefix + name] = pattern
            continue
        with suppress(FileNotFoundError):  # removed since listdir
            entry = _entry(name, os.lstat(name, dir_fd=descriptor), since)
            if entry.kind == "folder" and (pattern := ignored_by(name, is_folder=True)):
                ignored[prefix + name] = pattern
            else:
                entries[prefix + name] = entry


def _planted(descriptor: int, ignored: Mapping[str, str], *, owner: int, since: float) -> Mapping[str, Entry]:
    """Only beside the sets: the service puts nothing into a set's own folder."""
    planted: dict[str, Entry] = {}
    for name in (path for path in ignored if "/" not in path and is_output(path)):
        with suppress(FileNotFoundError):
            status = os.lstat(name, dir_fd=descriptor)
            if is_foreign(status, owner=owner):
                planted[name] = _entry(name, status, since)
    return planted


def _is_text(name: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in name)


def _entry(name: str, status: os.stat_result, since: float) -> Entry:
    return Entry(name, kind_of(status.st_mode), status.st_size, stamp_of(status), since)


def _with_age(path: str, entry: Entry, before: Listing | None) -> Entry:
    known = before.entries.get(path) if before else None
    if known is None or known.stamp != entry.stamp:
        return entry
    return known


def _read_contents(descriptor: int, listing: Listing, before: Listing | None) -> Listing:
    """Fill in what the files say of themselves, from the listing before where nothing changed."""
    peeks = dict(listing.peeks)
    sidecars: dict[str, sidecar.Sidecar | UecError] = {}
    checksums: dict[str, Mapping[str, str] | UecError] = {}
    keys: dict[str, tuple[str, ...]] = {}
    for path, entry in listing.entries.items():
        if entry.kind != "file":
            continue
        known = before if before and before.entries.get(path) is entry else Listing(listing.folder, 0)
        if is_sidecar(path):
            sidecars[path] = _lasting(known.sidecars.get(path)) or _sidecar(descriptor, path)
        elif is_sums(path):
            checksums[path] = _lasting(known.checksums.get(path)) or _checksums(descriptor, path)
        else:
            peek = peeks[path] = _lasting(known.peeks.get(path)) or _peek(descriptor, path)
            if isinstance(peek, image.Facts) and peek.format == "text":
                keys[path] = known.keys[path] if path in known.keys else _keys(descriptor, path, entry.size)
    return replace(listing, peeks=peeks, sidecars=sidecars, checksums=checksums, keys=keys)


Read = TypeVar("Read")


def _lasting(known: Read | None) -> Read | None:
    """What was read before, unless it was a passing trouble: that is looked at anew each time."""
    return None if isinstance(known, Deferred) else known


def peek_at(file: Path) -> Peek:
    """What one file anywhere says of itself, for a person who named it."""
    resolved = file.resolve()
    with folder_descriptor(resolved.parent) as descriptor:
        return _peek(descriptor, resolved.name)


def _peek(descriptor: int, path: str) -> Peek:
    try:
        with open_below(descriptor, path) as file, reading(path):
            size = os.fstat(file.fileno()).st_size
            head = os.pread(file.fileno(), image.HEAD_BYTES, 0)
            tail = os.pread(file.fileno(), image.TAIL_BYTES, max(0, size - image.TAIL_BYTES))
    except UecError as error:
        return error
    return image.sniff(head, tail, size=size)


def _sidecar(descriptor: int, path: str) -> sidecar.Sidecar | UecError:
    try:
        return sidecar.read_sidecar(path, _read_small(descriptor, path))
    except UecError as error:
        return error


def _keys(descriptor: int, path: str, size: int) -> tuple[str, ...]:
    """What a text says that may have been meant for a sidecar; nothing if it is too large for one."""
    try:
        small = size <= sidecar.SIDECAR_LIMIT_BYTES
        return sidecar.keys_in(_read_small(descriptor, path)) if small else ()
    except UecError:
        return ()


def _checksums(descriptor: int, path: str) -> Mapping[str, str] | UecError:
    try:
        return checksums.read_checksums(path, _read_small(descriptor, path))
    except UecError as error:
        return error


def _read_small(descriptor: int, path: str) -> bytes:
    """One byte more than the limit, so that the parser sees that there is too much."""
    with open_below(descriptor, path) as file, reading(path):
        return os.pread(file.fileno(), sidecar.SIDECAR_LIMIT_BYTES + 1, 0)
