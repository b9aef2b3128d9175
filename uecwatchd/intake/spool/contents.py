"""Reading of metadata and first bytes, within a budget of time and memory for each scan.

People who drop files decide how many there are and what is in them. So each inode is read once, whatever
number of names it has. What a scan has no time for is left to the next one. Of the metadata the smallest is
kept first: thousands of real sidecars take less memory than a hundred that were made to fill it. The owners
of the files share time and memory.
"""

import heapq
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from posixpath import basename
from typing import Any, Protocol

from uecwatchd.config.documents import Malformed
from uecwatchd.errors import Deferred, UecError, words_of
from uecwatchd.images import detect, file_names
from uecwatchd.images.file_facts import Facts
from uecwatchd.images.formats.contained import describe_contained, describe_packed
from uecwatchd.images.packed.open import UNPACKED
from uecwatchd.intake import checksums, misnamed_sidecars, sidecar
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool.file_kinds import is_sidecar, is_sums
from uecwatchd.intake.spool.name_limit import MOST_NAMES
from uecwatchd.intake.spool.safe_open import EntryKind, changed, folder_descriptor, open_below, reading
from uecwatchd.types import FileStamp

# How long one scan reads: enough for some thousand files, and too short to be noticed.
READ_SECONDS = 1.0
# How much metadata of one folder is kept: sixteen thousand sidecars of a kilobyte. In memory this is five
# times as much at most.
KEPT_BYTES = 16 << 20

FactsOrError = Facts | UecError
Sums = Mapping[str, str]


class ReadableFile(Protocol):
    """The facts about a file that are needed to read it; `Entry` is one."""

    @property
    def kind(self) -> EntryKind: ...
    @property
    def size(self) -> int: ...
    @property
    def stamp(self) -> FileStamp: ...
    @property
    def owner(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Contents:
    """Contents of files by path. If a file could not be read, its error is there instead.

    `words` are from small texts under other names that may be meant for a sidecar. `unread` files are read at
    the next scan; for `crowded` ones there is no memory.
    """

    facts: Mapping[str, FactsOrError]
    sidecars: Mapping[str, Sidecar | UecError]
    checksums: Mapping[str, Sums | UecError]
    words: Mapping[str, misnamed_sidecars.SidecarWords]
    unread: frozenset[str]
    crowded: frozenset[str]


@dataclass(frozen=True, slots=True)
class ReadBudget:
    """Limits of one scan: `seconds` of reading, `kept` bytes of metadata, and `names` in the folder itself.

    `clock` counts seconds. `progressed` is called after each file, as a sign of life.
    """

    seconds: float = READ_SECONDS
    kept: int = KEPT_BYTES
    names: int = MOST_NAMES
    clock: Callable[[], float] = time.monotonic
    progressed: Callable[[], None] = lambda: None


class _ContentKind:
    """One way to read files. The content of an inode, or its failure, is used for all its names."""

    def __init__(
        self, parse: Callable[[int, str, FileStamp], Any], unusable: Callable[[str, Malformed], UecError]
    ) -> None:
        self.read: dict[str, Any] = {}
        self._parse = parse
        self._unusable = unusable
        self._parsed: dict[tuple[FileStamp, str], Any] = {}

    def keep(self, path: str, stamp: FileStamp, found: object) -> None:
        self.read[path] = found
        if not isinstance(found, UecError):
            self._parsed[_cache_key(path, stamp)] = found

    def drop(self, path: str, stamp: FileStamp) -> None:
        del self.read[path]
        self._parsed.pop(_cache_key(path, stamp), None)

    def take(self, descriptor: int, path: str, stamp: FileStamp) -> None:
        key = _cache_key(path, stamp)
        try:
            if key not in self._parsed:
                self._parsed[key] = self._parse_once(descriptor, path, stamp)
            parsed = self._parsed[key]
            self.read[path] = self._unusable(path, parsed) if isinstance(parsed, Malformed) else parsed
        except UecError as error:
            self.read[path] = words_of(error)

    def _parse_once(self, descriptor: int, path: str, stamp: FileStamp) -> object:
        try:
            return self._parse(descriptor, path, stamp)
        except Malformed as error:
            return words_of(error)


def _cache_key(path: str, stamp: FileStamp) -> tuple[FileStamp, str]:
    """Return a key for the cache: a sidecar depends on its suffix, a list of sums on its whole name."""
    name = basename(path)
    return stamp, name if is_sums(path) else name[-5:].lower()


class _MetadataMemory:
    """Memory for metadata: if there is too much, the largest of the owner with the most is dropped."""

    def __init__(self, room: int) -> None:
        self.left = room
        self._largest: dict[int, list[tuple[int, str]]] = {}
        self._taken: dict[int, int] = {}

    def put(self, path: str, file: ReadableFile) -> list[str]:
        """Add a file, and return the paths that are dropped."""
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
    descriptor: int,
    files: Mapping[str, ReadableFile],
    *,
    before: Contents,
    same: Iterable[str],
    budget: ReadBudget,
) -> Contents:
    """Read the regular files among `files` below a folder, within the budget.

    `same` are the paths that have not changed since the contents `before` were read.
    """
    reader = _ContentReader(descriptor, files, budget)
    reader.keep(before, same)
    reader.read()
    return reader.contents()


