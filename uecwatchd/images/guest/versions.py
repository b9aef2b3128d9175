"""The order of versions, as the package managers of Debian and Red Hat sort them.

Digits are compared as numbers, so that 2.6.9 is before 2.6.31. A release candidate is before its release.
"""

import re

PIECE = re.compile(r"(\D*)(\d*)")
# "-rc8" and ".rc8" of the kernel's own numbering, and "~" of Debian's: before the end of the same text.
CANDIDATE = re.compile(r"[-.~]rc(?=\d)")
BEFORE_END, END, OTHER = -1, 0, 0x110000  # above all letters

VersionOrder = tuple[tuple[tuple[int, ...], int], ...]


def version_order(version: str) -> VersionOrder:
    """Return a key for sorting versions: deb-version(7), "Sorting algorithm"."""
    marked = CANDIDATE.sub("~rc", version)
    # The end of a piece without digits is before a letter, and "~" before that end. The last match is empty:
    # an end that compares like one.
    return tuple(((*map(_rank, text), END), int(digits or 0)) for text, digits in PIECE.findall(marked))


def _rank(char: str) -> int:
    if char == "~":
        return BEFORE_END
    return ord(char) if char.isalpha() else ord(char) + OTHER


def release_numbers(version: str) -> str:
    """Return the part of a kernel's version before its flavour: "6.1.0-9" of "6.1.0-9-cloud-amd64"."""
    found = re.match(r"\d+(?:[-.]\d+)*(?:[-.~]rc\d+)?(?:[-.]\d+)*", version)
    return found[0] if found else version
