"""The texts of errors, which name what others wrote."""

import pytest

from uecwatchd.errors import LONGEST_TEXT_CHARS, Rejected


@pytest.mark.parametrize("size", [10, 100_000])
def test_no_error_is_longer_than_anybody_reads(size: int) -> None:
    error = Rejected("x" * size, "y" * size, "z" * size)
    assert len(str(error)) <= 3 * (LONGEST_TEXT_CHARS + 3)
