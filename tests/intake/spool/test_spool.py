import gzip
import os
import socket
import stat
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from uecwatchd.errors import Deferred, NotPermitted, Rejected, UecError
from uecwatchd.images.file_facts import Facts
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool import archive, folder_lease, ignored, output_files, safe_open, scan
from uecwatchd.intake.spool.folder_lease import HOST_WORD_CHARS, FolderLease, host_word
from uecwatchd.system import lockfile
from uecwatchd.types import FileStamp


def test_a_listing_has_files_and_what_is_one_folder_down(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(b"x")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "b.img").write_bytes(b"yy")
    (tmp_path / "set" / "deep").mkdir()
    (tmp_path / "set" / "deep" / "c.img").write_bytes(b"zzz")
    listing = scan.scan(tmp_path, now=1.0)
    assert {path: (e.kind, e.size) for path, e in listing.entries.items() if e.kind == "file"} == {
        "a.img": ("file", 1),
        "set/b.img": ("file", 2),
    }


def test_a_listing_tells_what_files_say_of_themselves(tmp_path: Path) -> None:
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", tmp_path / "a.img", "4m"], check=True)
    (tmp_path / "a.toml").write_text('name = "x-{sha8}"')
    (tmp_path / "b.toml").write_text("nonsense")
    (tmp_path / "a.sha256").write_text(f"{'ab' * 32}  a.img\n")
    listing = scan.scan(tmp_path, now=1.0)
    content = listing.facts["a.img"]
    assert isinstance(content, Facts)
    assert (content.format, content.role) == ("ext4", "machine")
    assert isinstance(listing.sidecars["a.toml"], Sidecar)
    assert isinstance(listing.sidecars["b.toml"], UecError)
    assert listing.checksums["a.sha256"] == {"a.img": "ab" * 32}


def test_a_file_keeps_its_age_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(b"x")
    first = scan.scan(tmp_path, now=1.0)
    assert scan.scan(tmp_path, now=5.0, before=first).entries["a.img"].since == 1.0
    with path.open("ab") as file:
        file.write(b"y")
    assert scan.scan(tmp_path, now=9.0, before=first).entries["a.img"].since == 9.0


