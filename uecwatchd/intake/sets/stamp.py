"""The stamp of a set: a digest of the stamps of its files."""

import hashlib
import json
from collections.abc import Iterable

from uecwatchd.intake.sets.declared_sums import DeclaredSums
from uecwatchd.intake.spool.scan import Listing


def set_stamp(listing: Listing, paths: Iterable[str], sums: DeclaredSums | None = None) -> str:
    """Return a stamp of the files and their shared sums: it changes if a file may have changed."""
    shared = sums.shared if sums else ()
    seen = {path: listing.stamp(path) for path in paths if path not in shared}
    stamps: list[object] = [*sorted(seen.items())]
    if sums and shared:
        stamps.append(sorted(sums.digests.items()))
    return hashlib.sha256(json.dumps(stamps).encode()).hexdigest()[:32]
