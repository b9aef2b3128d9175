"""Parameters of a test that each generation of cloud has its own answer to."""

from typing import Any

import pytest

from uecwatchd.sandbox.rules.generations import RULES


def over(**table: Any) -> pytest.MarkDecorator:
    """Run a test for each `generation`, with what the table has for it as `expected`."""
    assert table.keys() == RULES.keys()
    return pytest.mark.parametrize(("generation", "expected"), table.items(), ids=table)
