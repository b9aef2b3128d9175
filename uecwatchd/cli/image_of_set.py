"""The machine image of a set, opened as it is uploaded: out of its archive, with its preparation over it.

What has to be made for that is a temporary file without a name, so that nothing is left behind.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from io import FileIO
from pathlib import Path

from uecwatchd.cli.meant_set import sets_of_name
from uecwatchd.cli.set_names import Ambiguous
from uecwatchd.config.load import load
from uecwatchd.config.records import Settings
from uecwatchd.errors import Deferred, Rejected, UecError, problem
from uecwatchd.images.block_source import BlockSource
from uecwatchd.images.disk_parts import open_part
from uecwatchd.images.formats.open import DiskAccess, OpenedDisk, open_disk
from uecwatchd.images.guest.kernel_beside import ABOUT_OWN_KERNEL
from uecwatchd.images.guest.summary import ReadinessFinding
from uecwatchd.images.prepare.prepare import ImageToPrepare, prepare_image
from uecwatchd.images.reading import guest_path, is_prepared
from uecwatchd.images.tarball.copy_file import copy_file
from uecwatchd.ledger.open import read_ledger
from uecwatchd.ledger.records import MemberRecord, SetRecord
from uecwatchd.outputs.wording import command
from uecwatchd.service.work_folder import work_folder
from uecwatchd.system.disk_space import check_space_for
from uecwatchd.system.file_errors import open_for_reading
from uecwatchd.types import SetId

CHANGED = "the file has changed since its set was worked on"
PREPARED_ANEW = "it is prepared as this program does it now, and was registered as another version did it"


@dataclass(frozen=True, slots=True)
class ImageOfSet:
    """The machine image of a set, by its record."""

    record: SetRecord
    member: MemberRecord
    settings: Settings

    @property
    def name(self) -> str:
        return self.member.origin or self.member.path


@dataclass(frozen=True, slots=True)
class OpenedImage:
    """An image that can be looked into, with its name for messages.

    `prepared` are the changes over its file; None if there are not to be any. `about_kernel` are the findings
    about the kernel that its set boots; None if that is the image's own.
    """

    name: str
    disk: OpenedDisk
    prepared: tuple[str, ...] | None = None
    remarks: tuple[str, ...] = ()
    about_kernel: tuple[ReadinessFinding, ...] | None = None


def find_image_of_set(name: str, config: Path | None) -> ImageOfSet | None:
    """Return the machine image of a set; None if there is no such set.

    Raises Rejected if it has none, Ambiguous if several sets could be meant.
    """
    try:
        settings = load(config, environ=os.environ)
        ledger = read_ledger(settings)
    except UecError:
        if "/" in name:  # a path, rather than a set, on a machine that may have no configuration
            return None
        raise
    if ledger is None:
        return None
    with closing(ledger):
        meant = sets_of_name(name, ledger)
    if len(meant) > 1:
        raise Ambiguous.of(name, [record.id for record in meant])
    if not meant:
        return None
    _check_here(meant[0].id)
    machine = next((member for member in meant[0].members if member.role == "machine"), None)
    if machine is None:
        why = "it has none, or it was never complete"
        hint = "Name the file instead: uecwatchd inspect FILE"
        raise Rejected(f"{name}: there is no machine image to look into", why, hint)
    return ImageOfSet(meant[0], machine, settings)


def _check_here(meant: SetId) -> None:
    if meant.is_elsewhere:
        why = f"its files are on host {meant.host}"
        hint = f"On {meant.host}: {command('inspect', meant.there)}"
        raise Rejected(f"{meant.name}: cannot look into its image from here", why, hint)


@contextmanager
def open_image_of_set(image: ImageOfSet, check: Callable[[], None]) -> Iterator[OpenedImage]:
    """Open the image as it is uploaded. `check` may raise to stop.

    What cannot be prepared here is opened without, with a remark. Raises Rejected if the image cannot be
    read; Deferred without space for a file of an archive; OSError.
    """
    access = DiskAccess.limited_to(image.settings.work.max_disk_size)
    with _open_file(image, check) as file:
        has_changed = not image.member.origin and not image.member.stamp.is_of(os.fstat(file.fileno()))
        disk = open_disk(file, name=image.name, access=access, check=check)
        remarks, about_kernel = (
            (CHANGED,) if has_changed else (),
            _about_kernel(image, has_changed=has_changed),
        )
        opened = OpenedImage(image.name, disk, remarks=remarks, about_kernel=about_kernel)
        if is_prepared(image.member.how):
            opened = _prepare(image, opened, check)
        with open_part(opened.disk.source, image.member.how, name=image.name, check=check) as part:
            yield _with_source(opened, part)


def _about_kernel(image: ImageOfSet, *, has_changed: bool) -> tuple[ReadinessFinding, ...] | None:
    """Return the findings about the kernel of a set, from its record; None if it is the image's own.

    Without a kernel among the members it is a registered one, or the image's own. What was found then is true
    of both, as long as the image has not changed.
    """
    summary = image.record.inspection
    kernel = next((member for member in image.record.members if member.role == "kernel"), None)
    is_own = guest_path(kernel.how) if kernel else has_changed
    if summary is None or is_own:
        return None
    return tuple(finding for finding in summary.findings if finding.key in ABOUT_OWN_KERNEL)


def _prepare(image: ImageOfSet, opened: OpenedImage, check: Callable[[], None]) -> OpenedImage:
    to_prepare = ImageToPrepare(opened.disk.source, image.name, check)
    try:
        prepared = prepare_image(to_prepare, _scratch_folder(image.settings))
    except (Rejected, Deferred) as error:
        remark = f"this is the image before its preparation: {problem(error)}"
        return replace(opened, remarks=(*opened.remarks, remark))
    remarks = list(opened.remarks)
    if image.member.digest not in ("", _digest(image, prepared.source.fingerprint)):
        remarks.append(PREPARED_ANEW)
    opened = replace(opened, prepared=tuple(map(str, prepared.changes)), remarks=tuple(remarks))
    return _with_source(opened, prepared.source)


def _digest(image: ImageOfSet, fingerprint: str) -> str:
    """Return the ledger's digest of the file with these changes; empty if it has none."""
    ledger = read_ledger(image.settings)
    if ledger is None:
        return ""
    with closing(ledger):
        return ledger.digest(image.member.stamp, f"{image.member.how} {fingerprint}") or ""


