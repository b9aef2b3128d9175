"""Names in a spool folder that are never images, on files with the content of real disks."""

from pathlib import Path

import pytest

from tests.support.scanned_folder import MBR, decided, row_of, rows_in
from uecwatchd.intake.spool import ignored


@pytest.mark.parametrize(
    "folder",
    [
        *(
            "#recycle",
            "#Recycle",
            "#snapshot",
            "@Recycle",
            "@Recently-Snapshot",
            "@tmp",
            "@eaDir",
            "@sharesnap",
        ),
        *(
            "$RECYCLE.BIN",
            "RECYCLER",
            "Recycled",
            "Trash",
            "trashbox",
            "Recycle Bin",
            ".Trash-1000",
            ".Trashes",
        ),
        *("__MACOSX", "__macosx", "System Volume Information", "SYSTEM VOLUME INFORMATION", "~snapshot"),
        *("Network Trash Folder", "Temporary Items", ".TemporaryItems", ".snapshot", ".stversions", ".zfs"),
        *("Network Recycle Bin 1", "Recycle Bin - ann", "homes recycle.bin", "RecycleBin_2", "my trash can"),
        *("Papierkorb", "Corbeille", "PAPELERA DE RECICLAJE"),
        *(
            "recycle",
            "Recycle",
            "_Recycle",
            "RECYCLE (2)",
            "Recycled Files",
            "Trashes",
            "--Trash--",
            "Trash Bin",
        ),
        *("Deleted", "deleted_files", "DeletedItems", "Recently Deleted", "Deleted 2024", "trashed"),
        *(
            "Snapshots",
            "snapshot",
            "_snapshots_",
            "Previous Versions",
            "previous-version",
            "PreviousVersions",
        ),
        *("@S2S", "#trash", "~trash", "$WinREAgent", "FOUND.000", "lost+found", "TheVolumeSettingsFolder"),
    ],
)
def test_folders_that_a_system_keeps_for_itself_are_no_sets(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "disk.img").write_bytes(MBR)
    (tmp_path / folder / "image.toml").write_text("")
    assert not decided(tmp_path).ready
    assert row_of(tmp_path, folder).state == "ignored"
    assert "its name matches" in row_of(tmp_path, folder).detail


@pytest.mark.parametrize(
    "folder",
    [
        *(
            "deleted-user-portal",
            "snapshot-2024-01-01",
            "web-snapshot",
            "recycle-shop",
            "bin",
            "files",
            "box",
        ),
        *("versions", "previous", "recycling", "trashed-panda", "undeleted"),
    ],
)
def test_a_folder_of_a_set_may_have_a_system_word_in_its_name(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "disk.img").write_bytes(MBR)
    assert [found.name for found in decided(tmp_path).ready] == [folder]


@pytest.mark.parametrize(
    "name", ["@home.img", "#1.img", "recycle.img", "trash.raw", "snapshot.img", "deleted.img", "~a.img"]
)
def test_an_image_may_have_a_name_that_folders_of_systems_begin_with(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(MBR)
    assert [member.path for found in decided(tmp_path).ready for member in found.members] == [name]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "web.raw.b1c2d3e4.partial",
            "web.img.part",
            "web.img.PART",
            "web.img.crdownload",
            "web.img.download",
        ),
        *("web.img.opdownload", "web.img.!ut", "web.img.bc!", "web.img.!qB", "web.img.aria2", "web.img.st"),
        *("web.img.lftp-pget-status", "web.img.filepart", "web.img.tmp", "web.img.TMP", "web.img.crswap"),
        *(
            "db.raw.bak",
            "db.raw.BAK",
            "db.raw.orig",
            "db.raw.old",
            "db.raw.old.1",
            "db.raw.bak-2026",
            "db.raw.save",
        ),
        *("db.raw.dpkg-old", "db.raw.ucf-dist", "db.raw.rpmsave", "db.raw~", "db.raw.~1~", ".db.raw.swp"),
        *("web.sync-conflict-20261128-101010-ABCDEFG.img", "web (Ann's conflicted copy 2026-11-28).img"),
        *(
            "web_conflict-20261128-101010.img",
            "~$web.img",
            "#web.img#",
            "Thumbs.db",
            "desktop.ini",
            "web.EMI",
        ),
    ],
)
def test_unfinished_and_backup_files_of_tools_are_ignored(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(MBR)
    assert not decided(tmp_path).ready
    assert [(row.name, row.state) for row in rows_in(tmp_path)] == [(name, "ignored")]


@pytest.mark.parametrize(
    ("name", "more"),
    [
        *(
            ("x.img.1", ".1"),
            ("x.qcow2.mine", ".mine"),
            ("x.raw-journal", "-journal"),
            ("x.img.6eF3b2cA", ".6ef3b2ca"),
        ),
        *(
            ("X.IMG.2", ".2"),
            ("x.img_saved", "_saved"),
            ("x.img (2)", " (2)"),
            ("x.vmdk.2026-11-28", ".2026-11-28"),
        ),
    ],
)
@pytest.mark.parametrize("place", ["", "set/"])
def test_content_makes_no_image_of_a_name_that_goes_on_behind_an_ending(
    tmp_path: Path, name: str, more: str, place: str
) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / (place + name)).write_bytes(MBR)
    assert not decided(tmp_path).ready
    row = row_of(tmp_path, place + name)
    assert row.state == "misfit"
    assert f"goes on with {more} behind the ending" in row.detail


@pytest.mark.parametrize("name", ["ubuntu-9.10", "web", "web.disk1", "web.20261128", "web-2.0.1-amd64"])
def test_content_makes_an_image_of_a_name_without_an_ending(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(MBR)
    assert [found.name for found in decided(tmp_path).ready] == [name]


def test_a_file_that_a_sidecar_names_is_taken_whatever_stands_behind_its_ending(tmp_path: Path) -> None:
    (tmp_path / "web.img.1").write_bytes(MBR)
    (tmp_path / "web.toml").write_text('machine = "web.img.1"')
    assert [found.name for found in decided(tmp_path).ready] == ["web"]


def test_the_last_good_disk_beside_one_that_was_set_aside_is_taken(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for name in ("disk.img", "disk.img.1", "disk.img.bak"):
        (tmp_path / "set" / name).write_bytes(MBR)
    (found,) = decided(tmp_path).ready
    assert [member.path for member in found.members] == ["set/disk.img"]


def test_patterns_of_the_user_are_compared_as_they_are_written() -> None:
    assert ignored.ignored_by("a.mine", ("*.mine",)) == "*.mine"
    assert ignored.ignored_by("a.MINE", ("*.mine",)) is None
