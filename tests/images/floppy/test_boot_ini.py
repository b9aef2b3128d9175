"""Boot.ini: made where it is missing, judged where it is there."""

import pytest

from uecwatchd.errors import Rejected
from uecwatchd.images.floppy.boot_ini import WindowsPlace, boot_ini, boot_ini_remarks

GOOD = boot_ini(WindowsPlace(1))


def remarks(content: bytes, *, has_driver: bool = True) -> str:
    return "\n".join(boot_ini_remarks(content, has_driver=has_driver))


def test_boot_ini_names_the_partition_and_the_windows_folder() -> None:
    assert boot_ini(WindowsPlace(2, "WINNT")) == (
        b"[boot loader]\r\n"
        b"timeout=30\r\n"
        b"default=multi(0)disk(0)rdisk(0)partition(2)\\WINNT\r\n"
        b"[operating systems]\r\n"
        b'multi(0)disk(0)rdisk(0)partition(2)\\WINNT="Windows"\r\n'
    )


def test_the_windows_folder_may_be_below_another() -> None:
    assert b"partition(1)\\OS\\WINDOWS\r\n" in boot_ini(WindowsPlace(1, "OS\\WINDOWS"))


@pytest.mark.parametrize(
    "folder",
    ["", "C:\\WINDOWS", "\\WINDOWS", "WINDOWS\\", 'W"', "W\r\n[x]", "WINDOWS\n", "Fenêtres", "a b", "a=b"],
)
def test_a_windows_folder_that_would_break_boot_ini_is_refused(folder: str) -> None:
    with pytest.raises(Rejected, match="cannot be the Windows folder"):
        boot_ini(WindowsPlace(1, folder))


def test_our_own_boot_ini_has_no_remark() -> None:
    assert remarks(GOOD, has_driver=False) == ""


def test_line_ends_of_unix_get_a_remark() -> None:
    assert "CRLF" in remarks(GOOD.replace(b"\r\n", b"\n"))
    assert "CRLF" in remarks(GOOD + b"one=\n")


@pytest.mark.parametrize(
    "content", [b"", GOOD.replace(b"[boot loader]", b"[loader]"), GOOD.decode().encode("utf-16")]
)
def test_a_boot_ini_without_its_section_gets_a_remark(content: bytes) -> None:
    assert "[boot loader]" in remarks(content)


def test_sections_are_found_in_any_case_and_with_spaces() -> None:
    assert remarks(GOOD.replace(b"[boot loader]", b" [Boot Loader] ")) == ""


def test_a_disk_behind_a_driver_that_is_missing_gets_a_remark() -> None:
    scsi = GOOD.replace(b"multi(0)", b"SCSI(0)")
    assert "sym_hi.sys" in remarks(scsi, has_driver=False)
    assert remarks(scsi, has_driver=True) == ""
