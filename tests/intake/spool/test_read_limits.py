"""The most that one scan reads and keeps, in memory and in time, and how owners share it."""

import gc
import itertools
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.metadata import WORST
from tests.support.spool_files import ALICE, BOB, dropped, flood
from uecwatchd.errors import Deferred, Rejected
from uecwatchd.intake.spool import safe_open, scan
from uecwatchd.intake.spool.contents import Contents, ReadBudget, read_contents


def kept_bytes(look: Callable[[], object]) -> tuple[object, int]:
    """Return the result of a scan, and the memory that it keeps."""
    gc.collect()
    tracemalloc.start()
    try:
        found = look()
        gc.collect()
        return found, tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", WORST)
def test_little_of_the_largest_metadata_is_kept(tmp_path: Path, kind: str) -> None:
    suffix, data = WORST[kind]
    (tmp_path / f"karmic{suffix}").write_bytes(data)
    scan.scan(tmp_path, now=0.0)  # or what parsers remember of their first time would count
    _, kept = kept_bytes(lambda: scan.scan(tmp_path, now=0.0))
    most = 6 * len(data) if kind.startswith("good") else 20 * 1024
    assert kept < most


def ticking() -> Callable[[], float]:
    """A clock that a second passes on at each look at it."""
    ticks = itertools.count()
    return lambda: float(next(ticks))


def linked(folder: Path, data: bytes) -> scan.Listing:
    """A look at one file of metadata that has 36 names."""
    (folder / "0.toml").write_bytes(data)
    for name in [*(f"{number}.toml" for number in range(1, 35)), "other.json"]:
        (folder / name).hardlink_to(folder / "0.toml")
    return scan.scan(folder, now=0.0)


def test_each_inode_is_read_once_for_all_its_names(tmp_path: Path) -> None:
    found = linked(tmp_path, b'name = "one"').sidecars
    (read,) = {id(said) for path, said in found.items() if path != "other.json"}
    assert id(found["0.toml"]) == read
    assert isinstance(found["other.json"], Rejected), "another ending is another way to read it"


def test_what_is_wrong_with_an_inode_is_reported_for_each_of_its_names(tmp_path: Path) -> None:
    errors = linked(tmp_path, b"public = 1").sidecars
    assert len(errors) == 36
    for path, error in errors.items():
        assert isinstance(error, Rejected)
        assert error.what == f"{path}: it cannot be used"
    assert len({id(e.why) for p, e in errors.items() if isinstance(e, Rejected) and p != "other.json"}) == 1


def test_a_scan_stops_reading_at_its_time_limit_and_the_next_ones_continue(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number}.img").write_bytes(b"x")
    listing, looks = None, 0
    while listing is None or listing.unread:
        budget = ReadBudget(seconds=10.0, clock=ticking())
        listing = scan.scan(tmp_path, now=0.0, before=listing, budget=budget)
        looks += 1
        assert len(listing.facts) + len(listing.unread) == 50
    assert looks == 5


@pytest.mark.parametrize("which", ["the newest", "the oldest", "the smallest"])
def test_new_old_and_small_files_do_not_wait_for_the_rest(tmp_path: Path, which: str) -> None:
    names = [f"{number}.toml" for number in range(100)]
    mine = {"the newest": "99.toml", "the oldest": "0.toml", "the smallest": "50.toml"}[which]
    for name in names:
        (tmp_path / name).write_bytes(b"#" * (10 if name == "50.toml" else 1000))
        os.utime(tmp_path / name)
    budget = ReadBudget(seconds=5.0, clock=ticking())
    listing = scan.scan(tmp_path, now=0.0, budget=budget)
    assert mine in listing.sidecars
    assert len(listing.sidecars) < 10


def test_of_more_metadata_than_there_is_room_for_the_smallest_is_kept(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.toml").write_bytes(b"#" * 1000)
    (tmp_path / "small.toml").write_bytes(b"#")
    budget = ReadBudget(kept=10_000)
    first = scan.scan(tmp_path, now=0.0, budget=budget)
    again = scan.scan(tmp_path, now=0.0, before=first, budget=budget)
    for listing in (first, again):
        assert "small.toml" in listing.sidecars
        assert (len(listing.sidecars), len(listing.crowded), len(listing.unread)) == (10, 11, 0)
    for path in first.sidecars:
        (tmp_path / path).unlink()
    assert len(scan.scan(tmp_path, now=0.0, before=again, budget=budget).sidecars) == 10


def test_a_replaced_file_is_not_read_for_its_other_names(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "mine"')
    (tmp_path / "a.toml").hardlink_to(tmp_path / "mine.toml")
    entries = scan.scan(tmp_path, now=0.0).entries
    (tmp_path / ".forged").write_text('name = "forged"')
    (tmp_path / ".forged").rename(tmp_path / "a.toml")
    nothing = Contents({}, {}, {}, {}, frozenset(), frozenset())
    with safe_open.folder_descriptor(tmp_path) as descriptor:
        found = read_contents(descriptor, entries, before=nothing, same=(), budget=ReadBudget())
    assert all(isinstance(said, Deferred) for said in found.sidecars.values())


def test_a_scan_reports_progress_for_each_name_and_each_file(tmp_path: Path) -> None:
    flood(tmp_path, 20)
    beats: list[None] = []
    scan.scan(tmp_path, now=0.0, budget=ReadBudget(progressed=lambda: beats.append(None)))
    assert len(beats) == 2 * 40 + 5


def test_owners_take_turns_at_being_read(tmp_path: Path) -> None:
    for number in range(100):
        dropped(tmp_path, f"{number}.toml", b"#", BOB)
    for name in ("a.img", "a.toml", "b.img"):
        dropped(tmp_path, name, b"#" * 1000, ALICE)
    listing = scan.scan(tmp_path, now=0.0, budget=ReadBudget(seconds=7.0, clock=ticking()))
    assert {"a.img", "a.toml", "b.img"} <= {*listing.facts, *listing.sidecars}
    assert len(listing.unread) > 90


def test_the_owner_of_most_metadata_loses_some_of_it(tmp_path: Path) -> None:
    for number in range(100):
        dropped(tmp_path, f"{number}.toml", b"#" * 100, BOB)
    dropped(tmp_path, "a.toml", b"#" * 4000, ALICE)
    listing = scan.scan(tmp_path, now=0.0, budget=ReadBudget(kept=8000))
    assert "a.toml" in listing.sidecars
    assert len(listing.crowded) == 60


def test_the_owner_of_most_names_loses_some_of_them(tmp_path: Path) -> None:
    for number in range(100):
        dropped(tmp_path, f"bob{number}.img", b"", BOB)
    for name in ("alice.img", "alice.toml"):
        dropped(tmp_path, name, b"", ALICE)
    listing = scan.scan(tmp_path, now=0.0, budget=ReadBudget(names=50))
    assert len(listing.entries) == 50
    assert {"alice.img", "alice.toml"} <= listing.entries.keys()
    assert listing.left_out == {BOB: 52}


def test_folders_of_one_owner_leave_room_for_those_of_another(tmp_path: Path) -> None:
    for owner, count in ((BOB, 20), (ALICE, 1)):
        for folder in (tmp_path / f"{owner}-{number}" for number in range(count)):
            folder.mkdir()
            os.chown(folder, owner, owner)
            for number in range(10):
                (folder / f"{number}").touch()
    listing = scan.scan(tmp_path, now=0.0, budget=ReadBudget(names=100))
    assert f"{ALICE}-0" not in listing.facts
    assert sum(isinstance(content, Rejected) for content in listing.facts.values()) == 15
    assert len(listing.entries) == 21 + 60
