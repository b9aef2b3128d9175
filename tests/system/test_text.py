import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uecwatchd.system.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("karmic é 漢", "karmic é 漢"),
        ("a\nSTOPPING=1", r"a\nSTOPPING=1"),
        ("\x1b[2Jx", r"\x1b[2Jx"),
        ("gpj\u202eexe", r"gpj\u202eexe"),
        ("\udcff", r"\udcff"),
    ],
    ids=["letters", "newline", "escape", "direction", "not utf-8"],
)
def test_characters_that_could_forge_output_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
@settings(max_examples=200)
def test_printable_text_is_one_line_that_can_be_written(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown.encode().decode() == shown
