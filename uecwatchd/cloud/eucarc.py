"""The eucarc file that comes with a cloud's credentials: read as text, never run as the shell script it is.

What is read of it: assignments, with or without `export`, one on a line or several; words bare, in single or
in double quotes; `$VAR`, `${VAR}` and `${VAR:-default}` of earlier assignments. The folder of the file itself
comes, from the oldest generation to the newest, as

    EUCA_KEY_DIR=$(dirname $(readlink -f ${BASH_SOURCE}))
    EUCA_KEY_DIR=$(cd $(dirname ${BASH_SOURCE:-$0}); pwd -P)

and a command that asks for the script's own place is therefore answered with its folder. With any other
command, the variable stays unset. Lines that do something else (aliases, `echo WARN…`) are passed over.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_STATEMENT = re.compile(r"[\s;]*(?:(?:export|declare\s+-x)\s+)?([A-Za-z_]\w*)=")
_VARIABLE = re.compile(r"\$(?:(?P<plain>\w+)|\{(?P<braced>\w+)(?::?-(?P<default>[^}]*))?\})")
_OWN_PLACE = re.compile(r"BASH_SOURCE|\$\{?0")
_END_OF_WORD = " \t;"
_ESCAPED_IN_QUOTES = frozenset('"\\$`')

# A value and where it ends in the text. None: only a shell could tell the value.
_Found = tuple[str | None, int]


@dataclass(frozen=True, slots=True)
class _Scope:
    variables: Mapping[str, str]
    folder: Path


def read_eucarc(text: str, *, folder: Path) -> Mapping[str, str]:
    """All variables that it sets; `folder` is where the file lies."""
    variables: dict[str, str] = {}
    for line in text.splitlines():
        variables.update(_statements(line, _Scope(variables, folder)))
    return variables


def _statements(line: str, scope: _Scope) -> Iterator[tuple[str, str]]:
    at = 0
    while statement := _STATEMENT.match(line, at):
        value, at = _word(line, statement.end(), scope)
        if value is not None:
            yield statement[1], value


def _word(text: str, at: int, scope: _Scope) -> _Found:
    pieces: list[str | None] = []
    while at < len(text) and text[at] not in _END_OF_WORD:
        piece, at = _piece(text, at, scope)
        pieces.append(piece)
    return _joined(pieces), at


def _piece(text: str, at: int, scope: _Scope) -> _Found:
    match text[at]:
        case "'":
            return _upto("'", text, at + 1)
        case '"':
            return _quoted(text, at + 1, scope)
        case "\\":
            return text[at + 1 : at + 2], at + 2
        case "$" | "`":
            return _substituted(text, at, scope)
        case character:
            return character, at + 1


def _quoted(text: str, at: int, scope: _Scope) -> _Found:
    pieces: list[str | None] = []
    while at < len(text) and text[at] != '"':
        piece, at = _quoted_piece(text, at, scope)
        pieces.append(piece)
    return _joined(pieces), at + 1


def _quoted_piece(text: str, at: int, scope: _Scope) -> _Found:
    if text[at] in "$`":
        return _substituted(text, at, scope)
    if text[at] == "\\" and text[at + 1 : at + 2] in _ESCAPED_IN_QUOTES:
        return text[at + 1], at + 2
    return text[at], at + 1


def _substituted(text: str, at: int, scope: _Scope) -> _Found:
    if text[at] == "`":
        return _answered(*_upto("`", text, at + 1), scope)
    if text.startswith("$(", at):
        return _answered(*_upto_closing(text, at + 2), scope)
    return _variable(text, at, scope)


def _answered(command: str, end: int, scope: _Scope) -> _Found:
    return str(scope.folder) if _OWN_PLACE.search(command) else None, end


def _variable(text: str, at: int, scope: _Scope) -> _Found:
    name = _VARIABLE.match(text, at)
    if not name:
        return "$", at + 1
    value = scope.variables.get(name["plain"] or name["braced"], "")
    return value or name["default"] or "", name.end()


def _upto(mark: str, text: str, at: int) -> tuple[str, int]:
    end = text.find(mark, at)
    return (text[at:end], end + 1) if end >= 0 else (text[at:], len(text))


def _upto_closing(text: str, at: int) -> tuple[str, int]:
    depth = 1
    for end in range(at, len(text)):
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        if depth == 0:
            return text[at:end], end + 1
    return text[at:], len(text)


def _joined(pieces: list[str | None]) -> str | None:
    known = [piece for piece in pieces if piece is not None]
    return "".join(known) if len(known) == len(pieces) else None
