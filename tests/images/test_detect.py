"""Files made by the programs that people make them with, recognized by their bytes."""

import gzip
import io
import shutil
import struct
import subprocess
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.sizes import MIB
from uecwatchd.demo.material import DebianKernel
from uecwatchd.images.detect import COMPRESSIONS, HEAD_BYTES, SIGNATURES, TAIL_BYTES, detect
from uecwatchd.images.file_facts import Facts
from uecwatchd.images.suitability import reason_unsuitable

MEMDISK = Path("/usr/lib/syslinux/memdisk")
PACKAGES = {
    "mke2fs": "e2fsprogs", "mkfs.xfs": "xfsprogs", "mkfs.btrfs": "btrfs-progs", "mkfs.vfat": "dosfstools",
    "mkntfs": "ntfs-3g", "mkswap": "util-linux", "sfdisk": "fdisk", "genisoimage": "genisoimage",
    "qemu-img": "qemu-utils", "cpio": "cpio", "gzip": "gzip", "xz": "xz-utils", "bzip2": "bzip2",
    "zstd": "zstd", "lz4": "lz4", "lzop": "lzop",
}  # fmt: skip


def run(program: str, *arguments: str | Path, stdin: bytes = b"", cwd: Path | None = None) -> bytes:
    path = shutil.which(program, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    assert path, f"{program} is missing: apt-get install {PACKAGES[program]}"
    done = subprocess.run(
        [path, *arguments], input=stdin, cwd=cwd, capture_output=True, timeout=60, check=True
    )
    return done.stdout


def sparse(path: Path, size: int) -> Path:
    path.touch()
    with path.open("r+b") as file:
        file.truncate(size)
    return path


def look(path: Path) -> Facts:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return detect(head, file.read(), size=path.stat().st_size)


def detect_all(data: bytes) -> Facts:
    return detect(data[:HEAD_BYTES], data[-TAIL_BYTES:], size=len(data))


# --- file systems and disks ---

FILE_SYSTEMS = {
    "ext2": ("mke2fs -q -F -t ext2", 8),
    "ext3": ("mke2fs -q -F -t ext3", 8),
    "ext4": ("mke2fs -q -F -t ext4", 8),
    "ext4 of 1k blocks without 64bit": ("mke2fs -q -F -t ext4 -b 1024 -O ^64bit", 8),
    "ext4 by its extents alone": ("mke2fs -q -F -t ext3 -O extents", 8),
    "ext4 by its huge files alone": ("mke2fs -q -F -t ext3 -O huge_file", 8),
    "xfs": ("mkfs.xfs -q -f", 320),
    "btrfs": ("mkfs.btrfs -q", 160),
    "ntfs": ("mkntfs -q -F -Q", 16),
    "fat": ("mkfs.vfat -F 32", 64),
}


@pytest.fixture(params=FILE_SYSTEMS, scope="module")
def file_system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    command, mebibytes = FILE_SYSTEMS[request.param]
    program, *arguments = command.split()
    path = sparse(tmp_path_factory.mktemp("file-system") / "image", mebibytes * MIB)
    run(program, *arguments, path)
    return request.param.split()[0], path


def test_a_file_system_is_a_partition_that_claims_the_whole_file(file_system: tuple[str, Path]) -> None:
    name, path = file_system
    facts, size = look(path), path.stat().st_size
    assert (facts.format, facts.role, facts.layout) == (name, "machine", "partition")
    assert facts.claimed is not None
    assert size - 64 * 1024 <= facts.claimed <= size  # whole blocks; NTFS keeps a spare sector
    assert reason_unsuitable("machine", facts, size=size) is None


def test_a_file_system_cut_short_claims_more_than_there_is(
    file_system: tuple[str, Path], tmp_path: Path
) -> None:
    _, path = file_system
    half = path.stat().st_size // 2
    cut = tmp_path / "cut"
    with path.open("rb") as source:
        cut.write_bytes(source.read(HEAD_BYTES))
    facts = look(sparse(cut, half))
    assert facts.claimed is not None
    assert facts.claimed > half


def test_a_file_system_beyond_two_to_the_32_blocks_is_counted_whole(tmp_path: Path) -> None:
    path = sparse(tmp_path / "image", 8 * MIB)
    run("mke2fs", "-q", "-F", "-t", "ext4", path)
    head = bytearray(path.read_bytes()[:HEAD_BYTES])
    struct.pack_into("<I", head, 1024 + 336, 1)  # the high half of the block count
    assert detect_all(head).claimed == 8 * MIB + (1 << 32) * 1024


DISKS = {
    "one partition": ("mbr", None, "label: dos\n2048,,L,*\n"),
    "an extended partition": ("mbr", None, "label: dos\n2048,4096,L\n,,E\n,4096,L\n,,L\n"),
    "gpt": ("gpt", None, "label: gpt\n,,L\n"),
    "gpt with a 64-bit root": (
        "gpt",
        "x86_64",
        "label: gpt\n,4096,U\ntype=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709\n",
    ),
    "gpt with a 32-bit root": ("gpt", "i386", "label: gpt\ntype=44479540-F297-41B2-9AF7-D131D5F0458A\n"),
}


@pytest.mark.parametrize(("name", "arch", "script"), DISKS.values(), ids=DISKS)
def test_a_partitioned_file_is_a_disk_up_to_its_last_partition(
    name: str, arch: str | None, script: str, tmp_path: Path
) -> None:
    path = sparse(tmp_path / "disk", 16 * MIB)
    run("sfdisk", "-q", path, stdin=script.encode())
    assert look(path) == Facts(name, "machine", arch, "disk", claimed=16 * MIB)  # type: ignore[arg-type]
    assert reason_unsuitable("machine", look(path), size=15 * MIB) == (
        "its partition table claims 16 MiB, the file has 15 MiB",
        "Copy it again: the end is missing.",
    )


def test_a_disk_of_4096_byte_sectors_is_measured_in_them() -> None:
    disk = bytearray(5 * 4096)
    disk[4096:4104] = b"EFI PART"
    struct.pack_into("<Q", disk, 4096 + 32, 4)
    assert detect_all(disk).claimed == 5 * 4096


def test_a_protective_entry_without_its_gpt_claims_nothing_absurd() -> None:
    disk = bytearray(MIB)
    struct.pack_into("<B3sB3sII", disk, 0x1BE, 0, b"", 0xEE, b"", 1, 0xFFFFFFFF)
    disk[0x1FE:0x200] = b"\x55\xaa"
    assert detect_all(disk) == Facts("mbr", "machine", None, "disk", claimed=512)


def test_a_boot_sector_without_partitions_is_no_disk() -> None:
    assert detect_all(bytes(0x1FE) + b"\x55\xaa").format == "unknown"


def test_a_boot_floppy_is_the_ramdisk_of_a_windows_set(tmp_path: Path) -> None:
    run("mkfs.vfat", "-C", tmp_path / "win-boot.img", "1440")
    facts = look(tmp_path / "win-boot.img")
    assert (facts.format, facts.role, facts.claimed) == ("fat", "ramdisk", 1440 * 1024)


def test_a_bootable_cd_is_no_disk_although_it_has_a_partition_table(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    run("genisoimage", "-quiet", "-o", tmp_path / "cd.iso", tmp_path / "tree")
    facts = look(tmp_path / "cd.iso")
    with (tmp_path / "cd.iso").open("r+b") as file:
        file.seek(0x1BE)
        file.write(struct.pack("<B3sB3sII", 0x80, b"", 0x17, b"", 1, 100) + bytes(48) + b"\x55\xaa")
    assert look(tmp_path / "cd.iso") == facts
    assert (facts.format, facts.role, facts.claimed) == (
        "iso9660",
        None,
        (tmp_path / "cd.iso").stat().st_size,
    )


def test_a_swap_area_is_no_machine(tmp_path: Path) -> None:
    run("mkswap", "-q", sparse(tmp_path / "swap", MIB))
    assert look(tmp_path / "swap") == Facts("swap", claimed=MIB)


RARE = {
    "jfs": (0x8000, b"JFS1"),
    "reiserfs": (0x10034, b"ReIsEr2Fs"),
    "f2fs": (0x400, b"\x10\x20\xf5\xf2"),
    "squashfs": (0, b"hsqs"),
    "cramfs": (0, b"\x45\x3d\xcd\x28"),
    "romfs": (0, b"-rom1fs-"),
    "vmdk": (0, b"COWD"),
}


@pytest.mark.parametrize("name", RARE)
def test_a_rare_format_is_recognized_by_its_magic(name: str) -> None:
    at, magic = RARE[name]
    assert detect_all((bytes(at) + magic).ljust(HEAD_BYTES, b"\0")).format == name


# --- virtual disks ---

CONTAINERS = {
    "qcow2": ("qcow2", "qcow2"),
    "compressed qcow2": ("qcow2", "qcow2 -c"),
    "old qcow2": ("qcow2", "qcow2 -o compat=0.10"),
    "qcow": ("qcow", "qcow"),
    "vmdk": ("vmdk", "vmdk"),
    "stream-optimized vmdk": ("vmdk", "vmdk -o subformat=streamOptimized"),
    "vmdk descriptor": ("vmdk", "vmdk -o subformat=monolithicFlat"),
    "growing vhd": ("vhd", "vpc"),
    "fixed vhd": ("vhd", "vpc -o subformat=fixed"),
    "vhdx": ("vhdx", "vhdx"),
    "vdi": ("vdi", "vdi"),
}


@pytest.fixture(scope="module")
def raw_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = sparse(tmp_path_factory.mktemp("raw") / "disk.raw", 8 * MIB)
    run("sfdisk", "-q", path, stdin=b"label: dos\n2048,,L\n")
    with path.open("r+b") as file:
        file.seek(2 * MIB)
        file.write(bytes(range(256)) * 4096)
    return path


@pytest.mark.parametrize(("name", "options"), CONTAINERS.values(), ids=CONTAINERS)
def test_a_virtual_disk_is_known_by_its_first_or_last_bytes_and_can_be_kept(
    name: str, options: str, raw_disk: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "a disk"
    run("qemu-img", "convert", "-O", *options.split(), raw_disk, disk)
    facts, size = look(disk), disk.stat().st_size
    assert (facts.format, facts.role, facts.layout) == (name, "machine", None)
    assert reason_unsuitable("machine", facts, size=size, keep=True) is None


@pytest.mark.parametrize("options", ["qcow2", "vmdk", "vpc", "vdi"])
def test_a_virtual_disk_without_its_tables_or_footer_is_truncated_and_not_kept(
    options: str, raw_disk: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    run("qemu-img", "convert", "-O", options, raw_disk, disk)
    facts = look(sparse(disk, 4096))
    why, _ = reason_unsuitable("machine", facts, size=4096, keep=True) or ("", "")
    assert "claims" in why


# --- kernels ---


@pytest.fixture(scope="module")
def vmlinux(real_kernel: DebianKernel) -> bytes:
    """The ELF kernel within the bzImage: Debian packs its cloud kernel with lz4."""
    image = real_kernel.image.read_bytes()
    start = (image[0x1F1] + 1) * 512 + int.from_bytes(image[0x248:0x24C], "little")
    payload = image[start : start + int.from_bytes(image[0x24C:0x250], "little") - 4]  # its size ends it
    return run("lz4", "-dc", stdin=payload)


def test_debian_s_cloud_kernel_says_its_version_and_architecture(real_kernel: DebianKernel) -> None:
    facts = look(real_kernel.image)
    assert (facts.format, facts.role, facts.arch) == ("bzimage", "kernel", "x86_64")
    assert facts.version == real_kernel.version
    size = real_kernel.image.stat().st_size
    assert facts.claimed is not None
    assert size - 4096 < facts.claimed <= size  # what follows is Secure Boot's signature
    assert reason_unsuitable("kernel", facts, size=facts.claimed - 1) is not None


def test_a_kernel_that_claims_not_to_be_64_bit_is_i386(real_kernel: DebianKernel) -> None:
    head = bytearray(real_kernel.image.read_bytes()[:HEAD_BYTES])
    head[0x236] &= 0xFE
    assert detect_all(head).arch == "i386"


def test_a_kernel_older_than_that_flag_has_no_architecture(real_kernel: DebianKernel) -> None:
    head = bytearray(real_kernel.image.read_bytes()[:HEAD_BYTES])
    struct.pack_into("<H", head, 0x206, 0x20A)  # Linux 2.6.31
    assert detect_all(head).arch is None


def test_memdisk_is_a_kernel_without_architecture_or_version() -> None:
    assert MEMDISK.exists(), "memdisk is missing: apt-get install syslinux-common"
    facts = look(MEMDISK)
    assert (facts.format, facts.role, facts.arch, facts.version) == ("memdisk", "kernel", None, None)
    assert reason_unsuitable("kernel", facts, size=MEMDISK.stat().st_size) is None


def test_an_unpacked_kernel_is_a_kernel(vmlinux: bytes) -> None:
    facts = detect_all(vmlinux)
    assert (facts.format, facts.role, facts.arch) == ("elf", "kernel", "x86_64")
    assert facts.claimed is not None
    assert len(vmlinux) * 0.9 < facts.claimed <= len(vmlinux)  # what follows are its relocations


def test_a_gzipped_kernel_is_a_kernel_and_not_a_ramdisk(vmlinux: bytes) -> None:
    packed = gzip.compress(vmlinux[:MIB])
    facts = detect_all(packed)
    assert (facts.format, facts.inside, facts.role, facts.arch) == ("gzip", "elf", "kernel", "x86_64")
    assert reason_unsuitable("kernel", facts, size=len(packed)) is None
    assert reason_unsuitable("ramdisk", facts, size=len(packed)) is not None


def test_a_program_is_not_a_kernel() -> None:
    facts = look(Path("/bin/ls").resolve())
    assert (facts.format, facts.role) == ("elf", None)
    assert reason_unsuitable("kernel", facts, size=1 << 30) == (
        "it is an ELF program, not a kernel",
        "A kernel is a bzImage (vmlinuz), an ELF vmlinux, or memdisk for Windows.",
    )


# --- ramdisks ---


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A plain cpio as initramfs-tools packs it."""
    tree = tmp_path_factory.mktemp("tree")
    (tree / "init").write_text("#!/bin/sh\nexec sh\n")
    (tree / "data").write_bytes(Path("/bin/busybox").read_bytes()[:200_000])
    return run("cpio", "-o", "-H", "newc", "--quiet", stdin=b".\ninit\ndata\n", cwd=tree)


COMPRESSORS = {
    "gzip": ("gzip", "gzip -9"),
    "xz as the kernel wants it": ("xz", "xz -9 --check=crc32"),
    "lzma": ("lzma", "xz --format=lzma"),
    "lz4 as the kernel wants it": ("lz4", "lz4 -l -9"),
    "lz4": ("lz4", "lz4 -9"),
}


def test_a_plain_cpio_is_a_ramdisk(archive: bytes) -> None:
    assert detect_all(archive) == Facts("cpio", "ramdisk")


@pytest.mark.parametrize(("name", "command"), COMPRESSORS.values(), ids=COMPRESSORS)
def test_a_compressed_cpio_is_a_ramdisk(name: str, command: str, archive: bytes) -> None:
    packed = run(*command.split(), "-c", stdin=archive)
    facts = detect_all(packed)
    assert facts == Facts(name, "ramdisk", inside="cpio")
    assert reason_unsuitable("ramdisk", facts, size=len(packed)) is None


@pytest.mark.parametrize("command", ["zstd -q -19", "lzop -9", "bzip2"])
def test_an_unreadable_compression_leaves_the_role_to_the_name(command: str, archive: bytes) -> None:
    """Python cannot unpack zstd and lzop, and bzip2 only in blocks larger than what is read of a file."""
    packed = run(*command.split(), "-c", stdin=archive * 10)
    facts = detect_all(packed)
    assert (facts.role, facts.inside) == (None, None)
    assert reason_unsuitable("ramdisk", facts, size=len(packed)) is None
    assert reason_unsuitable("machine", facts, size=len(packed)) is not None


def test_an_initrd_that_starts_with_microcode_is_a_ramdisk(archive: bytes) -> None:
    assert detect_all(archive + gzip.compress(archive)) == Facts("cpio", "ramdisk")


def test_a_gzipped_disk_image_is_no_ramdisk(raw_disk: Path) -> None:
    packed = gzip.compress(raw_disk.read_bytes())
    facts = detect_all(packed)
    assert facts == Facts("gzip", "machine", inside="mbr")
    assert reason_unsuitable("machine", facts, size=len(packed), name="a.img") == (
        "it is gzip-compressed, with a partitioned disk (MBR) inside, and nodes boot raw bytes",
        "Try: gzip -dc < a.img > a.img.raw",
    )
    assert reason_unsuitable("ramdisk", facts, size=len(packed)) is not None


def test_a_gzipped_ext2_may_be_an_old_initrd(tmp_path: Path) -> None:
    run("mke2fs", "-q", "-F", "-t", "ext2", sparse(tmp_path / "initrd", MIB))
    packed = gzip.compress((tmp_path / "initrd").read_bytes())
    facts = detect_all(packed)
    assert facts == Facts("gzip", inside="ext2")
    assert reason_unsuitable("ramdisk", facts, size=len(packed)) is None


def test_a_gzip_that_would_unpack_to_gigabytes_costs_no_more_than_its_head() -> None:
    bomb = gzip.compress(bytes(64 * MIB))
    tracemalloc.start()
    assert detect_all(bomb).inside == "zeros"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MIB


# --- anything else ---


def tarball() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("karmic.img"))
    return file.getvalue()


OTHERS = {
    "empty": b"",
    "zeros": bytes(MIB),
    "text": b"<!DOCTYPE html>\n<title>404 Not Found</title>\n",
    "tar": tarball(),
    "zip": b"PK\x03\x04" + bytes(100),
    "unknown": bytes(range(256)) * 1024,
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_that_is_no_image_has_no_role(name: str) -> None:
    data = OTHERS[name]
    facts = detect_all(data)
    assert (facts.format, facts.role) == (name, None)
    for role in ("machine", "kernel", "ramdisk"):
        assert reason_unsuitable(role, facts, size=len(data)) is not None


MAGICS = [(s.at, s.magic) for s in SIGNATURES] + [(0, magic) for magic in COMPRESSIONS] + [
    (0, b"\x7fELF\x02"), (0, b"\x7fELF\x01"), (0x1FE, b"\x55\xaa"), (0x1FE, b"\x55\xaa\0\0HdrS\xff\xff"),
    (512, b"EFI PART"), (4096, b"EFI PART"), (0, b"conectix"), (1080, b"\x53\xef"),
]  # fmt: skip


@given(
    places=st.lists(st.sampled_from(MAGICS), max_size=3),
    noise=st.binary(max_size=3000),
    length=st.integers(0, HEAD_BYTES),
    tail=st.sampled_from([b"", b"conectix", b"\xff" * TAIL_BYTES]),
    size=st.integers(0, 1 << 50),
)
@example(
    places=[(0x1FE, b"\x55\xaa\0\0HdrS\xff\xff")], noise=b"\xff" * 3000, length=HEAD_BYTES, tail=b"", size=1
)
@settings(max_examples=300, deadline=1000)
def test_any_mangled_content_has_a_description(
    places: list[tuple[int, bytes]], noise: bytes, length: int, tail: bytes, size: int
) -> None:
    head = bytearray((noise * 30)[:HEAD_BYTES].ljust(HEAD_BYTES, b"\0"))
    for at, magic in places:
        head[at : at + len(magic)] = magic
    facts = detect(bytes(head[:length]), tail, size=size)
    for role in ("machine", "kernel", "ramdisk"):
        why, hint = reason_unsuitable(role, facts, size=size) or ("", "")
        assert not why.endswith(".")
        assert hint.endswith(".") or hint.startswith("Try: ") or not hint


@given(st.binary(max_size=600))
@settings(max_examples=200, deadline=1000)
def test_any_bytes_have_a_kind(data: bytes) -> None:
    assert detect_all(data).format
