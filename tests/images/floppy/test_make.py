"""The boot floppy is made by the real mtools and syslinux, read back by them, and boots under QEMU."""

import io
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.waiting import until
from tests.support.windows_sets import boot, fake_ntldr
from uecwatchd.errors import Deferred, Rejected
from uecwatchd.images.detect import HEAD_BYTES, TAIL_BYTES, detect
from uecwatchd.images.floppy.boot_files import DATA_SECTORS, SYSLINUX_SECTORS, BootFolder
from uecwatchd.images.floppy.boot_ini import WindowsPlace, boot_ini
from uecwatchd.images.floppy.make import UNPROVEN, make_boot_floppy
from uecwatchd.images.floppy.syslinux import find_memdisk
from uecwatchd.images.suitability import is_floppy

FAT_CLOCK_SECONDS = 2  # the resolution of its times
ROOT_DIRECTORY = slice(19 * 512, 33 * 512)  # after the boot sector and two FATs of nine sectors
DAY_ONE = (1 << 5 | 1).to_bytes(2, "little")  # 1980-01-01 in FAT's format

CHAPTER = {
    "ntldr": bytes(range(256)) * 1200,  # as large as that of Windows Server 2003
    "ntdetect.com": b"detect" * 8000,
    "sym_hi.sys": b"driver" * 5000,
}


def make(
    output: Path, files: Mapping[str, bytes] = CHAPTER, *, windows: WindowsPlace | None = None
) -> tuple[str, ...]:
    opened = {name: io.BytesIO(content) for name, content in files.items()}
    with TemporaryDirectory(dir=output.parent) as scratch:
        folder = BootFolder("win/bootfiles", opened)
        made = make_boot_floppy(folder, Path(scratch), windows=windows or WindowsPlace(1))
    output.write_bytes(made.content)
    return made.remarks


def read_back(floppy: Path, name: str) -> bytes:
    return subprocess.run(["mcopy", "-i", floppy, f"::{name}", "-"], capture_output=True, check=True).stdout


