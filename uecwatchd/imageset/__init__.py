"""The rules that turn a listing of a drop folder into sets. Rules without input or output.

A set arrives in one of four forms: a sidecar naming files; files of one stem; a folder; or a loose machine
image beside a kernel and a ramdisk of one version.
The order of arrival never matters, and ambiguity is never guessed at: what is not plain is refused in words.
"""

from uecwatchd.imageset.assemble import assemble
from uecwatchd.imageset.draft import is_a_set, stem_of
from uecwatchd.imageset.outcome import (
    ROLE_WORDS,
    Assembly,
    ImageSet,
    Member,
    Misfit,
    People,
    Refused,
    Rules,
    Waiting,
    being_written,
    put_back,
)

__all__ = [
    "ROLE_WORDS",
    "Assembly",
    "ImageSet",
    "Member",
    "Misfit",
    "People",
    "Refused",
    "Rules",
    "Waiting",
    "assemble",
    "being_written",
    "is_a_set",
    "put_back",
    "stem_of",
]