class _ContentReader:
    """The reading of one scan. `_crowded` and `_unread` are left out, for lack of memory and of time."""

    def __init__(self, descriptor: int, files: Mapping[str, ReadableFile], budget: ReadBudget) -> None:
        self._descriptor = descriptor
        self._files = {path: file for path, file in files.items() if file.kind == "file"}
        self._budget = budget
        self._memory = _MetadataMemory(budget.kept)
        self._facts = _ContentKind(_read_facts, sidecar.unusable_sidecar)
        self._words = _ContentKind(_read_words, sidecar.unusable_sidecar)
        self._sidecars = _ContentKind(_read_sidecar, sidecar.unusable_sidecar)
        self._sums = _ContentKind(_read_sums, checksums.unusable_checksums)
        self._crowded: set[str] = set()
        self._unread: set[str] = set()

    def _kind_of(self, path: str) -> _ContentKind:
        if is_sidecar(path):
            return self._sidecars
        return self._sums if is_sums(path) else self._facts

    def keep(self, before: Contents, same: Iterable[str]) -> None:
        """Reuse contents that were read before, if the file is still the same."""
        earlier = {**before.facts, **before.sidecars, **before.checksums}
        for path in same:
            if path in self._files and path in earlier:
                self._kind_of(path).keep(path, self._files[path].stamp, earlier[path])
                self._remember(path)
            if path in self._files and path in before.words:
                self._words.keep(path, self._files[path].stamp, before.words[path])
        for path in before.crowded.intersection(same):
            if path in self._files and self._files[path].size > self._memory.left:
                self._crowded.add(path)

    def read(self) -> None:
        end = self._budget.clock() + self._budget.seconds
        todo = {path: file for path, file in self._files.items() if self._is_to_be_read(path)}
        turns = _in_turns(todo)
        for path in turns:
            self._take(path)
            self._budget.progressed()
            if self._budget.clock() >= end:
                break
        self._unread.update(path for path in turns if path not in self._kind_of(path).read)  # the rest

    def _take(self, path: str) -> None:
        kind, file = self._kind_of(path), self._files[path]
        kind.take(self._descriptor, path, file.stamp)
        self._remember(path)
        content = self._facts.read.get(path)
        is_text = isinstance(content, Facts) and content.format == "text"
        if is_text and file_names.proof_target(basename(path)) is None:
            self._words.take(self._descriptor, path, file.stamp)

    def _is_to_be_read(self, path: str) -> bool:
        """Return True if the file must be read. After a temporary error it is read again each time."""
        found = self._kind_of(path).read.get(path)
        return path not in self._crowded and (found is None or isinstance(found, Deferred))

    def _remember(self, path: str) -> None:
        kind = self._kind_of(path)
        if kind is self._facts or isinstance(kind.read[path], UecError):
            return
        for gone in self._memory.put(path, self._files[path]):
            self._kind_of(gone).drop(gone, self._files[gone].stamp)
            self._crowded.add(gone)

    def contents(self) -> Contents:
        unread, crowded = frozenset(self._unread), frozenset(self._crowded)
        words = {path: words for path, words in self._words.read.items() if not isinstance(words, UecError)}
        return Contents(self._facts.read, self._sidecars.read, self._sums.read, words, unread, crowded)


