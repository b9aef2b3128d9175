"""What files say of themselves, as far as one look at a folder has time to read it and room to keep it.

Whoever may drop files decides how many there are and what is in them. So each inode is read once, however
many names it has; what a look has no time for is left to the next one; and of the metadata that is kept the
smallest comes first, since thousands of real sidecars take less room than a hundred made up to fill it.
Time and room are shared by the owners of the files.
"""

import heapq
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Protocol

from uecwatchd.errors import Deferred, UecError, words_of
from uecwatchd.images import detect, facts, file_names
from uecwatchd.intake import checksums, misnamed, sidecar
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool.file_kinds import is_sidecar, is_sums
from uecwatchd.intake.spool.name_limit import MOST_NAMES
from uecwatchd.intake.spool.safe_open import (
    EntryKind,
    Stamp,
    changed,
    folder_descriptor,
    open_below,
    reading,
    stamp_of,
)
from uecwatchd.system.text import Malformed

# How long one look reads: some thousand files, and shorter than people notice.
READ_SECONDS = 1.0
# How much metadata is kept of one folder: sixteen thousand sidecars of a kilobyte. In memory it is five times
# as much at worst.
KEPT_BYTES = 16 << 20

Peek = facts.Facts | UecError
Sums = Mapping[str, str]


