"""Boot files of Windows sets, in real folders as a scan lists them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.scanned_folder import ALONE, MBR, NOW, lay
from uecwatchd.intake.sets.assemble import assemble
from uecwatchd.intake.sets.records import FolderSets, FolderUsers, ImageSet, Refused, Rules, Waiting
from uecwatchd.intake.spool import archive, scan
from uecwatchd.ledger.records import LeavingFile
from uecwatchd.service.file_removal import without_leaving

UEC = Rules(
    5.0,
    ALONE.defaults,
    {"default": frozenset({"kernel"})},
    {"default": frozenset({"kernel", "ramdisk"})},
    frozenset(),
)
WINDOWS = 'platform = "windows"\n'
NEEDED = ("ntldr", "ntdetect.com")
ALICE, BOB = 1001, 1002
USERS = FolderUsers(frozenset({0}), lambda uid: {ALICE: "alice", BOB: "bob"}.get(uid, "root"))


def beside(folder: str, *names: str) -> dict[str, bytes | str]:
    return {"win.img": MBR, **{f"{folder}/{name}": name for name in names}}


def decide(folder: Path, rules: Rules = UEC) -> FolderSets:
    return assemble(scan.scan(folder, now=NOW, seen=0.0), rules=rules)


def only(found: FolderSets) -> ImageSet | Waiting | Refused:
    (one,) = (*found.ready, *found.waiting, *found.refused)
    return one


def ready(found: FolderSets) -> ImageSet:
    (one,) = found.ready
    assert found == FolderSets(ready=(one,))
    return one


def made(found: ImageSet) -> tuple[bool, str]:
    wanted = found.windows_boot
    assert wanted
    return wanted.memdisk, wanted.floppy.folder if wanted.floppy else ""


@pytest.mark.parametrize("name", ["win-bootfiles", "win.bootfiles", "WIN.img-BootFiles"])
def test_boot_files_beside_a_disk_make_it_a_windows_set(tmp_path: Path, name: str) -> None:
    names = ("NTLDR", "NtDetect.com", "extra.toml", "bootfont.bin")
    lay(tmp_path, beside(name, *names))
    found = ready(decide(tmp_path))
    assert made(found) == (True, name)
    assert found.sidecar.platform == "windows"
    assert set(found.files) == {
        "win.img",
        *(f"{name}/{one}" for one in ("NTLDR", "NtDetect.com", "extra.toml", "bootfont.bin")),
    }
    assert [member.role for member in found.members] == ["machine"]


def test_boot_files_in_the_folder_of_a_set_are_no_members_and_no_sidecars(tmp_path: Path) -> None:
    (tmp_path / "win").mkdir()
    files = {f"win/bootfiles/{name}": "kernel = 1" for name in (*NEEDED, "image.toml", "a.img", "SHA256SUMS")}
    lay(tmp_path, {"win/disk.img": MBR, **files})
    found = ready(decide(tmp_path))
    assert made(found) == (True, "win/bootfiles")
    assert set(found.files) == {"win/disk.img", *files}


def test_a_folder_of_boot_files_alone_is_no_set_and_no_news(tmp_path: Path) -> None:
    lay(tmp_path, {"win-bootfiles/ntldr": "", "bootfiles/ntldr": ""})
    found = decide(tmp_path)
    assert found == FolderSets(unmatched=found.unmatched)
    assert {one.path: one.reason for one in found.unmatched} == {
        "win-bootfiles": "boot files of no Windows set: they are for the disk in win.img",
        "bootfiles": "boot files of no Windows set: they are for the disk in NAME.img",
    }
    assert not any(one.is_news for one in found.unmatched)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"ntldr": ""}, "ntdetect.com in win-bootfiles/ (copy them from the folder I386"),
        ({"readme": ""}, "ntldr and ntdetect.com in win-bootfiles/ (copy"),
    ],
)
def test_a_set_waits_for_the_boot_files_that_windows_needs(
    tmp_path: Path, files: Mapping[str, str], reason: str
) -> None:
    lay(tmp_path, beside("win-bootfiles", *files))
    waiting = only(decide(tmp_path))
    assert isinstance(waiting, Waiting)
    assert waiting.reason.startswith(reason)
    assert waiting.ready_at is None


def test_boot_files_settle_and_a_changed_or_added_one_makes_a_new_set(tmp_path: Path) -> None:
    lay(tmp_path, beside("win-bootfiles", *NEEDED))
    first = scan.scan(tmp_path, now=NOW, seen=0.0)
    before = ready(assemble(first, rules=UEC))
    (tmp_path / "win-bootfiles/ntldr").write_bytes(b"another loader")
    later = scan.scan(tmp_path, now=NOW + 1, before=first)
    waiting = only(assemble(later, rules=UEC))
    assert isinstance(waiting, Waiting)
    assert waiting.reason == "win-bootfiles/ntldr to be unchanged for 5 s"
    changed = ready(assemble(replace(later, now=NOW + 9), rules=UEC))
    assert changed.stamp != before.stamp
    (tmp_path / "win-bootfiles/boot.ini").write_bytes(b"")
    assert ready(decide(tmp_path)).stamp not in (before.stamp, changed.stamp)


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({"win.toml": 'platform = "linux"'}, "win-bootfiles/: it has boot files of Windows"),
        ({"win.bootfiles/ntldr": ""}, "win: it has two folders of boot files"),
        (
            {"win.initrd": b"070701" + bytes(600)},
            "win-bootfiles/: there is a ramdisk beside them",
        ),
    ],
)
def test_contradictions_are_refused_with_a_hint(
    tmp_path: Path, files: Mapping[str, bytes | str], what: str
) -> None:
    lay(tmp_path, {**beside("win-bootfiles", *NEEDED), **files})
    refused = only(decide(tmp_path))
    assert isinstance(refused, Refused)
    assert refused.error.what == what
    assert refused.error.hint


def test_a_link_among_boot_files_is_refused(tmp_path: Path) -> None:
    lay(tmp_path, beside("win-bootfiles", *NEEDED))
    (tmp_path / "win-bootfiles/boot.ini").symlink_to("/etc/passwd")
    refused = only(decide(tmp_path))
    assert isinstance(refused, Refused)
    assert "symbolic link" in f"{refused.error.what} {refused.error.why}"


def test_a_windows_disk_alone_waits_for_a_floppy_only(tmp_path: Path) -> None:
    lay(tmp_path, {"win.img": MBR, "win.toml": WINDOWS})
    waiting = only(decide(tmp_path))
    assert isinstance(waiting, Waiting)
    assert waiting.reason.startswith("a boot floppy: such a cloud boots Windows through memdisk and a floppy")


@pytest.mark.parametrize("size", [1440 * 1024, 1440 * 1024 + 512])
def test_a_dropped_floppy_has_the_size_of_a_floppy(tmp_path: Path, size: int) -> None:
    boot = bytearray(size)
    head = bytes.fromhex("eb3c904d53444f53352e30000201010002e000400bf009001200020000000000")
    boot[: len(head)] = head
    boot[0x26:0x3E] = b"\x29" + b"1234" + b"NO NAME    " + b"FAT12   "
    boot[0x1FE:0x200] = b"\x55\xaa"
    lay(tmp_path, {"win.img": MBR, "win.toml": WINDOWS + 'ramdisk = "floppy.flp"', "floppy.flp": bytes(boot)})
    found = only(decide(tmp_path))
    if size == 1440 * 1024:
        assert isinstance(found, ImageSet)
        assert made(found) == (True, "")
    else:
        assert isinstance(found, Refused)
        assert found.error.what == "floppy.flp: it cannot be the boot floppy"
        assert "1475072 bytes is not that of any floppy" in found.error.why


def test_a_cloud_that_boots_disks_gets_the_disk_alone(tmp_path: Path) -> None:
    lay(tmp_path, beside("win-bootfiles", *NEEDED))
    found = ready(decide(tmp_path, ALONE))
    assert (found.windows_boot, found.boot_folder, found.virtualization) == (None, "win-bootfiles", "hvm")
    assert "win-bootfiles/ntldr" in found.files


def test_boot_files_of_another_owner_are_not_used(tmp_path: Path) -> None:
    lay(tmp_path, beside("win-bootfiles", *NEEDED))
    listing = scan.scan(tmp_path, now=NOW, seen=0.0)
    owners = {"win.img": ALICE, "win-bootfiles": ALICE, "win-bootfiles/ntldr": ALICE}
    entries, boot = (
        {path: replace(entry, owner=owners.get(path, BOB), exposed=None) for path, entry in every.items()}
        for every in (listing.entries, listing.boot_files)
    )
    mixed = replace(listing, entries=entries, boot_files=boot)
    waiting = only(assemble(mixed, rules=replace(UEC, users=USERS)))
    assert isinstance(waiting, Waiting)
    assert waiting.reason.startswith("ntdetect.com in win-bootfiles/")
    assert "win-bootfiles/ntdetect.com belongs to bob, the set win to alice" in waiting.reason
    own = {path: replace(entry, owner=ALICE) for path, entry in boot.items()}
    assert ready(assemble(replace(mixed, boot_files=own), rules=replace(UEC, users=USERS))).owner == ALICE


def test_files_of_a_finished_set_leave_with_their_folders(tmp_path: Path) -> None:
    (tmp_path / "win").mkdir()
    lay(tmp_path, {"win/disk.img": MBR, "win/bootfiles/ntldr": "", "win/bootfiles/ntdetect.com": ""})
    listing = scan.scan(tmp_path, now=NOW, seen=0.0)
    files = ready(assemble(listing, rules=UEC)).files
    leaving = [LeavingFile(str(tmp_path), path, listing.stamp(path), "delete") for path in files]
    assert not any(
        "/" in path and entry.kind == "file"
        for path, entry in without_leaving(listing, leaving).boot_files.items()
    )
    archive.discard(tmp_path, [(path, listing.stamp(path)) for path in files])
    assert list(tmp_path.iterdir()) == []
