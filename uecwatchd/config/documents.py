"""Documents that others wrote: parsing of TOML and JSON, with every mistake as a sentence.

The configuration, the sidecars and the checksum files use this.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from itertools import islice
from tomllib import TOMLDecodeError
from tomllib import loads as toml_loads
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from uecwatchd.system.text import quoted, shorten

if TYPE_CHECKING:  # it takes longer to import than a command that needs none of it takes to run
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

KeyPath = tuple[str | int, ...]  # position of a value in a document: table names, keys, list indexes
# Below three letters too many words begin alike.
PREFIX_LETTERS = 3
# People correct a few mistakes at a time, and a hostile file contains ten thousand.
MISTAKES_SHOWN = 10
# Names from elsewhere that a comparison of letters would not find.
OTHER_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "amd64": "x86_64",
        "x64": "x86_64",
        "i586": "i386",
        "i686": "i386",
        "x86": "i386",
        "pv": "paravirtual",
        "initrd": "ramdisk",
        "initramfs": "ramdisk",
        "image": "machine",
        "eucalyptus": "uec",
    }
)
_TOML_POSITION = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")
# Room for ten mistakes. A parser may quote a key of 64 KiB, and each letter of it may become ten.
MALFORMED_SHOWN_CHARS = 2000


class Malformed(ValueError):
    """Malformed text. The message has place and reason, without a full stop.

    `machines` are the images that a sidecar with mistakes names.
    """

    machines: tuple[str, ...] = ()

    def __init__(self, why: str) -> None:
        super().__init__(why if len(why) <= MALFORMED_SHOWN_CHARS else f"{why[:MALFORMED_SHOWN_CHARS]}…")


class NoTable(Malformed):
    """JSON that is not an object."""


def decode(data: bytes) -> str:
    """Decode UTF-8, with or without the byte order mark of Windows editors."""
    try:
        return data.decode().removeprefix("\ufeff")  # the codec utf-8-sig would count offsets from behind it
    except UnicodeDecodeError as error:
        why = f"not UTF-8 text (byte 0x{data[error.start]:02x} at offset {error.start})"
        raise Malformed(why) from error


def parse_toml(data: bytes) -> dict[str, Any]:
    """Parse TOML. Raises `Malformed` for every failure, also for limits of Python itself."""
    text = decode(data)
    try:
        return toml_loads(text)
    except TOMLDecodeError as error:
        raise Malformed(_place_of_error(str(error), text)) from error
    except RecursionError as error:
        raise Malformed("nested too deeply") from error
    except ValueError as error:  # Python refuses to convert integers of more than 4300 digits
        raise Malformed("a number has too many digits") from error


def _place_of_error(message: str, text: str) -> str:
    position = _TOML_POSITION.search(message)
    if position is None:
        return message
    line, column = position["line"], position["column"]
    if line is None:
        line, column = text.count("\n") + 1, len(text) - text.rfind("\n")
    return f"line {line}, column {column}: {message[: position.start()]}"


def parse_json(data: bytes) -> dict[str, Any]:
    """Parse one JSON object. Raises `Malformed`, also for a repeated key and for the NaN of Python."""
    text = decode(data)
    try:
        table = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        json.dumps(table, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise Malformed(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except UnicodeEncodeError as error:  # half of a surrogate pair, as "\\ud800" gives it
        raise Malformed("an escape is no character") from error
    except RecursionError as error:
        raise Malformed("nested too deeply") from error
    except Malformed:
        raise
    except ValueError as error:
        raise Malformed("a number has too many digits") from error
    if not isinstance(table, dict):
        raise NoTable("must be one JSON object, in braces")
    return table


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise Malformed(f"{quoted(key)} is given twice")
        table[key] = value
    return table


def _refuse_constant(word: str) -> None:
    raise Malformed(f"{word} is no JSON value")


# --- the words of mistakes --------------------------------------------------------------------------------


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the one of the `known` words that was probably meant, if any is similar."""
    words = tuple(known)
    other = OTHER_WORDS.get(word.lower())
    if other in words:
        return other
    longer = [one for one in words if len(word) >= PREFIX_LETTERS and one.startswith(word.lower())]
    close = longer if len(longer) == 1 else get_close_matches(word.lower(), words, n=1)
    return next(iter(close), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean settle?)`, or an empty text if no word is similar."""
    near = nearest(word, known)
    return f" (did you mean {near}?)" if near else ""


def dotted(path: KeyPath) -> str:
    """Write `("spool", "folders", 0)` as `spool.folders[0]`."""
    words = (f"[{part}]" if isinstance(part, int) else f".{shorten(part)}" for part in path)
    return "".join(words).removeprefix(".")


def join_first(sentences: Iterable[str]) -> str:
    """Join the first mistakes, or names, into one line. The text of the others is not even made."""
    first = list(islice(sentences, MISTAKES_SHOWN + 1))
    return "; ".join([*first[:MISTAKES_SHOWN], *(["and more"] if len(first) > MISTAKES_SHOWN else [])])


def word_mistakes(
    error: "ValidationError", *, noun: str, known: Callable[[KeyPath], Iterable[str]]
) -> Iterator[tuple[KeyPath, str]]:
    """Describe each of pydantic's errors, without its input: that might be a secret.

    `noun` is what the document calls a key; `known` lists the keys of the table at a path. Yields (path,
    sentence without full stop) in pydantic's order.
    """
    for details in error.errors(include_url=False):
        yield details["loc"], _word_mistake(details, noun=noun, known=known)


def _word_mistake(details: "ErrorDetails", *, noun: str, known: Callable[[KeyPath], Iterable[str]]) -> str:
    path, kind, context = details["loc"], details["type"], details.get("ctx", {})
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown {noun} {dotted(path)}{did_you_mean(str(path[-1]), known(path[:-1]))}"
    if kind == "literal_error":
        return f"{dotted(path)} {_not_listed(details['input'], context['expected'])}"
    # pydantic adds "[key]" if the key itself is wrong and not its value, and gives no place for a key that is
    # not Unicode.
    place = dotted(path[:-1] if path[-1:] == ("[key]",) else path) or "a name"
    return f"{place} {_WORDS.get(kind, 'is not acceptable').format(**context)}"


def _not_listed(value: object, expected: str) -> str:
    """Name the allowed words. They are never secret, so the wrong word is shown."""
    words = re.findall(r"'([^']+)'", expected)
    choices = f"{', '.join(words[:-1])} or {words[-1]}"
    if not isinstance(value, str):
        return f"must be {choices}, in quotes"
    return f"= {quoted(value)} must be {choices}{did_you_mean(value, words)}"


_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "bool_parsing": "must be true or false",
        "bool_type": "must be true or false",
        "dataclass_type": "must be a table",
        "dict_type": "must be a table",
        "finite_number": "must be a finite number",
        "float_parsing": "must be a number",
        "float_type": "must be a number",
        "greater_than": "must be more than {gt:g}",
        "greater_than_equal": "must be at least {ge:g}",
        "int_from_float": "must be a whole number",
        "int_parsing": "must be a whole number",
        "int_parsing_size": "must be a smaller number",
        "int_type": "must be a whole number",
        "less_than_equal": "must be at most {le:g}",
        "path_type": "must be text in quotes",
        "string_too_long": "is longer than {max_length} characters",
        "string_too_short": "must not be empty",
        "string_type": "must be text in quotes",
        "string_unicode": "is not valid Unicode",
        "too_long": "must not have more than {max_length} entries",
        "too_short": "must not be empty",
        "tuple_type": "must be a list",
        "value_error": "{error}",
    }
)
