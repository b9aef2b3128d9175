"""Tarballs as sets before anything is unpacked, by names, first bytes, and the files beside them."""

import hashlib
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.scanned_folder import ALONE, MBR, NOW, decided, lay
from tests.support.spool_files import ALICE, BOB
from uecwatchd.intake.sets.assemble import assemble
from uecwatchd.intake.sets.records import FolderSets, FolderUsers, ImageSet
from uecwatchd.intake.spool import scan


def pack(folder: Path, name: str, *options: str) -> str:
    """Pack a disk into a tarball, and return the sum of that."""
    (folder / "inside.img").write_bytes(MBR)
    subprocess.run(["tar", *options, "-caf", name, "inside.img"], cwd=folder, check=True)
    (folder / "inside.img").unlink()
    return hashlib.sha256((folder / name).read_bytes()).hexdigest()


def only_set(folder: Path) -> ImageSet:
    assembly = decided(folder)
    assert assembly.waiting == assembly.refused == ()
    (found,) = assembly.ready
    return found


def assembled(folder: Path, **rules: object) -> FolderSets:
    return assemble(scan.scan(folder, now=NOW, seen=0.0), rules=replace(ALONE, **rules))


@pytest.mark.parametrize(
    "name", ["k.tar", "k.tar.gz", "K.TGZ", "k.tar.bz2", "k.tbz2", "k.tar.xz", "k.tar.zst"]
)
def test_a_lone_tarball_is_a_set_with_the_name_before_its_ending(tmp_path: Path, name: str) -> None:
    pack(tmp_path, name.lower())
    (tmp_path / name.lower()).rename(tmp_path / name)
    found = only_set(tmp_path)
    assert (found.name.lower(), found.form, found.members, found.files) == ("k", "archive", (), (name,))
    assert found.packed
    assert found.packed.path == name


def test_its_sidecar_and_its_sums_are_beside_it(tmp_path: Path) -> None:
    digest = pack(tmp_path, "k.tar.gz")
    lay(tmp_path, {"k.toml": 'hypervisor = "xen"\n', "k.tar.gz.sha256": f"{digest}  k.tar.gz\n"})
    found = only_set(tmp_path)
    assert found.sidecar.hypervisor == "xen"
    assert found.checksums == {"k.tar.gz": digest}
    assert set(found.files) == {"k.toml", "k.tar.gz.sha256", "k.tar.gz"}
    (tmp_path / "k.tar.gz.sha256").rename(tmp_path / "SHA256SUMS")
    assert only_set(tmp_path).checksums == {"k.tar.gz": digest}


def test_a_change_of_the_tarball_or_of_its_sidecar_is_a_change_of_the_set(tmp_path: Path) -> None:
    pack(tmp_path, "k.tar")
    before = only_set(tmp_path).stamp
    lay(tmp_path, {"k.toml": "public = false\n"})
    between = only_set(tmp_path).stamp
    os.utime(tmp_path / "k.tar")
    assert len({before, between, only_set(tmp_path).stamp}) == 3


@pytest.mark.parametrize("name", ["k.img", "k/k.img"])
def test_files_that_are_there_unpacked_are_used_instead(tmp_path: Path, name: str) -> None:
    pack(tmp_path, "k.tar")
    lay(tmp_path, {name: MBR})
    assembly = decided(tmp_path)
    assert [member.path for member in assembly.ready[0].members] == [name]
    (left,) = assembly.unmatched
    assert (left.path, left.is_news) == ("k.tar", False)
    assert "unpacked" in left.reason


def test_a_sidecar_that_names_an_image_beside_it_is_not_about_a_tarball(tmp_path: Path) -> None:
    pack(tmp_path, "k.tar")
    lay(tmp_path, {"k.toml": 'machine = "web.img"\n', "web.img": MBR})
    (found,) = decided(tmp_path).ready
    assert (found.form, [member.path for member in found.members]) == ("sidecar", ["web.img"])


@pytest.mark.parametrize("name", ["trusty-server-root.tar.gz", "web-rootfs.tar.xz", "root.tar"])
def test_a_root_file_system_is_no_set(tmp_path: Path, name: str) -> None:
    pack(tmp_path, name)
    (left,) = decided(tmp_path).unmatched
    assert "Try: tar -xf" in left.reason


def test_two_tarballs_with_one_name_are_refused(tmp_path: Path) -> None:
    pack(tmp_path, "k.tar")
    pack(tmp_path, "k.tgz")
    (refused,) = decided(tmp_path).refused
    assert "k.tar and k.tgz are there" in str(refused.error)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>Not found</html>", "it is a text file"),
        (b"", "it is an empty file"),
        (MBR, "a partitioned disk"),
    ],
)
def test_what_is_no_tarball_is_refused_before_it_is_unpacked(
    tmp_path: Path, content: bytes, words: str
) -> None:
    lay(tmp_path, {"k.tar.gz": content})
    (refused,) = decided(tmp_path).refused
    assert words in str(refused.error)


def test_a_link_under_the_name_of_a_tarball_is_refused(tmp_path: Path) -> None:
    (tmp_path / "k.tar").symlink_to("/etc/passwd")
    (refused,) = decided(tmp_path).refused
    assert "a symbolic link" in str(refused.error)


def test_a_sidecar_called_after_the_tarball_itself_is_not_passed_over(tmp_path: Path) -> None:
    pack(tmp_path, "k.tar.gz")
    lay(tmp_path, {"k.tar.gz.toml": 'hypervisor = "xen"\n'})
    assembly = decided(tmp_path)
    assert not assembly.ready
    assert "k.toml" in " ".join([*(one.reason for one in assembly.waiting), *map(str, assembly.refused)])


def test_a_tarball_waits_until_it_is_known_what_its_cloud_requires(tmp_path: Path) -> None:
    pack(tmp_path, "k.tar")
    (waiting,) = assembled(tmp_path, strange={"default": "it is away"}).waiting
    assert waiting.reason == "cloud default to tell what it wants (it is away)"


def test_a_tarball_of_one_member_is_not_mixed_with_files_of_another(tmp_path: Path) -> None:
    pack(tmp_path, "k.tar")
    lay(tmp_path, {"k.toml": "public = false\n"})
    os.chown(tmp_path / "k.tar", ALICE, ALICE)
    os.chown(tmp_path / "k.toml", BOB, BOB)
    (tmp_path / "k.tar").chmod(0o640)
    assembly = assembled(tmp_path, users=FolderUsers(frozenset({0}), {ALICE: "alice", BOB: "bob"}.get))
    (found,) = assembly.ready
    assert (found.owner, found.files) == (ALICE, ("k.tar",))
    assert [left.path for left in assembly.unmatched] == ["k.toml"]


def test_a_tarball_of_root_is_no_members_set(tmp_path: Path) -> None:
    pack(tmp_path, "k.tar")
    lay(tmp_path, {"k.toml": "public = false\n"})
    os.chown(tmp_path / "k.toml", BOB, BOB)
    (found,) = assembled(tmp_path, users=FolderUsers(frozenset({0}), str)).ready
    assert (found.owner, found.files) == (0, ("k.tar",))
