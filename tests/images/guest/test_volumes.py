"""Reading of file systems by the confined process: they have what their folders had."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from io import FileIO
from pathlib import Path

import pytest

from tests.support.folder_files import FolderFiles
from tests.support.guest_images import MAKERS, Link, bzimage, empty, ext, fat, fill, ntfs
from tests.support.memory_source import MemorySource
from uecwatchd.images.block_source import FileSource
from uecwatchd.images.guest import reader_process
from uecwatchd.images.guest.files import FileSystem
from uecwatchd.images.guest.volumes import UnreadableVolume, Volume, VolumeReader

pytestmark = pytest.mark.exhaustive

FILES = {
    "etc/os-release": Link("../usr/lib/os-release"),
    "usr/lib/os-release": "ID=debian\n",
    "usr/lib/empty": b"",
    "usr/lib/late": b"\0" * 200_000 + b"late",
    "boot/vmlinuz-6.1.0-9-amd64": bzimage("6.1.0-9-amd64", size=3_000_001),
    "boot/initrd.img": Link("/boot/" + "long/" * 30 + "initrd.img"),
    "srv/small": "x" * 61 + "y" * 40,
    "srv/link": Link("z" * 99),
    "srv/grüße": "ein Gruß",
    **{f"srv/many/{number:04}-{'x' * 60}": str(number) for number in range(600)},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("root"), FILES)


@contextmanager
def opened(image: Path) -> Iterator[tuple[Volume, ...]]:
    with closing(FileSource(FileIO(image))) as source, VolumeReader(source, name=image.name) as reader:
        yield reader.open(0, source.size)


def content(files: FileSystem, path: str, size: int) -> bytes:
    read = bytearray()
    while piece := files.read(path, len(read), min(70_000, size - len(read))) if len(read) < size else b"":
        read += piece
    return bytes(read)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_file_system_has_what_its_folder_had(
    make: Callable[[Path, Path], Path], folder: Path, tmp_path: Path
) -> None:
    expected = FolderFiles(folder)
    with opened(make(tmp_path / "image", folder)) as volumes:
        files = volumes[0].files
        assert files, volumes[0].problem
        for place in [folder, *folder.rglob("*")]:
            path = "/" + str(place.relative_to(folder)).removeprefix(".")
            wanted, entry = expected.entry(path), files.entry(path)
            assert wanted
            assert entry
            assert (entry.type, entry.target, entry.mode & 0o755) == (
                wanted.type,
                wanted.target,
                wanted.mode & 0o755,
            )
            if wanted.type == "folder":
                assert set(files.names(path)) - {"lost+found"} == set(expected.names(path))
            else:
                assert entry.size == wanted.size
            if wanted.type == "file":
                assert content(files, path, wanted.size) == place.read_bytes(), path
        assert files.entry("/etc/nonesuch") is None
        assert files.names("/nonesuch") == ()


@pytest.mark.parametrize("make", [fat, ntfs])
def test_a_file_system_of_windows_is_read_in_any_case_of_letters(
    make: Callable[[Path, Path], Path], tmp_path: Path
) -> None:
    folder = fill(tmp_path / "root", {"NTLDR": b"loader" * 9000})
    with opened(make(tmp_path / "image", folder)) as (volume,):
        assert volume.files, volume.problem
        assert "NTLDR" in volume.files.names("/")
        assert volume.files.read("/ntldr", 30_000, 6) == b"loader"
        assert volume.files.entry("/boot.ini") is None


def test_a_folder_that_the_kernel_stores_in_its_inode_is_read(tmp_path: Path) -> None:
    """mke2fs makes no such folders, so they are made through a mount."""
    image = ext("-t", "ext4", "-O", "inline_data", "-I", "512")(
        tmp_path / "image", fill(tmp_path / "root", {})
    )
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    if subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], capture_output=True).returncode:
        pytest.skip("loop devices may not be mounted here")
    try:
        fill(mounted, {f"folder/name{number}": str(number) for number in range(12)})
    finally:
        subprocess.run(["umount", str(mounted)], check=True)
    with opened(image) as (volume,):
        assert volume.files
        assert set(volume.files.names("/folder")) == {f"name{number}" for number in range(12)}
        assert volume.files.read("/folder/name11", 0, 10) == b"11"


def test_logical_volumes_have_the_names_of_their_group(folder: Path, tmp_path: Path) -> None:
    with opened(MAKERS["lvm"](tmp_path / "image", folder)) as (root, swap):
        assert (root.name, root.type, root.size) == ("vg-0/root", "ext4", 64 << 20)
        assert (swap.name, swap.files) == ("vg-0/swap", None)


def test_a_partition_without_a_file_system_has_no_files(tmp_path: Path) -> None:
    with opened(empty(tmp_path / "image", 1 << 20)) as (volume,):
        assert (volume.type, volume.files, volume.problem) == ("zeros", None, "")


def test_an_encrypted_partition_is_reported_as_such() -> None:
    source = MemorySource(b"LUKS\xba\xbe" + bytes(100_000))
    with VolumeReader(source, name="karmic.img") as reader:
        assert reader.open(0, source.size)[0].problem == "it is encrypted (LUKS)"


# --- what may go wrong ------------------------------------------------------------------------------------


@pytest.fixture
def ext4(folder: Path, tmp_path: Path) -> bytes:
    return MAKERS["ext4"](tmp_path / "image", folder).read_bytes()


def find_reader() -> int:
    """Return the process that reads: this one may have other children."""
    tasks = Path("/proc/self/task").iterdir()
    children = [pid for task in tasks for pid in (task / "children").read_text().split()]
    name = reader_process.__name__.encode()
    return next(int(pid) for pid in children if name in Path(f"/proc/{pid}/cmdline").read_bytes())


def test_a_killed_reader_is_reported_in_a_sentence(ext4: bytes) -> None:
    source = MemorySource(ext4)
    with VolumeReader(source, name="karmic.img") as reader:
        (volume,) = reader.open(0, source.size)
        os.kill(find_reader(), signal.SIGSEGV)
        assert volume.files
        for _ in range(2):
            with pytest.raises(
                UnreadableVolume, match=r"karmic.img: a file system .* has ended \(signal 11\)"
            ):
                volume.files.names("/")


def test_a_reader_that_hangs_is_ended_with_a_sentence(ext4: bytes) -> None:
    source = MemorySource(ext4)
    with VolumeReader(source, name="karmic.img", answer_seconds=1.0) as reader:
        (volume,) = reader.open(0, source.size)
        child = find_reader()
        os.kill(child, signal.SIGSTOP)
        assert volume.files
        with pytest.raises(UnreadableVolume, match="reading it takes too long"):
            volume.files.names("/")
        assert reader.has_ended
        assert not Path(f"/proc/{child}").exists()


class Failing(MemorySource):
    """A disk that fails one day."""

    fails = False

    def read_into(self, offset: int, buffer: memoryview, /) -> int:
        if self.fails:
            raise OSError(5, "Input/output error")
        return super().read_into(offset, buffer)


def test_a_disk_that_fails_is_not_mistaken_for_a_damaged_file_system(ext4: bytes) -> None:
    source = Failing(ext4)
    with VolumeReader(source, name="karmic.img") as reader:
        (volume,) = reader.open(0, source.size)
        assert volume.files
        source.fails = True
        with pytest.raises(OSError, match="Input/output"):
            content(volume.files, "/boot/vmlinuz-6.1.0-9-amd64", 3_000_001)


def test_a_request_to_stop_is_followed_while_reading(ext4: bytes) -> None:
    asked = iter([True] * 10)

    def check() -> None:
        if not next(asked, False):
            raise InterruptedError

    source = MemorySource(ext4)
    with VolumeReader(source, name="karmic.img", check=check) as reader:
        (volume,) = reader.open(0, source.size)
        assert volume.files
        with pytest.raises(InterruptedError):
            content(volume.files, "/boot/vmlinuz-6.1.0-9-amd64", 3_000_001)


def test_an_image_is_not_written_to(folder: Path, tmp_path: Path) -> None:
    image = MAKERS["ext4"](tmp_path / "image", folder)
    image.chmod(0o400)
    before = image.stat()
    with opened(image) as (volume,):
        assert volume.files
        assert volume.files.names("/boot")
    assert image.stat().st_mtime_ns == before.st_mtime_ns
