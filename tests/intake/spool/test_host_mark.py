"""The mark of the service that has a folder."""

import os
from pathlib import Path

import pytest

from tests.support.host import NOBODY
from uecwatchd.errors import Halted
from uecwatchd.intake.spool.host_mark import (
    STALE_SECONDS,
    HostMark,
    find_mark,
    place_mark,
    read_mark,
    remove_mark,
    write_mark,
)
from uecwatchd.intake.spool.output_files import MARK_NAME
from uecwatchd.intake.spool.safe_open import folder_descriptor
from uecwatchd.system.lockfile import LockTaken


def mark(ledger: str = "a's", host: str = "a") -> HostMark:
    return HostMark(ledger, host, "/srv/images")


def found_in(folder: Path) -> HostMark | None:
    with folder_descriptor(folder) as descriptor:
        found = find_mark(descriptor)
    return found.mark if found else None


def grow_stale(folder: Path) -> None:
    then = (folder / MARK_NAME).stat().st_mtime - STALE_SECONDS
    os.utime(folder / MARK_NAME, (then, then))


def test_what_is_written_is_read() -> None:
    assert read_mark(write_mark(mark())) == mark()


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"version": 2}', b'{"version": 1, "host": "a"}', b"\xff"]
)
def test_anything_else_is_no_mark(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (of JSON, of text, or our own)
        read_mark(text)


def test_a_folder_is_marked_and_nothing_else_stays_there(tmp_path: Path) -> None:
    place_mark(tmp_path, mark())
    place_mark(tmp_path, mark())
    assert found_in(tmp_path) == mark()
    assert [path.name for path in tmp_path.iterdir()] == [MARK_NAME]


def test_the_service_of_another_ledger_is_kept_out_with_the_name_of_the_first_one(tmp_path: Path) -> None:
    place_mark(tmp_path, mark())
    with pytest.raises(LockTaken, match=r"uecwatchd on host a \(/srv/images\) has renewed its mark"):
        place_mark(tmp_path, mark("b's", "b"))
    assert found_in(tmp_path) == mark()
    assert [path.name for path in tmp_path.iterdir()] == [MARK_NAME]


def test_a_host_with_the_same_ledger_may_mark_the_folder_as_well(tmp_path: Path) -> None:
    place_mark(tmp_path, mark("share", "a"))
    place_mark(tmp_path, mark("share", "b"))
    assert found_in(tmp_path) == mark("share", "b")


def test_the_mark_of_a_dead_service_is_replaced(tmp_path: Path) -> None:
    place_mark(tmp_path, mark())
    grow_stale(tmp_path)
    place_mark(tmp_path, mark("b's", "b"))
    assert found_in(tmp_path) == mark("b's", "b")


def test_a_mark_that_makes_no_sense_counts_while_it_is_fresh(tmp_path: Path) -> None:
    (tmp_path / MARK_NAME).write_text("?")
    with pytest.raises(LockTaken, match="a uecwatchd has renewed"):
        place_mark(tmp_path, mark())
    grow_stale(tmp_path)
    place_mark(tmp_path, mark())
    assert found_in(tmp_path) == mark()


def test_only_ones_own_mark_is_removed(tmp_path: Path) -> None:
    place_mark(tmp_path, mark())
    remove_mark(tmp_path, mark("b's", "b"))
    assert found_in(tmp_path) == mark()
    remove_mark(tmp_path, mark())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_the_owner_of_the_folder_takes_the_mark_of_another_user_for_planted(tmp_path: Path) -> None:
    (tmp_path / MARK_NAME).write_bytes(write_mark(mark("b's", "b")))
    os.chown(tmp_path / MARK_NAME, NOBODY, NOBODY)
    place_mark(tmp_path, mark())
    assert found_in(tmp_path) == mark()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_a_service_with_another_uid_is_refused_with_both_uids(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    (tmp_path / MARK_NAME).write_bytes(write_mark(mark("share", "b")))
    os.chown(tmp_path / MARK_NAME, NOBODY, NOBODY)
    with pytest.raises(Halted) as refused:
        place_mark(tmp_path, mark("share", "a"))
    assert "uecwatchd on host b works there as nobody (uid 65534)" in str(refused.value)
    assert "this one runs as uid 0" in str(refused.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_no_link_is_followed_to_a_mark(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "elsewhere").write_bytes(write_mark(mark("share", "a")))
    (tmp_path / "spool" / MARK_NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LockTaken):
        place_mark(tmp_path / "spool", mark("share", "b"))
    assert read_mark((tmp_path / "elsewhere").read_bytes()).host == "a"
