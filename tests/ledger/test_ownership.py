"""Owners of names and images in the ledger, also in one from before it had them."""

import math
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.intake.sets.test_assemble import UEC
from tests.intake.sets.test_owners import (
    ALICE,
    BOB,
    NAMED,
    ROOT,
    SEPARATE,
    STEM,
    USERS,
    Files,
    decided,
    owned,
)
from tests.support.sizes import MIB
from uecwatchd.intake.sets.assemble import assemble
from uecwatchd.intake.sets.records import FolderSets
from uecwatchd.intake.spool import contents, scan
from uecwatchd.intake.spool.contents import Contents, read_contents
from uecwatchd.ledger import schema
from uecwatchd.ledger.migrations import MIGRATIONS
from uecwatchd.ledger.records import BundleRecord, MemberRecord, SetRecord, TargetImage, TargetRecord
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.service.file_removal import files_to_retire
from uecwatchd.service.policy import GONE
from uecwatchd.service.set_owners import find_new_owners, folder_history
from uecwatchd.service.set_states import SetStates
from uecwatchd.types import ContentDigest, SetId

FOLDER = Path("/spool")
BUNDLE = BundleRecord(
    "c",
    "b",
    "f" * 64,
    "machine",
    ContentDigest("ab" * 32),
    "p",
    "registered",
    image_id="emi-1",
    made_for=SetId("/spool", "web"),
    registered=1.0,
)
NOTHING = Contents({}, {}, {}, {}, frozenset(), frozenset())


def record_of(files: Files, *, owner: int | None = None, image_id: str = "emi-1") -> SetRecord:
    entry = owned(files).entries["web.img"]
    member = MemberRecord("machine", "web.img", MIB, entry.stamp)
    target = TargetRecord("c", images=(TargetImage("machine", image_id),))
    return SetRecord(
        SetId("/spool", "web"), "s", "done", 0.0, members=(member,), cloud="c", targets=(target,), owner=owner
    )


# --- a ledger of before -----------------------------------------------------------------------------------


def test_an_older_ledger_is_migrated_with_unknown_owners(tmp_path: Path) -> None:
    before = next(i for i, text in enumerate(MIGRATIONS) if "ADD COLUMN owner" in text)
    with closing(sqlite3.connect(tmp_path / schema.FILE_NAME)) as old:
        old.executescript(f"{' '.join(MIGRATIONS[:before])} PRAGMA user_version = {before};")
        old.execute(
            "INSERT INTO bundles (cloud, bucket, identity, role, sha256, prefix, state, parts, bundled_size,"
            " image_id, made_for, registered, objects) VALUES ('c', 'b', 'i', 'machine', ?, 'p',"
            " 'registered', 1, 1, 'emi-1', '/spool/web', 1.0, '[]')",
            (BUNDLE.digest,),
        )
        old.commit()
    with closing(open_ledger(tmp_path)) as book:
        (bundle,) = book.bundles("c")
        assert bundle.owner is None
        assert book.predecessor("emi-2", cloud="c", made_for=SetId("/spool", "web")) == bundle
        assert book.predecessor("emi-2", cloud="c", made_for=SetId("/spool", "web"), owner=BOB) is None


def test_a_set_of_an_older_ledger_belongs_to_the_owner_of_its_file(tmp_path: Path) -> None:
    with closing(open_ledger(tmp_path)) as book:
        book.put_set(record_of(STEM))
        book.put_bundle(BUNDLE)
        states, listing = SetStates(book), owned(STEM)
        owners, proven = find_new_owners(decided(STEM), listing, states.of_folder(FOLDER))
        assert (owners, proven) == ({"web": ALICE}, {"web"})
        assert states.put_owners(FOLDER, owners, proven)["web"].owner == ALICE
        assert book.sets()[0].owner == ALICE
        assert book.predecessor("emi-2", cloud="c", made_for=SetId("/spool", "web"), owner=ALICE)
        assert book.predecessor("emi-2", cloud="c", made_for=SetId("/spool", "web"), owner=BOB) is None


def test_another_owner_of_the_present_file_does_not_get_an_older_image() -> None:
    bobs: Files = {
        "shift.txt": (BOB, "text"),
        **{path: (BOB, content) for path, (_, content) in STEM.items()},
    }
    assert find_new_owners(decided(bobs), owned(bobs), {"web": record_of(STEM)}) == ({}, set())
    waiting = record_of(STEM, image_id="")
    assert find_new_owners(decided(bobs), owned(bobs), {"web": waiting}) == ({"web": BOB}, set())


