"""Whole disks: where the system is, what it is called, how it boots, and what damage leads to."""

import random
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from io import FileIO
from pathlib import Path

import pytest

from tests.support.folder_files import FolderFiles
from tests.support.guest_images import (
    BIOS_BOOT,
    ESP,
    LINUX,
    MAKERS,
    Content,
    Link,
    btrfs,
    bzimage,
    content_of,
    disk,
    empty,
    ext,
    fat,
    fill,
    lvm,
    ntfs,
    run,
    xfs,
)
from tests.support.memory_source import DamagedSource
from tests.support.sizes import MIB
from uecwatchd.errors import Rejected
from uecwatchd.images.block_source import BlockSource, FileSource
from uecwatchd.images.guest.boot_firmware import find_boot_ways
from uecwatchd.images.guest.disk import GuestDisk, SeveralSystems, find_linux, read_disk
from uecwatchd.images.guest.kernel_pair import find_kernel_pair
from uecwatchd.images.guest.operating_system import identify_linux, parse_os_release
from uecwatchd.images.guest.tree import GuestTree
from uecwatchd.images.guest.volumes import UnreadableVolume, VolumeReader
from uecwatchd.images.guest.windows import find_windows

pytestmark = pytest.mark.exhaustive

SYSTEM: dict[str, Content] = {
    "bin": Link("usr/bin"),
    "usr/bin/sh": Path("/bin/sh").read_bytes(),
    "etc/os-release": Link("../usr/lib/os-release"),
    "usr/lib/os-release": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
}
BOOT: dict[str, Content] = {
    "vmlinuz-6.1.0-9-amd64": bzimage("6.1.0-9-amd64"),
    "initrd.img-6.1.0-9-amd64": b"070701" + bytes(range(256)) * 5000,
}
KERNELS = {f"boot/{name}": content for name, content in BOOT.items()}


@contextmanager
def opened(image: Path) -> Iterator[tuple[BlockSource, GuestDisk]]:
    with closing(FileSource(FileIO(image))) as source, VolumeReader(source, name=image.name) as reader:
        yield source, read_disk(source, reader)


def check_pair(guest: GuestDisk) -> None:
    """Check that the pair in BOOT is found, and copied as it is."""
    system = find_linux(guest)
    assert system
    pair = find_kernel_pair(system.tree)
    assert pair.version == "6.1.0-9-amd64"
    assert pair.ramdisk
    for file, content in zip((pair.kernel, pair.ramdisk), BOOT.values(), strict=True):
        assert content_of(file) == content
    assert identify_linux(system.tree).name == "Debian GNU/Linux 12 (bookworm)"


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_kernel_of_a_file_system_alone_is_found(
    make: Callable[[Path, Path], Path], tmp_path: Path
) -> None:
    image = make(tmp_path / "image", fill(tmp_path / "root", SYSTEM | KERNELS))
    with opened(image) as (_, guest):
        check_pair(guest)
        assert (guest.layout, guest.table) == ("partition", None)


FSTABS = {
    "uuid": "UUID={uuid} /boot ext4 defaults 0 2\n",
    "label": "LABEL=boot /boot ext4 defaults 0 2\n",
    "device": "/dev/sda1 /boot ext4 defaults 0 2\n",
    "by-uuid": "/dev/disk/by-uuid/{uuid} /boot/ ext4\n",
}
MBR = "label: dos\nsize=64MiB, type=83, bootable\nsize=310MiB, type=83\n"


BOOT_CASES = {
    **{f"ext4 by {name}": (ext("-t", "ext4"), fstab) for name, fstab in FSTABS.items()},
    **{f"{make.__name__} by uuid": (make, FSTABS["uuid"]) for make in (xfs, btrfs, lvm)},
}


@pytest.mark.parametrize(("make", "fstab"), BOOT_CASES.values(), ids=BOOT_CASES)
def test_a_boot_partition_of_its_own_is_mounted_as_the_fstab_says(
    make: Callable[[Path, Path], Path], fstab: str, tmp_path: Path
) -> None:
    uuid = "11111111-2222-3333-4444-555555555555"
    boot = ext("-t", "ext4", "-L", "boot", "-U", uuid)(tmp_path / "boot.img", fill(tmp_path / "boot", BOOT))
    files = SYSTEM | {"etc/fstab": fstab.format(uuid=uuid), "boot": None}
    root = make(tmp_path / "root.img", fill(tmp_path / "root", files))
    with opened(disk(tmp_path / "disk", MBR, (1, boot), (65, root), size=400 * MIB)) as (_, guest):
        assert guest.layout == "disk"
        check_pair(guest)