def _in_turns(files: Mapping[str, ReadableFile]) -> Iterator[str]:
    """Take files of the owners in turn: nobody waits for thousands of files of somebody else."""
    owned: dict[int, dict[str, ReadableFile]] = {}
    for path, file in files.items():
        owned.setdefault(file.owner, {})[path] = file
    turns = zip_longest(*map(_order_of_owner, owned.values()))
    return (path for turn in turns for path in turn if path is not None)


def _order_of_owner(files: Mapping[str, ReadableFile]) -> Iterator[str]:
    """Take the smallest, the newest and the oldest file in turn.

    A set that is dropped now does not wait for thousands of large or old files, and no file waits for ever
    behind later ones.
    """
    smallest = sorted(files, key=lambda path: (min(files[path].size, detect.HEAD_BYTES), path))
    oldest = sorted(files, key=lambda path: (files[path].stamp.ctime_ns, path))
    turns = zip(smallest, reversed(oldest), oldest, strict=True)
    return iter(dict.fromkeys(path for turn in turns for path in turn))


# --- one file ---------------------------------------------------------------------------------------------


def detect_file(file: Path) -> FactsOrError:
    """Return facts about one file anywhere, for a person who named it."""
    resolved = file.resolve()
    with folder_descriptor(resolved.parent) as descriptor:
        try:
            return _read_facts(descriptor, resolved.name)
        except UecError as error:
            return words_of(error)


def _read_facts(descriptor: int, path: str, stamp: FileStamp | None = None) -> Facts:
    with open_below(descriptor, path) as file, reading(path):
        head = os.pread(file.fileno(), detect.HEAD_BYTES, 0)
        status = os.fstat(file.fileno())
        tail = os.pread(file.fileno(), detect.TAIL_BYTES, max(0, status.st_size - detect.TAIL_BYTES))
        found = detect.detect(head, tail, size=status.st_size)
        if found.format in detect.CONTAINERS:
            found = describe_contained(found, file, name=path)
        elif found.format in UNPACKED and found.role in (None, "machine"):
            found = describe_packed(found, file, name=path)
        _must_be_listed(path, os.fstat(file.fileno()), stamp)
    return found


def _read_sidecar(descriptor: int, path: str, stamp: FileStamp) -> Sidecar:
    is_json = path.lower().endswith(".json")
    return sidecar.parse_sidecar(_read_small(descriptor, path, stamp), is_json=is_json)


def _read_words(descriptor: int, path: str, stamp: FileStamp) -> misnamed_sidecars.SidecarWords:
    """Return the words of a text that may be meant for a sidecar; none if it is too large."""
    data = _read_small(descriptor, path, stamp)
    return (
        misnamed_sidecars.find_sidecar_words(data)
        if len(data) <= sidecar.SIDECAR_LIMIT_BYTES
        else misnamed_sidecars.SidecarWords()
    )


def _read_sums(descriptor: int, path: str, stamp: FileStamp) -> Sums:
    return checksums.parse_checksums(path, _read_small(descriptor, path, stamp))


def _read_small(descriptor: int, path: str, stamp: FileStamp) -> bytes:
    """Read up to one byte more than the limit, so that the parser sees that there is too much."""
    with open_below(descriptor, path) as file, reading(path):
        data = os.pread(file.fileno(), sidecar.SIDECAR_LIMIT_BYTES + 1, 0)
        _must_be_listed(path, os.fstat(file.fileno()), stamp)
    return data


def _must_be_listed(path: str, status: os.stat_result, stamp: FileStamp | None) -> None:
    """Check that the file is still the listed one: its content is used for all names of that file."""
    if stamp is not None and not stamp.is_of(status):
        raise changed(path)
