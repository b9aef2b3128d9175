"""A folder of real files, scanned and assembled as a daemon does it, for the tests of names."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from uecwatchd.cli.status import rows
from uecwatchd.intake.sets.assemble import assemble
from uecwatchd.intake.sets.records import FolderSets, Rules
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool import scan
from uecwatchd.types import FileStamp

NOW = 100.0
# A whole disk of one partition, as small as its table allows.
MBR = (
    bytes(0x1BE) + bytes([0x80, 0, 0, 0, 0x83, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0]) + bytes(48) + b"\x55\xaa"
).ljust(4096, b"\0")
# A cloud that boots a disk alone: where nothing else is waited for, only names and sidecars hold a set.
ALONE = Rules(
    5.0,
    Sidecar(),
    {"default": frozenset({"kernel"})},
    {"default": frozenset()},
    frozenset({"default"}),
)


def lay(folder: Path, files: Mapping[str, bytes | str]) -> None:
    """Write files, and their folders."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def decided(folder: Path) -> FolderSets:
    return assemble(scan.scan(folder, now=NOW, seen=0.0), rules=ALONE)


def rows_in(folder: Path) -> tuple[rows.Row, ...]:
    listing = scan.scan(folder, now=NOW, seen=0.0)
    return rows.rows(listing, assemble(listing, rules=ALONE), rows.LedgerFacts(NOW))


def row_of(folder: Path, name: str) -> rows.Row:
    return next(row for row in rows_in(folder) if row.name == name)


def again(folder: Path, taken: Mapping[str, Sequence[tuple[str, FileStamp]]]) -> FolderSets:
    """Assemble as after a scan in which the sets in `taken` were finished."""
    return assemble(scan.scan(folder, now=NOW, seen=0.0), rules=ALONE, taken=taken)