# --- how long a name is somebody's ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({}, True),
        ({"reason": GONE}, True),  # its ids are there
        ({"targets": (), "state": "waiting", "reason": "a kernel"}, True),
        ({"targets": (), "state": "rejected"}, True),
        ({"targets": (), "reason": GONE}, False),
        ({"owner": None}, False),
        ({"owner": ROOT}, True),
        ({"owner": ROOT, "targets": (), "state": "waiting"}, False),  # for any member's image
    ],
)
def test_a_name_is_its_owners_while_files_or_ids_are_there(
    changes: dict[str, object], *, holds: bool
) -> None:
    record = replace(record_of(STEM, owner=ALICE), **changes)  # type: ignore[arg-type]
    assert ("web" in folder_history([record], USERS)["holders"]) is holds


def test_a_name_in_other_letters_is_the_same_name() -> None:
    files: Files = {"WEB.img": (BOB, "partition"), "WEB.toml": (BOB, b'kernel = "none"')}
    assembly = assemble(owned(files), rules=SEPARATE, holders={"web": ALICE})
    assert assembly == FolderSets(unmatched=assembly.unmatched)
    assert {misfit.path for misfit in assembly.unmatched} == set(files)


# --- what goes with a set, and what is shared -------------------------------------------------------------


def test_shared_files_of_root_do_not_leave_with_the_set_of_a_member() -> None:
    files: Files = {**NAMED, "vmlinuz-1": (ROOT, "kernel")}
    assembly = decided(files)
    records = {"web": SetRecord(SetId("/spool", "web"), assembly.ready[0].stamp, "done", 0.0)}
    gone = files_to_retire(owned(files), assembly, records, held=(), removal="delete")
    assert {one.path for one in gone} == {"web.toml", "base.img", "initrd-1"}
    alone = decided({path: (ROOT, content) for path, (_, content) in NAMED.items()})
    assert alone.ready[0].shared == ()


@pytest.mark.parametrize(
    "other",
    [
        {"b.toml": NAMED["web.toml"][1].replace(b"base.img", b"b.img")},  # it waits for its image
        {"b.toml": NAMED["web.toml"][1].replace(b"base.img", b"b.img"), "b.img": b"no disk"},
    ],
)
def test_a_kernel_that_an_unready_set_names_does_not_leave(other: Mapping[str, bytes]) -> None:
    files: Files = {**NAMED, **{path: (ALICE, content) for path, content in other.items()}}
    assembly = decided(files)
    records = {"web": SetRecord(SetId("/spool", "web"), assembly.ready[0].stamp, "done", 0.0)}
    gone = files_to_retire(owned(files), assembly, records, held=(), removal="delete")
    assert {one.path for one in gone} == {"web.toml", "base.img"}


def test_root_owned_sidecars_leave_with_the_image_whose_name_they_bear() -> None:
    files: Files = {
        **STEM,
        "web.toml": (ROOT, b"public = true"),
        "web.sha256": (ROOT, b"%b  web.img\n" % (b"0" * 64)),
    }
    (found,) = decided(files).ready
    assert {"web.toml", "web.sha256"} <= set(found.files)
    assert found.shared == ()


def test_there_are_no_owners_in_the_folder_of_one_team() -> None:
    (found,) = assemble(owned(STEM), rules=UEC).ready
    assert found.owner is None


@pytest.mark.parametrize("many", [200, 2000])
def test_limits_for_metadata_are_shared_between_owners(tmp_path: Path, many: int) -> None:
    """The largest, the oldest and the only one of alice's is kept beside what bob drops by the thousand."""
    (tmp_path / "web.toml").write_text(f'description = "{"x" * 200}"\n')
    os.chown(tmp_path / "web.toml", ALICE, ALICE)
    for number in range(many):
        (tmp_path / f"{number}.toml").write_text("public = true\n")
        os.chown(tmp_path / f"{number}.toml", BOB, BOB)
    found = scan.scan(tmp_path, now=0.0, budget=contents.ReadBudget(seconds=math.inf, kept=1000))
    assert "web.toml" in found.sidecars
    assert len(found.crowded) > many // 2
    ticks = iter(range(many))
    descriptor = os.open(tmp_path, os.O_RDONLY)
    budget = contents.ReadBudget(seconds=3, clock=lambda: next(ticks))
    try:
        read = read_contents(descriptor, found.entries, before=NOTHING, same=(), budget=budget)
    finally:
        os.close(descriptor)
    assert "web.toml" in read.sidecars
