"""Changes of a cloud's table in the configuration file, as text: its comments are its documentation."""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from uecwatchd.config.documents import Malformed, parse_toml
from uecwatchd.errors import Halted

HIDDEN = {"secret_key"}


def with_settings(text: str, cloud: str, *, given: Mapping[str, str], elsewhere: Collection[str]) -> str:
    """Return the text of a configuration with these settings of a cloud.

    Each is written where its example is, else at the head of the table. Those in `elsewhere` become comments,
    because they are given in another way. Raises Halted if the text is not one that can be changed by lines.
    """
    before, table, after = _divided(text, cloud)
    for key in elsewhere:
        table = [_as_comment(line, key) for line in table]
    for key, value in given.items():
        _place(table, key, f"{key} = {json.dumps(value, ensure_ascii=False)}")
    changed = "".join(f"{line}\n" for line in (*before, *table, *after))
    _check(text, changed, cloud, given, elsewhere)
    return changed


def _divided(text: str, cloud: str) -> tuple[list[str], list[str], list[str]]:
    """Return the lines before a cloud's table, of the table with its header, and after it."""
    lines = text.splitlines()
    start = next((n for n, line in enumerate(lines) if _is_header(line, cloud)), None)
    if start is None:
        return [*lines, ""], [f"[cloud.{cloud}]"], []
    tables = (n for n, line in enumerate(lines[start + 1 :], start + 1) if re.match(r"\s*\[", line))
    end = next(tables, len(lines))
    return lines[:start], lines[start:end], lines[end:]


def _is_header(line: str, cloud: str) -> bool:
    """Return True for the header of a table of this cloud. It may have blanks and quotes: [ cloud."a" ]."""
    if not line.lstrip().startswith("["):
        return False
    try:
        return _tables(line) == {"cloud": {cloud: {}}}
    except Malformed:
        return False


def _as_comment(line: str, key: str) -> str:
    if not re.match(_assigned(key), line):
        return line
    return f'#{key} = "…"' if key in HIDDEN else f"#{line}"


def _place(table: list[str], key: str, line: str) -> None:
    for pattern in (_assigned(key), rf"#{key}\s*="):
        for number, there in enumerate(table):
            if re.match(pattern, there):
                table[number] = line
                return
    table.insert(1, line)


def _assigned(key: str) -> str:
    """Return the pattern of a line with a value for this key, quoted or not."""
    return rf"""\s*(["']?){key}\1\s*="""


def _check(text: str, changed: str, cloud: str, given: Mapping[str, str], elsewhere: Collection[str]) -> None:
    """Raise Halted if anything but the wanted settings has another value now."""
    try:
        wanted = _tables(text)
    except Malformed as error:
        hint = "Correct this, then run `uecwatchd setup` again."
        raise Halted("the configuration", str(error), hint) from None
    own = wanted.setdefault("cloud", {}).setdefault(cloud, {})
    own.update(given)
    for key in elsewhere:
        own.pop(key, None)
    if wanted != _tables_or_none(changed):
        lines = ", ".join(f"{key} = {json.dumps(value)}" for key, value in given.items())
        why = f"its table [cloud.{cloud}] cannot be changed line by line"
        raise Halted("the configuration", why, f"Write into it yourself: {lines}")


def _tables(text: str) -> dict[str, Any]:
    return parse_toml(text.encode())


def _tables_or_none(text: str) -> dict[str, Any] | None:
    """Return None for a text with mistakes. Their places would not be those of the file that is there."""
    try:
        return _tables(text)
    except Malformed:
        return None
