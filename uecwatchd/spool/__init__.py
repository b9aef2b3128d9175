"""Everything that is read from a drop folder or written to it.

Input and output without rules: what a listing means is decided in `imageset`.

Everything is reached through a descriptor of the folder and without following links, because the people who
may write to a spool are not the people whose rights the daemon has.
"""

from uecwatchd.spool.contents import Budget, Peek, peek_at
from uecwatchd.spool.door import (
    KIND_WORDS,
    EntryKind,
    Stamp,
    changed,
    digest,
    folder_descriptor,
    not_regular,
    open_below,
    open_member,
    stamp_of,
    user_name,
)
from uecwatchd.spool.kinds import CHECKSUM_SUFFIXES, SIDECAR_SUFFIXES, is_sidecar, is_sums
from uecwatchd.spool.lease import open_for_writing
from uecwatchd.spool.listing import NOT_UTF8, Entry, Listing, scan
from uecwatchd.spool.lock import LOCK_NAME, Occupied, hold, holder_of, is_held
from uecwatchd.spool.output import (
    OUTPUT_SUFFIXES,
    Taken,
    append,
    check_free,
    is_output,
    name_taken,
    output_stem,
    place,
    remove,
    sweep,
    taken_words,
)
from uecwatchd.spool.passed_over import ENDINGS, SYSTEM_NAMES, UNFINISHED, ignored_by
from uecwatchd.spool.retire import archive, discard

__all__ = [
    "CHECKSUM_SUFFIXES",
    "ENDINGS",
    "KIND_WORDS",
    "LOCK_NAME",
    "NOT_UTF8",
    "OUTPUT_SUFFIXES",
    "SIDECAR_SUFFIXES",
    "SYSTEM_NAMES",
    "UNFINISHED",
    "Budget",
    "Entry",
    "EntryKind",
    "Listing",
    "Occupied",
    "Peek",
    "Stamp",
    "Taken",
    "append",
    "archive",
    "changed",
    "check_free",
    "digest",
    "discard",
    "folder_descriptor",
    "hold",
    "holder_of",
    "ignored_by",
    "is_held",
    "is_output",
    "is_sidecar",
    "is_sums",
    "name_taken",
    "not_regular",
    "open_below",
    "open_for_writing",
    "open_member",
    "output_stem",
    "peek_at",
    "place",
    "remove",
    "scan",
    "stamp_of",
    "sweep",
    "taken_words",
    "user_name",
]