class File(Protocol):
    """What must be known of a file to read it; `spool.Entry` is one."""

    @property
    def kind(self) -> EntryKind: ...
    @property
    def size(self) -> int: ...
    @property
    def stamp(self) -> Stamp: ...
    @property
    def owner(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Contents:
    """By path. What could not be read stands there as the error that says why.

    `words` are what a small text under another name gives that may have been meant for a sidecar.
    `unread` are those whose turn comes at the next look, `crowded` those for which there is no room.
    """

    peeks: Mapping[str, Peek]
    sidecars: Mapping[str, Sidecar | UecError]
    checksums: Mapping[str, Sums | UecError]
    words: Mapping[str, misnamed.Words]
    unread: frozenset[str]
    crowded: frozenset[str]


@dataclass(frozen=True, slots=True)
class Budget:
    """What one look may spend: `seconds` of reading, `kept` bytes of metadata, and so many `names` of the
    folder itself; `clock` counts seconds.

    `beat` is called after each file, for those who want to know that the look goes on.
    """

    seconds: float = READ_SECONDS
    kept: int = KEPT_BYTES
    names: int = MOST_NAMES
    clock: Callable[[], float] = time.monotonic
    beat: Callable[[], None] = lambda: None


class _Form:
    """One way to read files. What an inode said, or why that is of no use, holds for all its names."""

    def __init__(
        self, parse: Callable[[int, str, Stamp], Any], unusable: Callable[[str, Malformed], UecError]
    ) -> None:
        self.read: dict[str, Any] = {}
        self._parse = parse
        self._unusable = unusable
        self._said: dict[tuple[Stamp, str], Any] = {}

    def keep(self, path: str, stamp: Stamp, found: object) -> None:
        self.read[path] = found
        if not isinstance(found, UecError):
            self._said[_key(path, stamp)] = found

    def drop(self, path: str, stamp: Stamp) -> None:
        del self.read[path]
        self._said.pop(_key(path, stamp), None)

    def take(self, descriptor: int, path: str, stamp: Stamp) -> None:
        key = _key(path, stamp)
        try:
            if key not in self._said:
                self._said[key] = self._heard(descriptor, path, stamp)
            said = self._said[key]
            self.read[path] = self._unusable(path, said) if isinstance(said, Malformed) else said
        except UecError as error:
            self.read[path] = words_of(error)

    def _heard(self, descriptor: int, path: str, stamp: Stamp) -> object:
        try:
            return self._parse(descriptor, path, stamp)
        except Malformed as error:
            return words_of(error)


def _key(path: str, stamp: Stamp) -> tuple[Stamp, str]:
    """What a sidecar says depends on its ending, and what a list of sums says on all of its name."""
    name = path.rsplit("/", 1)[-1]
    return stamp, name if is_sums(path) else name[-5:].lower()


class _Shelf:
    """Which metadata there is room for: whenever there is too much, the largest has to go of who has most."""

    def __init__(self, room: int) -> None:
        self.left = room
        self._largest: dict[int, list[tuple[int, str]]] = {}
        self._taken: dict[int, int] = {}

    def put(self, path: str, file: File) -> list[str]:
        """The paths that have to go now."""
        heapq.heappush(self._largest.setdefault(file.owner, []), (-file.size, path))
        self._add(file.owner, file.size)
        gone = []
        while self.left < 0:
            most = max(self._taken, key=lambda owner: self._taken[owner])
            weight, largest = heapq.heappop(self._largest[most])
            self._add(most, weight)
            gone.append(largest)
        return gone

    def _add(self, owner: int, size: int) -> None:
        self._taken[owner] = self._taken.get(owner, 0) + size
        self.left -= size


def read_contents(
    descriptor: int, files: Mapping[str, File], *, before: Contents, same: Iterable[str], budget: Budget
) -> Contents:
    """Read the regular files among `files` below a folder, as far as the budget goes.

    `same` are the paths that have not changed since the contents `before` were read.
    """
    look = _Look(descriptor, files, budget)
    look.keep(before, same)
    look.read()
    return look.contents()


class _Look:
    """One look's reading. `crowded` and `late` are what it leaves out, for want of room and of time."""

    def __init__(self, descriptor: int, files: Mapping[str, File], budget: Budget) -> None:
        self._descriptor = descriptor
        self._files = {path: file for path, file in files.items() if file.kind == "file"}
        self._budget = budget
        self._shelf = _Shelf(budget.kept)
        self._peeks = _Form(_facts, sidecar.unusable_sidecar)
        self._words = _Form(_words, sidecar.unusable_sidecar)
        self._sidecars = _Form(_sidecar, sidecar.unusable_sidecar)
        self._sums = _Form(_sums, checksums.unusable_checksums)
        self._crowded: set[str] = set()
        self._unread: set[str] = set()

    def _form_of(self, path: str) -> _Form:
        if is_sidecar(path):
            return self._sidecars
        return self._sums if is_sums(path) else self._peeks

    def keep(self, before: Contents, same: Iterable[str]) -> None:
        """Take over what was read before, as far as the file is still the same."""
        earlier = {**before.peeks, **before.sidecars, **before.checksums}
        for path in same:
            if path in self._files and path in earlier:
                self._form_of(path).keep(path, self._files[path].stamp, earlier[path])
                self._shelve(path)
            if path in self._files and path in before.words:
                self._words.keep(path, self._files[path].stamp, before.words[path])
        for path in before.crowded.intersection(same):
            if path in self._files and self._files[path].size > self._shelf.left:
                self._crowded.add(path)

    def read(self) -> None:
        end = self._budget.clock() + self._budget.seconds
        todo = {path: file for path, file in self._files.items() if self._is_to_be_read(path)}
        turns = _in_turn(todo)
        for path in turns:
            self._take(path)
            self._budget.beat()
            if self._budget.clock() >= end:
                break
        self._unread.update(path for path in turns if path not in self._form_of(path).read)  # the rest

    def _take(self, path: str) -> None:
        form, file = self._form_of(path), self._files[path]
        form.take(self._descriptor, path, file.stamp)
        self._shelve(path)
        peek = self._peeks.read.get(path)
        is_text = isinstance(peek, facts.Facts) and peek.format == "text"
        if is_text and file_names.proof_target(path.rsplit("/", 1)[-1]) is None:
            self._words.take(self._descriptor, path, file.stamp)

    def _is_to_be_read(self, path: str) -> bool:
        """A passing trouble is looked at anew each time."""
        found = self._form_of(path).read.get(path)
        return path not in self._crowded and (found is None or isinstance(found, Deferred))

    def _shelve(self, path: str) -> None:
        form = self._form_of(path)
        if form is self._peeks or isinstance(form.read[path], UecError):
            return
        for gone in self._shelf.put(path, self._files[path]):
            self._form_of(gone).drop(gone, self._files[gone].stamp)
            self._crowded.add(gone)

    def contents(self) -> Contents:
        unread, crowded = frozenset(self._unread), frozenset(self._crowded)
        words = {path: words for path, words in self._words.read.items() if not isinstance(words, UecError)}
        return Contents(self._peeks.read, self._sidecars.read, self._sums.read, words, unread, crowded)


def _in_turn(files: Mapping[str, File]) -> Iterator[str]:
    """The owners take turns: nobody waits for what somebody else has put there by the thousand."""
    owned: dict[int, dict[str, File]] = {}
    for path, file in files.items():
        owned.setdefault(file.owner, {})[path] = file
    turns = zip_longest(*map(_in_turn_of_one, owned.values()))
    return (path for turn in turns for path in turn if path is not None)


def _in_turn_of_one(files: Mapping[str, File]) -> Iterator[str]:
    """The smallest, the newest and the oldest take turns.

    So neither thousands of large files nor thousands of old ones stand before a set that is dropped now, and
    nothing waits for ever behind what is dropped later.
    """
    smallest = sorted(files, key=lambda path: (min(files[path].size, detect.HEAD_BYTES), path))
    oldest = sorted(files, key=lambda path: (files[path].stamp[3], path))
    turns = zip(smallest, reversed(oldest), oldest, strict=True)
    return iter(dict.fromkeys(path for turn in turns for path in turn))


# --- one file ---------------------------------------------------------------------------------------------


def peek_at(file: Path) -> Peek:
    """What one file anywhere says of itself, for a person who named it."""
    resolved = file.resolve()
    with folder_descriptor(resolved.parent) as descriptor:
        try:
            return _facts(descriptor, resolved.name)
        except UecError as error:
            return words_of(error)


def _facts(descriptor: int, path: str, stamp: Stamp | None = None) -> facts.Facts:
    with open_below(descriptor, path) as file, reading(path):
        head = os.pread(file.fileno(), detect.HEAD_BYTES, 0)
        status = os.fstat(file.fileno())
        tail = os.pread(file.fileno(), detect.TAIL_BYTES, max(0, status.st_size - detect.TAIL_BYTES))
    _must_be_listed(path, status, stamp)
    return detect.sniff(head, tail, size=status.st_size)


def _sidecar(descriptor: int, path: str, stamp: Stamp) -> Sidecar:
    is_json = path.lower().endswith(".json")
    return sidecar.parse_sidecar(_read_small(descriptor, path, stamp), is_json=is_json)


def _words(descriptor: int, path: str, stamp: Stamp) -> misnamed.Words:
    """What a text says that may have been meant for a sidecar; nothing if it is too large for one."""
    data = _read_small(descriptor, path, stamp)
    return misnamed.words_in(data) if len(data) <= sidecar.SIDECAR_LIMIT_BYTES else misnamed.Words()


def _sums(descriptor: int, path: str, stamp: Stamp) -> Sums:
    return checksums.parse_checksums(path, _read_small(descriptor, path, stamp))


def _read_small(descriptor: int, path: str, stamp: Stamp) -> bytes:
    """One byte more than the limit, so that the parser sees that there is too much."""
    with open_below(descriptor, path) as file, reading(path):
        data = os.pread(file.fileno(), sidecar.SIDECAR_LIMIT_BYTES + 1, 0)
        _must_be_listed(path, os.fstat(file.fileno()), stamp)
    return data


def _must_be_listed(path: str, status: os.stat_result, stamp: Stamp | None) -> None:
    """Or what lies there now would pass for what all other names of the listed file say."""
    if stamp is not None and stamp_of(status) != stamp:
        raise changed(path)
