"""Headers of tar archives: ustar, GNU and pax, with the three ways in which they describe sparse files.

Formats are from POSIX (pax, "ustar Interchange Format" and "pax Extended Header Block") and from GNU tar's
manual ("Basic Tar Format", "Storing Sparse Files"). Nothing here reads a file; numbers are limited before
anything of their size is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass

BLOCK_BYTES = 512
ZERO_BLOCK = bytes(BLOCK_BYTES)
# Twice as many stretches as an image is ever read in, which is what the map of a large disk has.
MOST_STRETCHES = 1 << 18
# ext4 and XFS have smaller limits for most sizes of block; nothing is computed with larger numbers.
MOST_BYTES = 1 << 60
_OLD_SPARSE_AT, _OLD_SPARSE_COUNT, _MORE_SPARSE_COUNT = 386, 4, 21
_OLD_SPARSE_MORE_AT, _OLD_SPARSE_SIZE_AT = 482, 483
_ENTRY_BYTES = 24  # of a sparse map in a header: two numbers of 12 characters

# Stretches with data: offset in the file, and length, in bytes.
Stretches = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Header:
    """One header block. `stored` is the number of bytes behind it; `block` is the block itself."""

    name: bytes
    kind: bytes
    stored: int
    link: bytes
    block: bytes


def parse_header(block: bytes) -> Header:
    """Parse a header block. Raises ValueError if it is none."""
    if len(block) < BLOCK_BYTES:
        raise ValueError("its end is missing")
    declared = parse_number(block[148:156])
    computed = sum(block[:148]) + 8 * 0x20 + sum(block[156:])
    if declared != computed:
        raise ValueError("a header in it has a wrong checksum")
    name, prefix = _text(block[:100]), b""
    if block[257:263] == b"ustar\0":  # GNU's own format has other fields there
        prefix = _text(block[345:500])
    name = prefix + b"/" + name if prefix else name
    return Header(name, block[156:157], parse_number(block[124:136]), _text(block[157:257]), block)


def parse_number(field: bytes) -> int:
    """Parse a number: octal digits, or bytes of a binary number behind a mark. Raises ValueError."""
    if field[:1] == b"\x80":
        number = int.from_bytes(field[1:])
    elif field[:1] == b"\xff":
        raise ValueError("a number in it is negative")
    else:
        digits = _text(field).strip(b" ")
        if digits.strip(b"01234567"):
            raise ValueError("a number in it is not octal")
        number = int(digits or b"0", 8)
    return limited(number)


def limited(number: int) -> int:
    """Return a size. Raises ValueError if no file can have it."""
    if not 0 <= number <= MOST_BYTES:
        raise ValueError("a size in it is out of range")
    return number


def parse_pax(data: bytes) -> list[tuple[bytes, bytes]]:
    """Parse the records of a pax header: "LENGTH KEY=VALUE" and a newline each. Raises ValueError."""
    records, at = [], 0
    while at < len(data):
        if not data[at]:  # padding, as some programs write it
            break
        space = data.find(b" ", at, at + 20)
        length = decimal(data[at:space]) if space > 0 else 0
        record = data[space + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        if at + length > len(data) or not record.endswith(b"\n") or not equals:
            raise ValueError("an extended header in it is damaged")
        records.append((key, value))
        at += length
    return records


def decimal(text: bytes) -> int:
    """Parse a decimal number of ASCII digits. Raises ValueError."""
    if not text.isdigit() or len(text) > 19:
        raise ValueError("a number in it is not decimal")
    return limited(int(text))


# --- sparse files -----------------------------------------------------------------------------------------


def old_gnu_map(block: bytes, *, is_first: bool) -> tuple[list[tuple[int, int]], bool]:
    """Return the stretches in a header of type "S" or in a block behind it.

    The second value is True if more blocks follow.

    Raises ValueError.
    """
    start, count = (_OLD_SPARSE_AT, _OLD_SPARSE_COUNT) if is_first else (0, _MORE_SPARSE_COUNT)
    more = block[_OLD_SPARSE_MORE_AT if is_first else count * _ENTRY_BYTES]
    places = range(start, start + count * _ENTRY_BYTES, _ENTRY_BYTES)
    entries = (block[at : at + _ENTRY_BYTES] for at in places)
    found = [(parse_number(entry[:12]), parse_number(entry[12:])) for entry in entries if entry[0]]
    return found, more not in b"\0"


def old_gnu_size(block: bytes) -> int:
    """Return the size of the sparse file in a header of type "S". Raises ValueError."""
    return parse_number(block[_OLD_SPARSE_SIZE_AT : _OLD_SPARSE_SIZE_AT + 12])


def pax_map(records: list[tuple[bytes, bytes]]) -> list[tuple[int, int]] | None:
    """Return the stretches in the records of versions 0.0 and 0.1, None if there are none.

    Raises ValueError.
    """
    values: Mapping[bytes, bytes] = dict(records)
    if b"GNU.sparse.map" in values:
        return _pairs(values[b"GNU.sparse.map"].split(b",", 2 * MOST_STRETCHES + 1))
    numbers = [value for key, value in records if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes")]
    return _pairs(numbers) if numbers else None


def _pairs(numbers: list[bytes]) -> list[tuple[int, int]]:
    if len(numbers) % 2 or len(numbers) > 2 * MOST_STRETCHES:
        raise ValueError("the map of a sparse file in it is damaged")
    found = [decimal(number) for number in numbers]
    return list(zip(found[::2], found[1::2], strict=True))


def checked_stretches(found: list[tuple[int, int]], *, size: int, stored: int) -> Stretches:
    """Return the stretches with data of a sparse file. Raises ValueError if they cannot be its own."""
    end = total = 0
    for offset, length in found:
        if offset < end or offset + length > size:
            raise ValueError("the map of a sparse file in it is damaged")
        end, total = offset + length, total + length
    if total != stored or len(found) > MOST_STRETCHES:
        raise ValueError("the map of a sparse file in it is damaged")
    return tuple((offset, length) for offset, length in found if length)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]
