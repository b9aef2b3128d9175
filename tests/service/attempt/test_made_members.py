"""A member that is made for a set: once for the same files, and again for others."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

from tests.support.image_set import FOUND
from tests.support.scanned_folder import MBR
from uecwatchd.intake.sets.origin import ArchiveMember
from uecwatchd.intake.sets.records import ImageSet, Member
from uecwatchd.service.attempt.made_members import make_member
from uecwatchd.types import FileStamp

SOURCE = FileStamp(1, 2, 3, 4)


def made(state: Path, found: ImageSet, writes: list[str]) -> Member:
    def write(file: BinaryIO) -> None:
        writes.append(found.stamp)
        file.write(MBR)

    return make_member(
        SimpleNamespace(found=found),
        SimpleNamespace(work_folder=state),
        role="machine",
        path="karmic.tar/karmic.img",
        origin=ArchiveMember("karmic.tar", SOURCE, "karmic.img"),
        write=write,
        needs_bytes=len(MBR),
    )


def test_a_member_is_made_once_for_the_same_files(tmp_path: Path) -> None:
    writes: list[str] = []
    first = made(tmp_path, FOUND, writes)
    assert made(tmp_path, FOUND, writes) == first
    assert writes == ["stamp"]
    assert (first.facts.layout, first.size) == ("disk", len(MBR))
    assert str(first.origin) == "karmic.img in karmic.tar"
    made(tmp_path, replace(FOUND, stamp="newer"), writes)
    assert writes == ["stamp", "newer"]
    assert len(list(tmp_path.rglob("karmic.img"))) == 1, "what was made of older files is gone"
