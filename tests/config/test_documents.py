import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uecwatchd.config.documents import (
    Malformed,
    did_you_mean,
    dotted,
    join_first,
    nearest,
    parse_json,
    parse_toml,
)

SIDECAR_KEYS = ("name", "machine", "kernel", "ramdisk", "arch", "virtualization", "on_existing", "sha256")


@pytest.mark.parametrize(
    ("text", "position"),
    [
        pytest.param('a = "x"\nb = \n', "line 2, column 5: ", id="no value"),
        pytest.param("a = [\n1,\n", "line 3, column 1: ", id="unclosed at the end"),
        pytest.param("a = 1\na = 2\n", "line 2, column 6: ", id="key twice"),
        pytest.param('a = "\x00"', "line 1, column 6: ", id="control character"),
    ],
)
def test_a_toml_error_names_line_and_column(text: str, position: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse_toml(text.encode())
    assert str(caught.value).startswith(position)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param('{"a": 1,\n}', "line 2, column 1: ", id="syntax"),
        pytest.param('{"a": 1, "a": 2}', '"a" is given twice', id="key twice"),
        pytest.param('{"a": {"b": 1, "b": 2}}', '"b" is given twice', id="inner key twice"),
        pytest.param('{"a": NaN}', "NaN is no JSON value", id="NaN"),
        pytest.param("[1]", "must be one JSON object", id="not an object"),
        pytest.param(r'{"a": "\ud800"}', "an escape is no character", id="half a surrogate pair"),
    ],
)
def test_bad_json_says_why(text: str, why: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse_json(text.encode())
    assert why in str(caught.value)


@pytest.mark.parametrize("parse", [parse_toml, parse_json])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"a=" + b"[" * 60_000, id="toml arrays"),
        pytest.param(b"[" * 60_000, id="json arrays"),
        pytest.param(b"a=" + b"1" * 5_000, id="toml digits"),
        pytest.param(b'{"a":' + b"1" * 5_000 + b"}", id="json digits"),
    ],
)
def test_a_document_that_exhausts_the_parser_is_malformed(parse, data: bytes) -> None:
    with pytest.raises(Malformed):
        parse(data)


def test_the_byte_order_mark_of_windows_editors_is_accepted() -> None:
    assert parse_toml(b"\xef\xbb\xbfa = 1\r\n") == {"a": 1}
    assert parse_json(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "with mark"])
def test_bytes_that_are_not_utf8_are_named_by_their_offset_in_the_file(mark: bytes) -> None:
    with pytest.raises(Malformed, match=f"byte 0xff at offset {len(mark) + 3}"):
        parse_toml(mark + b"ab=\xff")


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9) | st.booleans(), max_size=5))
@settings(max_examples=100)
def test_json_is_read_as_it_was_written(table: dict[str, object]) -> None:
    assert parse_json(json.dumps(table).encode()) == table


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("kernal", "kernel"),
        ("virt", "virtualization"),
        ("KERNEL", "kernel"),
        ("sha256sum", "sha256"),
        ("initrd", "ramdisk"),
        ("colour", None),
    ],
)
def test_a_misspelled_key_is_answered_with_the_nearest_one(word: str, meant: str | None) -> None:
    assert nearest(word, SIDECAR_KEYS) == meant
    assert did_you_mean(word, SIDECAR_KEYS) == (f" (did you mean {meant}?)" if meant else "")


def test_a_path_is_written_with_dots_and_brackets() -> None:
    assert dotted(("spool", "folders", 0)) == "spool.folders[0]"


def test_only_the_first_of_many_mistakes_are_described() -> None:
    worded = []

    def mistakes():
        for number in range(10_000):
            worded.append(number)
            yield f"mistake {number}"

    text = join_first(mistakes())
    assert text.endswith("; mistake 9; and more")
    assert len(worded) == 11
