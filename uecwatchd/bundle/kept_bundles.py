"""Bundles that are kept on the disk until a set is on all its clouds: each is made once.

The parts depend on the image, its name in the archive and the secret. Nothing in them is of a cloud: only the
manifest is encrypted and signed for one. So while the first cloud gets the parts, they are written to a file,
and the next clouds get them from there.

The file is a copy and nothing more. The ledger has the secret and the name of each upload, so that an
interrupted one continues from the image, and a bundle that could not be kept is made again. The file has no
name either: the kernel frees its blocks when this process ends, in whatever way.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from io import FileIO
from pathlib import Path
from typing import Any

from uecwatchd.bundle.bundler import PART_SIZE, PartData, Secret, Totals
from uecwatchd.bundle.names import part_name
from uecwatchd.errors import Deferred, UecError
from uecwatchd.system import memory
from uecwatchd.system.disk_space import check_space_for
from uecwatchd.system.made_files import cannot_use, make_folder
from uecwatchd.types import ContentDigest, Role

WHAT = "the work folder"  # as in a sentence

Content = tuple[Role, ContentDigest]


@dataclass(frozen=True, slots=True)
class KeptBundle:
    """A whole bundle in a file, part after part. `cloud` is the one that it was made for."""

    cloud: str
    name: str  #: of the image in the archive
    secret: Secret
    totals: Totals
    file: FileIO = field(repr=False)


class UnreadableParts(Deferred):
    """The parts of a kept bundle cannot be read, or are not what was written."""


class KeptParts(Iterator[PartData]):
    """Iterator over the parts of a kept bundle, under the names of another cloud; used like a `Bundling`.

    `progress` is called with the number of bytes of the image that are done. Raises UnreadableParts.
    """

    def __init__(self, kept: KeptBundle, prefix: str, progress: Callable[[int], None]) -> None:
        parts = (replace(part, name=part_name(prefix, part.index)) for part in kept.totals.parts)
        self.totals = replace(kept.totals, parts=tuple(parts))
        self._file = kept.file
        self._left = iter(self.totals.parts)
        self._spare: Any = None  # one is enough: for the next part
        self._progress = progress

    def __next__(self) -> PartData:
        part = next(self._left)
        spare, self._spare = self._spare, None
        room = memory.allocate_pages(PART_SIZE) if spare is None else memoryview(spare)
        data = room[: part.size]
        self._read(data, part.index * PART_SIZE)
        if hashlib.sha1(data).hexdigest() != part.sha1:
            raise _unreadable("it is not what was written")
        self._progress(self.totals.size * (part.index + 1) // len(self.totals.parts))
        return PartData(part, data)

    def _read(self, data: memoryview, offset: int) -> None:
        while data:
            try:
                count = os.preadv(self._file.fileno(), [data], offset)
            except OSError as error:
                raise _unreadable(error.strerror or str(error)) from error
            if not count:
                raise _unreadable("it is shorter than what was written")
            data, offset = data[count:], offset + count

    def release(self, part: PartData) -> None:
        """Make the memory of the part available again."""
        self._spare = part.data.obj

    def close(self) -> None:
        """Do nothing: the file stays open for the next cloud."""


class PartKeeper:
    """Writer of the parts of one bundle to a file. `problem` is why they are not all there.

    Without a call of `open` it keeps nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: FileIO | None = None
        self._totals: Totals | None = None
        self.problem: UecError | None = None

    def open(self, needs_bytes: int) -> None:
        """Make the file, if the disk has the space that it may need."""
        with self._noting_problems():
            make_folder(self._folder)
            check_space_for(self._folder, needs_bytes, WHAT)
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 (see `take`)

    def keep(self, piece: PartData) -> None:
        """Write a part to its place, unless another could not be written. Called by several threads."""
        if self._file is None or self.problem:
            return
        data, offset = piece.data, piece.part.index * PART_SIZE
        with self._noting_problems():
            check_space_for(self._folder, len(data), WHAT)  # other sets may have filled the disk by now
            while data:
                count = os.pwrite(self._file.fileno(), data, offset)
                data, offset = data[count:], offset + count

    def finish(self, totals: Totals) -> None:
        """Note that the bundle is whole, and was made of the right content."""
        self._totals = totals

    def take(self, cloud: str, name: str, secret: Secret) -> KeptBundle | None:
        """Return the bundle if all of it is there. Otherwise the file is closed."""
        if self._file and self._totals and not self.problem:
            return KeptBundle(cloud, name, secret, self._totals, self._file)
        if self._file:
            self._file.close()
        return None

    @contextmanager
    def _noting_problems(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._give_up(cannot_use(self._folder, error))
        except Deferred as error:
            self._give_up(error)

    def _give_up(self, problem: UecError) -> None:
        """Give the space back at once: the ledger may be on the same disk, and the upload takes hours."""
        self.problem = problem
        if self._file:
            with suppress(OSError):  # of a failing disk: the file is closed in the end
                self._file.truncate(0)


class KeptBundles:
    """The bundles of one set that are kept for the next clouds. They belong to the thread of the set.

    `is_wanted` is True while another cloud follows: otherwise nothing is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[Content, KeptBundle] = {}
        self._has_failed = False
        self.is_wanted = False

    def find(self, content: Content) -> KeptBundle | None:
        """Return the bundle of a content, if there is one."""
        return self._kept.get(content)

    @contextmanager
    def keeping(
        self, content: Content, *, cloud: str, name: str, secret: Secret, needs_bytes: int
    ) -> Iterator[PartKeeper]:
        """Keep the bundle that is made meanwhile, if another cloud wants it and none is there yet.

        `needs_bytes` is the maximum of its size. After a problem the set keeps nothing more: what has no
        space for one member has hardly any for the next.
        """
        keeper = PartKeeper(self._folder)
        if self.is_wanted and content not in self._kept and not self._has_failed:
            keeper.open(needs_bytes)
        try:
            yield keeper
        finally:
            self._has_failed = self._has_failed or keeper.problem is not None
            if kept := keeper.take(cloud, name, secret):
                self._kept[content] = kept

    def drop(self, content: Content) -> None:
        """Forget a bundle that a cloud could not open, so that the next cloud gets another one."""
        if kept := self._kept.pop(content, None):
            kept.file.close()

    def close(self) -> None:
        """Give the space on the disk back."""
        for content in tuple(self._kept):
            self.drop(content)


def _unreadable(why: str) -> UnreadableParts:
    what = f"a bundle in {WHAT}, kept for the next cloud"
    return UnreadableParts(
        what, f"cannot read it: {why}", "It is made again from the image, at the next try."
    )
