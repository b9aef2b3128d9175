"""A folder that holds as much as there is space for, decided in little memory, by what of it was read."""

import random
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.sizes import MIB
from tests.support.spool_files import ALICE, BOB, dropped, flood, image
from uecwatchd.errors import UecError
from uecwatchd.images.file_facts import Facts
from uecwatchd.intake.sets.assemble import assemble
from uecwatchd.intake.sets.records import FolderUsers, Rules
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool import scan
from uecwatchd.types import FileStamp

pytestmark = pytest.mark.exhaustive

RULES = Rules(1.0, Sidecar(), {"default": frozenset()}, {"default": frozenset()}, frozenset({"default"}))


def test_a_refusal_keeps_its_words_and_nothing_that_led_to_it(tmp_path: Path) -> None:
    (tmp_path / "karmic.toml").write_bytes(b"share = [1]")
    (tmp_path / "karmic.sha256").write_bytes(b"nothing")
    (tmp_path / "lucid.img").symlink_to("/etc/shadow")
    (tmp_path / "closed").mkdir()
    listing = scan.scan(tmp_path, now=0.0)
    for _ in range(3):
        assembly = assemble(replace(listing, now=100.0), rules=RULES)
    errors = [*listing.sidecars.values(), *listing.checksums.values(), *(r.error for r in assembly.refused)]
    assert len(errors) == 4
    for error in errors:
        assert isinstance(error, UecError)
        assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)


def test_a_set_with_unread_files_waits_for_a_moment_and_is_not_reported(tmp_path: Path) -> None:
    image(tmp_path, "karmic")
    (tmp_path / "lucid.img").write_bytes(b"x")
    listing = replace(scan.scan(tmp_path, now=0.0), now=100.0)
    for unread in ("karmic.img", "karmic.toml"):
        found = assemble(replace(listing, unread=frozenset({unread})), rules=RULES)
        (wait,) = [wait for wait in found.waiting if wait.name == "karmic"]
        assert (wait.brief, wait.ready_at) == (True, 100.0)


def test_what_has_no_sidecar_waits_until_all_that_could_name_it_were_read(tmp_path: Path) -> None:
    (tmp_path / "lucid.img").write_bytes(b"x" * MIB)
    (tmp_path / "private.toml").write_text('machine = "lucid.img"\npublic = false\n')
    listing = replace(scan.scan(tmp_path, now=0.0), now=100.0, unread=frozenset({"private.toml"}))
    found = assemble(replace(listing, sidecars={}), rules=RULES)
    assert {wait.name for wait in found.waiting} == {"lucid", "private"}
    assert not found.ready


def test_assembling_reports_progress_for_each_name_and_each_set(tmp_path: Path) -> None:
    flood(tmp_path, 20)
    for number in range(10):
        (tmp_path / f"{number}.toml~").touch()
    beats: list[None] = []
    found = assemble(scan.scan(tmp_path, now=0.0), rules=RULES, progressed=lambda: beats.append(None))
    assert len(beats) >= 50 + len(found.ready) + len(found.waiting) + len(found.refused)


def test_a_sidecar_of_another_owner_that_is_not_read_yet_holds_nothing(tmp_path: Path) -> None:
    dropped(tmp_path, "a.img", b"x" * MIB, ALICE)
    dropped(tmp_path, "b.toml", b"", BOB)
    unread = frozenset({"b.toml"})
    listing = replace(scan.scan(tmp_path, now=0.0), now=100.0, unread=unread, sidecars={})
    for users, is_held in ((None, True), (FolderUsers(frozenset({0})), False)):
        found = assemble(listing, rules=replace(RULES, users=users))
        assert any(w.name == "a" and "to be read" in w.reason for w in found.waiting) == is_held


def test_names_by_the_thousand_are_compared_in_little_memory(tmp_path: Path) -> None:
    letters = random.Random(0)  # noqa: S311 (names, not keys)
    names = ["".join(letters.choices("abcdefghijklmnopqrstuvwxyz_", k=240)) for _ in range(2500)]
    entry = scan.Entry("", "file", MIB, FileStamp(1, 1, MIB, 7), 0.0)
    entries = {f"{name}.img": replace(entry, name=f"{name}.img") for name in names}
    entries["lone.toml"] = replace(entry, name="lone.toml")
    facts = Facts("mbr", "machine", None, "disk", None, None)
    facts_by_path = {path: facts for path in entries if path.endswith(".img")}
    listing = scan.Listing(tmp_path, 100.0, entries, {}, facts_by_path, {"lone.toml": Sidecar()}, {})
    tracemalloc.start()
    try:
        assert len(assemble(listing, rules=RULES).ready) == 2500
        assert tracemalloc.get_traced_memory()[1] < 100 * MIB
    finally:
        tracemalloc.stop()
