"""The texts of errors, which name what others wrote."""

import pytest

from uecwatchd.errors import LONGEST_TEXT_CHARS, Rejected


@pytest.mark.parametrize("size", [10, 100_000])
def test_errors_have_a_maximum_length(size: int) -> None:
    error = Rejected("x" * size, "y" * size, "z" * size)
    assert len(str(error)) <= 3 * (LONGEST_TEXT_CHARS + 3)
