"""Files of a folder for the boot floppy, and messages about the others."""

import io
from collections.abc import Mapping
from pathlib import Path

import pytest

from uecwatchd.errors import Deferred, Rejected
from uecwatchd.images.floppy.boot_files import (
    DATA_SECTORS,
    SYSLINUX_SECTORS,
    BootFolder,
    FloppyFiles,
    choose_files,
    floppy_name,
)

SPACE_BYTES = (DATA_SECTORS - SYSLINUX_SECTORS) * 512
INI = b"[boot loader]\r\n"
WINDOWS = {"ntldr": b"loader", "NTDETECT.COM": b"detect"}


def choose(files: Mapping[str, bytes]) -> FloppyFiles:
    opened = {name: io.BytesIO(content) for name, content in files.items()}
    return choose_files(BootFolder("win/bootfiles", opened), default_boot_ini=INI)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ntldr", "NTLDR"),
        ("NtDetect.Com", "NTDETECT.COM"),
        ("sym_hi.sys", "NTBOOTDD.SYS"),
        ("SYM_HI.SYS", "NTBOOTDD.SYS"),
        ("Ntbootdd.sys", "NTBOOTDD.SYS"),
        ("-x", "-X"),
        ("bootsect.dos", "BOOTSECT.DOS"),
        ("boot.\u0131ni", None),  # its capital is an ASCII letter
        ("\u017fym_hi.sys", None),
        ("image.toml", None),
        (".hidden", None),
        ("a.b.c", None),
        ("ntldr.", None),
        ("ntldr\n", None),
        ("a b.txt", None),
        ("sub/ntldr", None),
        ("..", None),
        ("*.sys", None),
        ("nul", None),
        ("con.txt", None),
        ("com1", None),
        ("command.com", "COMMAND.COM"),
    ],
)
def test_names_become_dos_names(name: str, expected: str | None) -> None:
    assert floppy_name(name) == expected


def test_the_files_that_windows_starts_with_come_first() -> None:
    files = {"bootfont.bin": b"f", "a.txt": b"a", "Boot.ini": b"ini", "sym_hi.sys": b"driver", **WINDOWS}
    chosen = choose(files)
    assert list(chosen.contents.items()) == [
        ("NTLDR", b"loader"),
        ("NTDETECT.COM", b"detect"),
        ("BOOT.INI", b"ini"),
        ("NTBOOTDD.SYS", b"driver"),
        ("A.TXT", b"a"),
        ("BOOTFONT.BIN", b"f"),
    ]
    assert chosen.remarks == ()


def test_a_missing_boot_ini_is_made() -> None:
    assert choose(WINDOWS).contents["BOOT.INI"] == INI


def test_an_existing_boot_ini_is_kept_as_it_is() -> None:
    assert choose({**WINDOWS, "BOOT.ini": b"mine\n"}).contents["BOOT.INI"] == b"mine\n"


@pytest.mark.parametrize("missing", list(WINDOWS))
def test_a_folder_without_a_required_file_is_refused(missing: str) -> None:
    with pytest.raises(Rejected) as refused:
        choose({name: content for name, content in WINDOWS.items() if name != missing})
    assert refused.value.what == f"win/bootfiles: {missing.lower()} is missing"


def test_an_empty_folder_names_both() -> None:
    with pytest.raises(Rejected, match=r"ntldr and ntdetect\.com are missing"):
        choose({})


@pytest.mark.parametrize("name", list(WINDOWS))
def test_an_empty_loader_is_refused(name: str) -> None:
    with pytest.raises(Rejected, match=f"win/bootfiles/{name}: it is empty"):
        choose({**WINDOWS, name: b""})


@pytest.mark.parametrize("names", [("ntldr", "NTLDR"), ("sym_hi.sys", "Ntbootdd.sys"), ("a.txt", "A.TXT")])
def test_two_files_for_one_name_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(Rejected, match="two files would be") as refused:
        choose({**WINDOWS, names[0]: b"one", names[1]: b"two"})
    assert all(f'"{name}"' in refused.value.why for name in names)


def test_two_copies_of_one_file_are_one() -> None:
    chosen = choose({**WINDOWS, "sym_hi.sys": b"driver", "Ntbootdd.sys": b"driver"})
    assert chosen.contents["NTBOOTDD.SYS"] == b"driver"
    assert chosen.remarks == ()


@pytest.mark.parametrize("name", ["ntldr", "Boot.ini", "sym_hi.sys"])
def test_a_file_of_windows_that_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(Rejected, match=f"win/bootfiles/{name}: it does not fit"):
        choose({**WINDOWS, name: bytes(SPACE_BYTES + 1)})


def test_boot_files_without_space_for_boot_ini_are_refused() -> None:
    with pytest.raises(Rejected, match=r"boot\.ini: it does not fit"):
        choose({**WINDOWS, "ntldr": bytes(SPACE_BYTES - 512)})


def test_no_more_of_a_file_is_read_than_fits() -> None:
    huge = io.BytesIO(bytes(2 * SPACE_BYTES))
    with pytest.raises(Rejected):
        choose_files(BootFolder("f", {"ntldr": huge, "ntdetect.com": io.BytesIO(b"d")}), default_boot_ini=INI)
    assert huge.tell() == SPACE_BYTES + 1


def test_the_space_is_counted_in_sectors() -> None:
    used = 512 * 3  # ntldr, ntdetect.com and Boot.ini
    fits = {**WINDOWS, "a.bin": bytes(SPACE_BYTES - used)}
    assert choose(fits).remarks == ()
    assert '"b.bin" (there is no space' in choose({**fits, "b.bin": b"1"}).remarks[0]


def test_an_additional_file_that_does_not_fit_is_left_out_with_a_remark() -> None:
    chosen = choose({**WINDOWS, "a.bin": bytes(SPACE_BYTES), "b.bin": b"small"})
    assert "B.BIN" in chosen.contents
    assert chosen.remarks == ('not on the boot floppy: "a.bin" (there is no space for them)',)


def test_more_files_than_the_root_directory_holds_are_left_out() -> None:
    chosen = choose({**WINDOWS, **{f"{number:03}.txt": b"" for number in range(300)}})
    assert len(chosen.contents) == 200
    assert chosen.remarks[0].startswith('not on the boot floppy: "197.txt", ')
    assert "and 98 more" in chosen.remarks[0]


def test_files_without_a_dos_name_and_of_syslinux_are_left_out_with_a_remark() -> None:
    chosen = choose({**WINDOWS, "SYSLINUX.cfg": b"", "chain.c32": b"", "read me.txt": b"", "\x1b[2J": b""})
    assert set(chosen.contents) == {"NTLDR", "NTDETECT.COM", "BOOT.INI"}
    dos, own = chosen.remarks
    assert '"\\x1b[2J", "read me.txt"' in dos
    assert '"SYSLINUX.cfg", "chain.c32"' in own


def test_a_file_that_cannot_be_read_defers_the_set() -> None:
    with Path("/proc/self/mem").open("rb", buffering=0) as failing:  # nothing is mapped at 0: EIO
        folder = BootFolder("win", {"ntldr": failing, "ntdetect.com": io.BytesIO(b"d")})
        with pytest.raises(Deferred, match="win/ntldr: cannot read it: Input/output error"):
            choose_files(folder, default_boot_ini=INI)
