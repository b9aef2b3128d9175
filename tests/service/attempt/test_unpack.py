"""The note of what was unpacked: read as it was written, and nothing else is taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uecwatchd.service.attempt.unpack import Unpacked, read_note, write_note

NAMES = st.lists(st.text(max_size=9), max_size=4).map(tuple)


@given(NAMES, st.integers(0, 1 << 50), NAMES)
def test_a_note_is_read_as_it_was_written(
    files: tuple[str, ...], size: int, passed_over: tuple[str, ...]
) -> None:
    unpacked = Unpacked(files, size, passed_over)
    assert read_note(write_note(unpacked)) == unpacked


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"version": 2}', b'{"version": 1}', b'{"version": 1, "files": 3}', b"\xff"]
)
def test_what_is_no_note_is_not_taken_for_one(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (of any kind: the archive is then unpacked again)
        read_note(data)