def test_an_empty_boot_folder_of_a_boot_partition_that_no_fstab_names_has_no_kernel(tmp_path: Path) -> None:
    """This system would not find it either, so it is not guessed."""
    boot = ext("-t", "ext4")(tmp_path / "boot.img", fill(tmp_path / "boot", BOOT))
    root = ext("-t", "ext4")(tmp_path / "root.img", fill(tmp_path / "root", SYSTEM | {"boot": None}))
    with opened(disk(tmp_path / "disk", MBR, (1, boot), (65, root), size=400 * MIB)) as (_, guest):
        system = find_linux(guest)
        assert system
        with pytest.raises(Rejected, match="the image has no kernel"):
            find_kernel_pair(system.tree)


def test_two_systems_on_a_disk_are_refused(tmp_path: Path) -> None:
    root = ext("-t", "ext4")(tmp_path / "root.img", fill(tmp_path / "root", SYSTEM))
    image = disk(tmp_path / "disk", MBR, (1, root), (65, root), size=400 * MIB)
    with (
        opened(image) as (_, guest),
        pytest.raises(SeveralSystems, match=r"partition 1 \(ext4\) and partition 2"),
    ):
        find_linux(guest)


def test_a_subvolume_with_a_distributions_name_is_the_root(tmp_path: Path) -> None:
    nested = {f"@/{path}": content for path, content in (SYSTEM | KERNELS).items()}
    with opened(btrfs(tmp_path / "image", fill(tmp_path / "root", nested))) as (_, guest):
        check_pair(guest)


def test_a_disk_without_a_system_has_none(tmp_path: Path) -> None:
    root = ext("-t", "ext4")(tmp_path / "root.img", fill(tmp_path / "root", {"music/song": "la"}))
    with opened(root) as (_, guest):
        assert find_linux(guest) is None
        assert find_windows(guest) is None


def test_a_reader_that_ends_is_not_mistaken_for_a_disk_without_a_system(tmp_path: Path) -> None:
    root = ext("-t", "ext4")(tmp_path / "root.img", fill(tmp_path / "root", SYSTEM))
    with closing(FileSource(FileIO(root))) as source, VolumeReader(source, name="karmic.img") as reader:
        guest = read_disk(source, reader)
        reader.close()
        with pytest.raises(
            UnreadableVolume, match="a file system in it cannot be read: its reader has ended"
        ):
            find_linux(guest)


def test_windows_is_recognised_by_its_loader(tmp_path: Path) -> None:
    image = ntfs(tmp_path / "image", fill(tmp_path / "root", {"bootmgr": b"loader", "pagefile.sys": b""}))
    with opened(image) as (_, guest):
        found = find_windows(guest)
        assert found
        assert found.system.id == "windows"
        assert find_linux(guest) is None


def test_floppies_and_cds_are_no_disks(tmp_path: Path) -> None:
    floppy = empty(tmp_path / "floppy", 1440 * 1024)
    run("mkfs.fat", floppy)
    run("genisoimage", "-quiet", "-o", tmp_path / "cd", fill(tmp_path / "root", {"readme": "x"}))
    for image, layout in (
        (floppy, "floppy"),
        (tmp_path / "cd", "iso"),
        (empty(tmp_path / "none", MIB), "unknown"),
    ):
        with opened(image) as (_, guest):
            assert guest.layout == layout


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"etc/os-release": "ID=alpine\nVERSION_ID=3.20.1\nNAME='Alpine Linux'\n"},
            ("alpine", "3.20.1", "Alpine Linux"),
        ),
        ({"etc/os-release": 'NAME="unfinished\n# ID=no\n'}, ("linux", "", "unfinished")),
        (
            {"etc/lsb-release": "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=9.04\nDISTRIB_DESCRIPTION=Jaunty\n"},
            ("ubuntu", "9.04", "Jaunty"),
        ),
        ({"etc/debian_version": "5.0.3\n"}, ("debian", "5.0.3", "Debian 5.0.3")),
        ({"etc/redhat-release": "CentOS release 5.4 (Final)\n"}, ("rhel", "", "CentOS release 5.4 (Final)")),
        ({"etc/os-release": "ID=x\x1b[2Jy"}, ("x\\x1b[2Jy", "", "x\\x1b[2Jy")),
        ({"etc/hostname": "karmic"}, ("linux", "", "Linux")),
    ],
)
def test_a_system_of_any_age_has_a_name(
    tmp_path: Path, files: dict[str, Content], expected: tuple[str, str, str]
) -> None:
    found = identify_linux(GuestTree({"/": FolderFiles(fill(tmp_path, files))}))
    assert (found.id, found.version, found.name) == expected


def test_an_os_release_is_quoted_as_for_a_shell() -> None:
    assert parse_os_release("A='it'\"'\"'s'\nB=plain\n#C=1\nnothing\n") == {"A": "it's", "B": "plain"}


