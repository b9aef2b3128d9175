"""Can an ext file system be changed from outside, without its kernel? Its superblock tells.

Format: "ext4 Data Structures and Algorithms" in the documentation of Linux, section 2.4.
"""

from dataclasses import dataclass

from uecwatchd.images.block_source import BlockSource, read_exactly
from uecwatchd.images.guest.ext import SUPERBLOCK_AT, SUPERBLOCK_BYTES

CLEAN, WITH_ERRORS, WITH_ORPHANS = 1, 2, 4
NEEDS_RECOVERY, MULTIPLE_MOUNT = 0x4, 0x100  # incompatible features
QUOTA, READ_ONLY, SHARED_BLOCKS, ORPHAN_FILE_USED = 0x100, 0x1000, 0x4000, 0x10000  # for writers
BOOT_AND_HALT = "Boot the image once, shut it down, and drop it again; or repair its file system with e2fsck."
BY_HAND = "Prepare the image by hand, and leave prepare = true out."


@dataclass(frozen=True, slots=True)
class ExtState:
    """Fields of a superblock that matter for a change."""

    problem: str  #: why the file system cannot be changed; empty if it can
    hint: str  #: what to do then
    block_bytes: int
    written: int  #: when it was last written, in seconds of the epoch


def read_ext_state(source: BlockSource) -> ExtState:
    """Read the superblock of an ext file system. Raises OSError."""
    block = read_exactly(source, SUPERBLOCK_AT, SUPERBLOCK_BYTES).ljust(SUPERBLOCK_BYTES, b"\0")

    def number(at: int, width: int = 4) -> int:
        return int.from_bytes(block[at : at + width], "little")

    state, needed, for_writers = number(0x3A, 2), number(0x60), number(0x64)
    problem, hint = "", BOOT_AND_HALT
    if needed & NEEDS_RECOVERY:
        problem = "its journal has changes that are not in it yet: it was not shut down"
    elif not state & CLEAN:
        problem = "it was not unmounted: the guest was not shut down"
    elif state & WITH_ERRORS:
        problem = "its kernel has found errors in it"
    elif state & WITH_ORPHANS or number(0xE8) or for_writers & ORPHAN_FILE_USED:
        problem = "it has files that are half deleted: the guest was not shut down"
    elif name := _unsupported(needed, for_writers):
        problem, hint = f"it has the feature {name}, which does not allow this", BY_HAND
    return ExtState(problem, hint if problem else "", 1024 << (number(0x18) & 0xF), number(0x30))


def _unsupported(needed: int, for_writers: int) -> str:
    if needed & MULTIPLE_MOUNT:
        return "mmp"
    names = {QUOTA: "quota", READ_ONLY: "read-only", SHARED_BLOCKS: "shared_blocks"}
    return next((name for bit, name in names.items() if for_writers & bit), "")
