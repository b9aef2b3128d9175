"""Names of folders with boot files."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uecwatchd.intake.spool.boot_folders import boot_folder_of, is_boot_folder, set_beside

NAMES = ("win", "win-bootfiles", "bootfiles", "BootFiles", "win.bootfiles", "mybootfiles", "ntldr")
PARTS = st.sampled_from(NAMES)


@pytest.mark.parametrize(
    ("path", "folder", "beside"),
    [
        ("win/bootfiles/ntldr", "win/bootfiles", None),
        ("win/BOOTFILES", "win/BOOTFILES", None),
        ("win-bootfiles/ntldr", "win-bootfiles", "win"),
        ("win.img.bootfiles/ntldr", "win.img.bootfiles", "win.img"),
        ("bootfiles/ntldr", "bootfiles", ""),
        ("mybootfiles/ntldr", None, None),
        ("win/bootfiles.old/ntldr", None, None),
        ("win/my-bootfiles/ntldr", None, None),
    ],
)
def test_a_folder_of_boot_files_is_known_by_its_name(
    path: str, folder: str | None, beside: str | None
) -> None:
    assert boot_folder_of(path) == folder
    assert folder is None or (is_boot_folder(folder) and set_beside(folder) == beside)


@given(st.lists(PARTS, min_size=1, max_size=3).map("/".join))
def test_what_is_in_a_folder_of_boot_files_has_the_folder_at_its_beginning(path: str) -> None:
    folder = boot_folder_of(path)
    if folder is None:
        assert not re.search(r"(^|[-./])bootfiles(/|$)", "/".join(path.split("/")[:1]), re.IGNORECASE)
    else:
        assert path == folder or path.startswith(f"{folder}/")
        assert boot_folder_of(folder) == folder
        assert folder.count("/") <= 1
