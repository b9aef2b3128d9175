"""What a file is, and what it can serve as, told from its first bytes, then from its name.

Nothing here opens a file: bytes and names in, facts and reasons out.
"""

from uecwatchd.image.content import HEAD_BYTES, TAIL_BYTES, Arch, Facts, Layout, Role, sniff
from uecwatchd.image.fitness import amount, unfit
from uecwatchd.image.names import arch_by_name, composed, folded, role_by_name, version_by_name

__all__ = [
    "HEAD_BYTES",
    "TAIL_BYTES",
    "Arch",
    "Facts",
    "Layout",
    "Role",
    "amount",
    "arch_by_name",
    "composed",
    "folded",
    "role_by_name",
    "sniff",
    "unfit",
    "version_by_name",
]