def test_forged_modification_times_make_no_file_older(tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(b"x")
    first = scan.scan(tmp_path, now=1.0)
    os.utime(path, (0, 0))
    assert scan.scan(tmp_path, now=9.0, before=first).entries["a.img"].since == 9.0


def test_unchanged_files_are_not_read_again(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(b"x")
    (tmp_path / "a.toml").write_text("")
    first = scan.scan(tmp_path, now=1.0)
    second = scan.scan(tmp_path, now=2.0, before=first)
    assert second.facts["a.img"] is first.facts["a.img"]
    assert second.sidecars["a.toml"] is first.sidecars["a.toml"]


@pytest.mark.parametrize(
    "name",
    [
        *(
            ".hidden",
            "a.img.part",
            "x.tmp",
            "a.filepart",
            "a.crdownload",
            "a~",
            "._a",
            "@eaDir",
            "lost+found",
        ),
        *("a.uec.log", "a.uec.json", "a.uec.error", "a.emi", "a.eki", "a.eri", "done", "notes.bak"),
    ],
)
def test_names_of_unfinished_copies_and_of_our_outputs_are_passed_over(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    listing = scan.scan(tmp_path, now=1.0, ignore=("*.bak",))
    assert not listing.entries
    assert name in listing.ignored


def test_patterns_of_the_user_add_to_the_built_in_ones() -> None:
    assert ignored.ignored_by("a.part", ("*.bak",)) == "*.part"
    assert ignored.ignored_by("a.bak", ("*.bak",)) == "*.bak"
    assert ignored.ignored_by("a.img", ("*.bak",)) is None


def test_a_name_that_is_not_utf8_is_passed_over_and_said(tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.img"))).write_bytes(b"x")
    listing = scan.scan(tmp_path, now=1.0)
    assert not listing.entries
    assert listing.ignored == {r"\xff.img": "a name that is not UTF-8"}


def test_a_link_is_never_followed(tmp_path: Path) -> None:
    (tmp_path / "a.img").symlink_to("/etc/hostname")
    (tmp_path / "d").symlink_to("/etc")
    listing = scan.scan(tmp_path, now=1.0)
    assert {e.name: e.kind for e in listing.entries.values()} == {"a.img": "symlink", "d": "symlink"}
    for path in ("a.img", "d/hostname"):
        with pytest.raises(Rejected), safe_open.open_member(tmp_path, path):
            pass


def test_a_link_put_in_place_of_a_folder_after_the_scan_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "set").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.img").write_bytes(b"x")
    with pytest.raises(UecError), safe_open.open_member(tmp_path, "set/a.img"):
        pass


def test_a_pipe_without_a_writer_does_not_block_a_scan(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.img")
    with pytest.raises(Rejected, match="a named pipe"), safe_open.open_member(tmp_path, "a.img"):
        pass


def test_a_folder_put_in_place_of_a_file_after_the_scan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.img").mkdir()
    with pytest.raises(Rejected, match="it is a folder"), safe_open.open_member(tmp_path, "a.img"):
        pass


def test_a_disk_error_while_reading_is_temporary() -> None:
    folder = Path("/sys/class/net/lo").resolve()  # whose speed is a regular file that nobody can read
    status = (folder / "speed").stat()
    with pytest.raises(Deferred, match=r"speed: cannot read it: Invalid argument"):
        safe_open.digest(folder, "speed", stamp=FileStamp.of(status))


def test_a_socket_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "a.img"))
        with pytest.raises(Rejected, match="a socket"), safe_open.open_member(tmp_path, "a.img"):
            pass


def test_a_file_we_may_not_read_names_the_chmod(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    (tmp_path / "a.img").write_bytes(b"x")
    (tmp_path / "a.img").chmod(0o600)
    (tmp_path / "set").mkdir(mode=0o700)
    request.getfixturevalue("as_nobody")
    listing = scan.scan(tmp_path, now=1.0)
    content, folder = listing.facts["a.img"], listing.facts["set"]
    assert isinstance(content, Rejected)
    assert (content.why, content.hint) == ("mode 0600, owner root", "Try: chmod g+r a.img")
    assert isinstance(folder, Rejected)
    assert folder.hint == "Try: chmod g+rx set"


def test_a_spool_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    with pytest.raises(Deferred, match="mkdir"):
        scan.scan(tmp_path / "none", now=1.0)


def test_a_spool_that_may_not_be_listed_is_named(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    (tmp_path / "s").mkdir(mode=0o700)
    request.getfixturevalue("as_nobody")
    with pytest.raises(NotPermitted, match="chgrp"):
        scan.scan(tmp_path / "s", now=1.0)


def test_a_digest_is_only_given_for_what_was_listed(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(b"")
    stamp = scan.scan(tmp_path, now=1.0).entries["a.img"].stamp
    assert safe_open.digest(tmp_path, "a.img", stamp=stamp).startswith("e3b0c442")
    (tmp_path / "a.img").write_bytes(b"x")
    with pytest.raises(Deferred, match="changed"):
        safe_open.digest(tmp_path, "a.img", stamp=stamp)


def test_a_compressed_disk_that_changes_while_it_is_unpacked_is_no_damaged_one(tmp_path: Path) -> None:
    packed = tmp_path / "a.img.gz"
    packed.write_bytes(gzip.compress(os.urandom(4 << 20), 1))
    stamp = FileStamp.of(packed.stat())
    assert safe_open.digest(tmp_path, packed.name, "disk", stamp=stamp)

    def cut() -> None:
        os.truncate(packed, 1 << 20)

    with pytest.raises(Deferred, match="it changed while it was read"):
        safe_open.digest(tmp_path, packed.name, "disk", stamp=stamp, check=cut)


def test_an_output_is_replaced_whole_and_is_not_for_the_world(tmp_path: Path) -> None:
    output_files.place(tmp_path, "a.uec.json", b"old and longer")
    output_files.place(tmp_path, "a.uec.json", b"new")
    assert (tmp_path / "a.uec.json").read_bytes() == b"new"
    assert (tmp_path / "a.uec.json").stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["a.uec.json"]


def test_an_output_never_replaces_a_file_of_somebody_else(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "a.emi").symlink_to(target)
    (tmp_path / "b.emi").mkdir()
    (tmp_path / "c.emi").write_text("planted")
    os.chown(tmp_path / "c.emi", 65534, 65534)
    for name in ("a.emi", "b.emi", "c.emi"):
        for act in (
            lambda n: output_files.place(tmp_path, n, b"x"),
            lambda n: output_files.append(tmp_path, n, "x"),
        ):
            with pytest.raises(Rejected, match="not the service's"):
                act(name)
        with pytest.raises(Rejected):
            output_files.remove(tmp_path, name)
    assert target.read_text() == "precious"
    assert (tmp_path / "c.emi").read_text() == "planted"


def test_an_output_that_does_not_fit_is_deferred_and_leaves_nothing_half_written(small_disk: Path) -> None:
    output_files.place(small_disk, "a.uec.json", b"first")
    with pytest.raises(Deferred, match="No space left"):
        output_files.place(small_disk, "a.uec.json", b"x" * (2 << 20))
    assert (small_disk / "a.uec.json").read_bytes() == b"first"
    assert [path.name for path in small_disk.iterdir()] == ["a.uec.json"]


def test_half_written_outputs_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    for name in (".a.emi.uec.0123abcd", ".b.emi.uec.0123abcd", ".a.img.Xy12", "a.emi"):
        (tmp_path / name).write_text("x")
    os.chown(tmp_path / ".b.emi.uec.0123abcd", 65534, 65534)
    output_files.sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a.img.Xy12", ".b.emi.uec.0123abcd", "a.emi"]


def test_half_written_outputs_of_other_hosts_stay_in_a_folder_of_several(tmp_path: Path) -> None:
    names = [".a.emi.uec.here.0123abcd", ".a.emi.uec.there.0123abcd", ".a.emi.uec.0123abcd"]
    for name in names:
        (tmp_path / name).write_text("x")
    folder_lease.enter(tmp_path, FolderLease("here"))
    try:
        output_files.sweep(tmp_path)
    finally:
        folder_lease.leave(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names[1:])
    output_files.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [], "a folder of this host alone"


def test_nothing_is_written_in_a_folder_whose_lease_is_over(tmp_path: Path) -> None:
    def end() -> None:
        raise Deferred("the lease", "is over", "")

    output_files.place(tmp_path, "a.emi", b"before")
    folder_lease.enter(tmp_path, FolderLease("here", end))
    try:
        for write in (
            lambda: output_files.place(tmp_path, "a.emi", b"after"),
            lambda: output_files.place(tmp_path, "b.emi", b"after"),
            lambda: output_files.append(tmp_path, "a.emi", "after"),
            lambda: output_files.append(tmp_path, "c.emi", "after"),
            lambda: output_files.remove(tmp_path, "a.emi"),
        ):
            with pytest.raises(Deferred, match="is over"):
                write()
    finally:
        folder_lease.leave(tmp_path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.emi", b"before")]


@pytest.mark.parametrize(
    ("host", "word"),
    [
        ("builder1", "builder1"),
        ("builder.example.com", "builder-exampl-"),
        ("build-host-of-the-team-one", "build-host-of-"),
        ("ümlaut", "-mlaut-"),
    ],
)
def test_each_host_has_a_word_for_names_of_files(host: str, word: str) -> None:
    found = host_word(host)
    assert found.startswith(word[:13])
    assert len(found) <= HOST_WORD_CHARS
    assert output_files.UNFINISHED.fullmatch(f".a.emi.uec.{found}.0123abcd")["host"] == found  # type: ignore[index]
    assert found != host_word(f"{host}2")


def _with_stamps(folder: Path, *paths: str) -> list[tuple[str, FileStamp]]:
    return [(path, FileStamp.of((folder / path).stat())) for path in paths]


def test_finished_files_are_archived_by_day_and_nothing_is_replaced(tmp_path: Path) -> None:
    when = datetime(2026, 11, 22, tzinfo=UTC)
    for content in ("one", "two"):
        (tmp_path / "a.img").write_text(content)
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "disk").write_text(content)
        archive.archive(tmp_path, _with_stamps(tmp_path, "a.img", "set/disk"), when=when)
    day = tmp_path / "done" / "2026" / "11" / "22"
    assert (day / "a.img").read_text() == "one"
    assert (day / "a.img.1").read_text() == "two"
    assert (day / "set" / "disk.1").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["done"], "an emptied folder goes with its files"


def test_a_planted_archive_is_not_used(tmp_path: Path) -> None:
    evil, drop = tmp_path / "evil", tmp_path / "spool"
    evil.mkdir()
    drop.mkdir()
    (drop / "a.img").write_text("x")
    (drop / "done").symlink_to(evil)
    files = _with_stamps(drop, "a.img")
    with pytest.raises(Deferred, match="cannot archive"):
        archive.archive(drop, files, when=datetime(2026, 11, 22, tzinfo=UTC))
    assert not list(evil.iterdir())
    (drop / "done").unlink()
    (drop / "done").mkdir()
    os.chown(drop / "done", 65534, 65534)
    with pytest.raises(Deferred, match="not the service's"):
        archive.archive(drop, files, when=datetime(2026, 11, 22, tzinfo=UTC))
    assert (drop / "a.img").exists()


def test_a_file_that_has_changed_since_is_not_archived_and_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_text("x")
    files = _with_stamps(tmp_path, "a.img")
    (tmp_path / "a.img").write_text("another")
    archive.discard(tmp_path, files)
    archive.archive(tmp_path, files, when=datetime(2026, 11, 22, tzinfo=UTC))
    assert (tmp_path / "a.img").exists()
    archive.discard(tmp_path, _with_stamps(tmp_path, "a.img"))
    assert not (tmp_path / "a.img").exists()


def test_a_log_is_added_to(tmp_path: Path) -> None:
    output_files.append(tmp_path, "a.uec.log", "one\n")
    output_files.append(tmp_path, "a.uec.log", "zwei ä\n")
    assert (tmp_path / "a.uec.log").read_text() == "one\nzwei ä\n"


@pytest.mark.parametrize("length", [1, 200, 201, 255])
def test_outputs_of_the_longest_names_can_be_written(tmp_path: Path, length: int) -> None:
    stem = output_files.output_stem("ä" * (length // 2) + "x" * (length % 2))
    output_files.place(tmp_path, f"{stem}.uec.error", b"x")


def test_long_names_that_begin_alike_have_different_outputs() -> None:
    assert output_files.output_stem("x" * 240 + "a") != output_files.output_stem("x" * 240 + "b")


def test_only_one_daemon_has_the_lock_of_a_spool_folder(tmp_path: Path) -> None:
    lock = output_files.lock_spool(tmp_path)
    with pytest.raises(Deferred, match="another uecwatchd watches this folder"):
        output_files.lock_spool(tmp_path)
    lockfile.release(lock or 0)
    lockfile.release(output_files.lock_spool(tmp_path) or 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
def test_a_device_is_recognised_without_being_opened(tmp_path: Path) -> None:
    # No driver has this number: opening it fails with ENXIO, as with a socket.
    os.mknod(tmp_path / "a.img", stat.S_IFCHR | 0o666, os.makedev(240, 99))
    with pytest.raises(Rejected) as caught, safe_open.open_member(tmp_path, "a.img"):
        pass
    assert caught.value.what == "a.img: it is a device"


def test_who_may_write_to_a_file_is_looked_up_at_each_look(tmp_path: Path) -> None:
    (tmp_path / "karmic.img").write_bytes(b"x")
    before = scan.scan(tmp_path, now=1.0)
    earlier = replace(before.entries["karmic.img"], exposed="somebody who has left the group since")
    after = scan.scan(tmp_path, now=2.0, before=replace(before, entries={"karmic.img": earlier}))
    assert after.entries["karmic.img"] == before.entries["karmic.img"]