def _with_source(opened: OpenedImage, source: BlockSource) -> OpenedImage:
    return replace(opened, disk=replace(opened.disk, source=source))


# --- the file ---------------------------------------------------------------------------------------------


@contextmanager
def _open_file(image: ImageOfSet, check: Callable[[], None]) -> Iterator[FileIO]:
    record, path = image.record, image.member.path
    if not image.member.origin:
        with open_for_reading(Path(record.folder) / path) as file:
            yield file
        return
    if record.build:
        with _open_installed(image) as file:
            yield file
        return
    unpacked = work_folder(image.settings.state.work_folder, record.id, record.stamp) / path
    if unpacked.is_file():  # its set is not done yet
        with open_for_reading(unpacked) as file:
            yield file
        return
    archive, name = _split_path(image.member)
    scratch = _scratch_folder(image.settings)
    with (
        open_for_reading(Path(record.folder) / archive) as packed,
        tempfile.TemporaryFile(dir=scratch, buffering=0) as file,
    ):
        has_space = partial(check_space_for, scratch, what="the folder for temporary files")
        copy_file(packed, name, file, called=archive, check=check, check_space=has_space)
        yield file


@contextmanager
def _open_installed(image: ImageOfSet) -> Iterator[FileIO]:
    """Open the disk of an installation. Raises Rejected if it was not kept."""
    disk = image.settings.install.builds / image.member.path
    if not disk.is_file():
        again = command("retry", image.record.id)
        raise Rejected(
            f"{image.record.name}: its image is not there any more",
            f"it is a {image.name}, which was not kept",
            f"Take keep = false out of its sidecar, and install it again: {again}",
        )
    with open_for_reading(disk) as file:
        yield file


def _split_path(member: MemberRecord) -> tuple[str, str]:
    """Return the archive of a member, and the path in it: the path of the member consists of both."""
    parents = [str(folder) for folder in Path(member.path).parents]
    archive = next(each for each in parents if member.origin == f"{member.path[len(each) + 1 :]} in {each}")
    return archive, member.path[len(archive) + 1 :]


def _scratch_folder(settings: Settings) -> Path:
    """Return a folder for temporary files. The work folder is not made here: another user may run this."""
    folder = settings.state.work_folder
    return folder if os.access(folder, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