@pytest.mark.parametrize(
    ("machine", "width", "arch"), [(62, 2, "x86_64"), (3, 1, "i386"), (183, 2, "arm64")], ids=str
)
def test_the_architecture_of_a_guest_is_that_of_its_shell(
    tmp_path: Path, machine: int, width: int, arch: str
) -> None:
    program = b"\x7fELF" + bytes([width, 1, 1]) + bytes(9) + struct.pack("<HHI", 3, machine, 1) + bytes(500)
    found = identify_linux(GuestTree({"/": FolderFiles(fill(tmp_path, {"bin/sh": program}))}))
    assert found.arch == arch


# --- how it boots -----------------------------------------------------------------------------------------

GRUB_CODE = b"\xeb\x63\x90" + bytes(300) + b"GRUB \0Geom\0Hard Disk\0"
GPT = f"label: gpt\nsize=1MiB, type={BIOS_BOOT}\nsize=64MiB, type={ESP}\nsize=64MiB, type={LINUX}\n"


@pytest.mark.parametrize(
    ("code", "core", "loader", "expected"),
    [
        (GRUB_CODE, b"core", "EFI/BOOT/BOOTX64.EFI", ("bios", "uefi")),
        (GRUB_CODE, b"core", "EFI/debian/shimx64.efi", ("bios",)),
        (GRUB_CODE, b"", "EFI/boot/bootaa64.efi", ("uefi",)),
        (b"", b"core", "readme", ()),
        (b"\xfaplease use Linux's or another", b"core", "readme", ()),
    ],
    ids=["both", "only a BIOS", "GRUB without its second part", "no code", "a partitioner's code"],
)
def test_the_ways_to_boot_a_gpt_disk_are_found(
    tmp_path: Path, code: bytes, core: bytes, loader: str, expected: tuple[str, ...]
) -> None:
    efi = fat(tmp_path / "efi.img", fill(tmp_path / "efi", {loader: b"MZ"}))
    image = disk(tmp_path / "disk", GPT, (2, efi), size=140 * MIB)
    with image.open("r+b") as file:
        file.write(code)
        file.seek(MIB)
        file.write(core)
    with opened(image) as (source, guest):
        assert find_boot_ways(source, guest) == expected


@pytest.mark.parametrize("flag", ["bootable", ""])
def test_an_mbr_starts_its_active_partition(tmp_path: Path, flag: str) -> None:
    script = f"label: dos\nsize=64MiB, type=c{', bootable' if flag else ''}\n"
    content = fat(tmp_path / "fat.img", fill(tmp_path / "root", {"ldlinux.sys": b"x"}))
    image = disk(tmp_path / "disk", script, (1, content), size=70 * MIB)
    with image.open("r+b") as file:
        file.write(b"\x33\xc0Missing operating system.")
    with opened(image) as (source, guest):
        assert find_boot_ways(source, guest) == (("bios",) if flag else ())


# --- damage -----------------------------------------------------------------------------------------------


TYPES = {
    "ext4": ext("-t", "ext4", size=16 * MIB),
    "xfs": xfs,
    "btrfs": btrfs,
    "lvm": lvm,
    "fat": fat,
    "ntfs": ntfs,
}
SEEDS = 12


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files: dict[str, Content] = {"NTLDR": b"x" * 50_000}
    return fill(tmp_path_factory.mktemp("small"), files)


@pytest.fixture(scope="module")
def linux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("linux"), SYSTEM | KERNELS)


@pytest.mark.parametrize("type_", TYPES)
def test_a_damaged_file_system_is_read_or_refused(
    type_: str, small: Path, linux: Path, tmp_path: Path
) -> None:
    root = small if type_ in ("fat", "ntfs") else linux
    image = TYPES[type_](tmp_path / "image", root).read_bytes()
    used = [at for at in range(0, len(image), 512) if any(image[at : at + 512])]
    for seed in range(SEEDS):
        drawn = random.Random(seed)  # noqa: S311 (not a secret)
        source = DamagedSource(image)
        # Most changes hit the first blocks with content: superblocks, tables of inodes, trees.
        blocks = [used[int(len(used) * drawn.random() ** 6)] for _ in range(drawn.choice((1, 8, 64)))]
        source.changes = {block + drawn.randrange(512): drawn.randrange(256) for block in blocks}
        with (
            suppress(Rejected),  # every other exception is a mistake
            VolumeReader(source, name="karmic.img", answer_seconds=20) as reader,
        ):
            look_around(source, reader)


def look_around(source: BlockSource, reader: VolumeReader) -> None:
    guest = read_disk(source, reader)
    find_windows(guest)
    find_boot_ways(source, guest)
    if system := find_linux(guest):
        identify_linux(system.tree)
        pair = find_kernel_pair(system.tree)
        content_of(pair.kernel)
