"""What a file is, and what it can serve as, told from its first bytes, then from its name.

Nothing here opens a file: bytes and names in, facts and reasons out.
"""

from uecwatchd.image.content import HEAD_BYTES, TAIL_BYTES, sniff
from uecwatchd.image.fitness import amount, is_floppy, unfit, unfit_together
from uecwatchd.image.look import Arch, Facts, Layout, Role
from uecwatchd.image.names import (
    arch_by_name,
    arches_by_name,
    composed,
    flavour_by_name,
    folded,
    is_loader,
    is_spare,
    is_versioned,
    pairing_by_name,
    proof_target,
    role_by_name,
    stems_by_name,
    sums_target,
    version_by_name,
)

__all__ = [
    "HEAD_BYTES",
    "TAIL_BYTES",
    "Arch",
    "Facts",
    "Layout",
    "Role",
    "amount",
    "arch_by_name",
    "arches_by_name",
    "composed",
    "flavour_by_name",
    "folded",
    "is_floppy",
    "is_loader",
    "is_spare",
    "is_versioned",
    "pairing_by_name",
    "proof_target",
    "role_by_name",
    "sniff",
    "stems_by_name",
    "sums_target",
    "unfit",
    "unfit_together",
    "version_by_name",
]