def listed(floppy: Path) -> list[str]:
    command = ["mdir", "-a", "-b", "-i", str(floppy), "::"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return [name.removeprefix("::/") for name in names]


def test_the_files_of_the_chapter_are_on_the_floppy(tmp_path: Path) -> None:
    floppy = tmp_path / "win-boot.img"
    assert make(floppy, windows=WindowsPlace(2, "WINNT")) == (UNPROVEN,)
    assert floppy.stat().st_size == 1440 * 1024
    assert read_back(floppy, "NTLDR") == CHAPTER["ntldr"]
    assert read_back(floppy, "NTDETECT.COM") == CHAPTER["ntdetect.com"]
    assert read_back(floppy, "NTBOOTDD.SYS") == CHAPTER["sym_hi.sys"]
    assert read_back(floppy, "BOOT.INI") == boot_ini(WindowsPlace(2, "WINNT"))
    assert read_back(floppy, "syslinux.cfg").splitlines()[-2:] == [
        b"COM32 chain.c32",
        b"APPEND fd0 ntldr=/NTLDR",
    ]
    own = ["ldlinux.sys", "ldlinux.c32", "chain.c32", "libcom32.c32", "libutil.c32", "syslinux.cfg"]
    assert listed(floppy) == [*own, "NTLDR", "NTDETECT.COM", "BOOT.INI", "NTBOOTDD.SYS"]


def test_the_floppys_file_system_is_sound(tmp_path: Path) -> None:
    make(tmp_path / "f.img")
    checked = subprocess.run(
        ["/usr/sbin/fsck.fat", "-n", tmp_path / "f.img"], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")
    assert len(checked.stdout.splitlines()) == 2  # its version, and a count of files and clusters


def test_the_floppy_is_a_ramdisk_for_memdisk(tmp_path: Path) -> None:
    make(tmp_path / "f.img")
    content = (tmp_path / "f.img").read_bytes()
    facts = detect(content[:HEAD_BYTES], content[-TAIL_BYTES:], size=len(content))
    assert facts.role == "ramdisk"
    assert is_floppy(facts)


def test_the_same_files_make_the_same_bytes_at_another_time(tmp_path: Path) -> None:
    make(tmp_path / "first.img")
    made = time.time() // FAT_CLOCK_SECONDS
    until(lambda: time.time() // FAT_CLOCK_SECONDS > made, "another time on FAT's clock")
    reordered = dict(reversed(CHAPTER.items()))
    make(tmp_path / "second.img", reordered)
    assert (tmp_path / "first.img").read_bytes() == (tmp_path / "second.img").read_bytes()


def test_each_time_on_the_floppy_is_the_fixed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")  # where the fixed time would be a day before FAT's first
    make(tmp_path / "f.img")
    root = (tmp_path / "f.img").read_bytes()[ROOT_DIRECTORY]
    entries = [root[at : at + 32] for at in range(0, len(root), 32) if root[at]]
    assert len(entries) == 10
    for entry in entries:
        changed_time, changed_day, accessed_day = entry[22:24], entry[24:26], entry[18:20]
        assert (changed_time, changed_day, accessed_day) == (bytes(2), DAY_ONE, DAY_ONE), entry[:11]
        assert entry[13:18] in (bytes(5), bytes(3) + DAY_ONE), entry[:11]  # when it was made, if set


def test_a_floppy_with_as_much_as_fits_is_made(tmp_path: Path) -> None:
    space = (DATA_SECTORS - SYSLINUX_SECTORS) * 512
    files = {"ntldr": bytes(space - 512 * 202), "ntdetect.com": b"d", "boot.ini": b"[boot loader]\r\n"}
    additional = {f"{number:03}.txt": b"x" for number in range(197)}
    assert make(tmp_path / "f.img", {**files, **additional}) == (UNPROVEN,)
    assert read_back(tmp_path / "f.img", "196.TXT") == b"x"


def test_remarks_are_about_boot_ini_and_files_left_out(tmp_path: Path) -> None:
    files = {**CHAPTER, "Boot.ini": b"[boot loader]\n", "read me.txt": b""}
    unproven, line_ends, left_out = make(tmp_path / "f.img", files)
    assert "not tried with Microsoft's NTLDR" in unproven
    assert "CRLF" in line_ends
    assert '"read me.txt"' in left_out
    assert read_back(tmp_path / "f.img", "BOOT.INI") == b"[boot loader]\n"


def test_names_with_signs_of_mtools_are_taken_literally(tmp_path: Path) -> None:
    folder = tmp_path / "a@@1M"
    folder.mkdir()
    signs = {"-n": b"dash", "@@1k": b"at", "!#$%&'()": b"signs"}
    make(folder / "-f@@1K.img", {**CHAPTER, **signs})
    shutil.copyfile(folder / "-f@@1K.img", tmp_path / "f.img")
    assert {name: read_back(tmp_path / "f.img", name.upper()) for name in signs} == signs


def test_refused_boot_files_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="ntldr is missing"):
        make(tmp_path / "f.img", {"ntdetect.com": b"d"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("present", "package"), [([], "mtools"), (["mformat", "mcopy"], "syslinux")])
def test_a_missing_program_names_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, present: list[str], package: str
) -> None:
    programs, out = tmp_path / "bin", tmp_path / "out"
    programs.mkdir()
    out.mkdir()
    for name in present:
        (programs / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(Deferred) as deferred:
        make(out / "f.img")
    assert deferred.value.hint == f"Try: apt-get install {package}"
    assert list(out.iterdir()) == []


def test_a_folder_that_is_gone_defers_the_set(tmp_path: Path) -> None:
    folder = BootFolder("bootfiles", {name: io.BytesIO(content) for name, content in CHAPTER.items()})
    with pytest.raises(Deferred, match="mformat: it cannot be started: No such file"):
        make_boot_floppy(folder, tmp_path / "gone", windows=WindowsPlace(1))


def test_memdisk_boots_the_floppy_up_to_ntldr(tmp_path: Path) -> None:
    make(tmp_path / "f.img", {**CHAPTER, "ntldr": fake_ntldr(b"FAKE-NTLDR-DRIVE-")})
    assert b"FAKE-NTLDR-DRIVE-0" in boot(find_memdisk(), tmp_path / "f.img")  # the first floppy drive
