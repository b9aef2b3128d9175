"""The eucarc file that comes with a cloud's credentials: read as text, never run as the shell script it is.

What is read of it: assignments, with or without `export`, one on a line or several, between `;`, `&&`
and `||` as well; words bare, in single or in double quotes, which may span lines; a backslash at the end of
a line; `$VAR`, `${VAR}`, `${VAR:-default}` and `${VAR%/*}` of earlier assignments and of HOME; a leading
`~/`. The place of the file itself comes, from the oldest generation to the newest and last in OpenStack's
way, as

    EUCA_KEY_DIR=$(dirname $(readlink -f ${BASH_SOURCE}))
    EUCA_KEY_DIR=$(cd $(dirname ${BASH_SOURCE:-$0}); pwd -P)
    NOVARC=$(readlink -f "${BASH_SOURCE:-${0}}" 2>/dev/null)

and a command that asks for the script's own place is therefore answered: with its folder if `dirname` or `cd`
is a part of it, else with its path. With any other command, with a variable that nobody has set, and with a
quote that never ends, the variable stays unset.
Commands that do something else (aliases, `echo WARN…`) are passed over. No condition is weighed: of
`if … else` both branches are read, and the later one counts; behind `||`, what is set already stays.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from uecwatchd.cloud.source import PATHS, Source
from uecwatchd.errors import Halted, NotPermitted

# Where the eucarc of any generation keeps what a setting is about; the first that is set counts.
VARIABLES: Mapping[str, tuple[str, ...]] = {
    "ec2_url": ("EC2_URL",),
    "s3_url": ("S3_URL",),
    "access_key": ("EC2_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY"),
    "secret_key": ("EC2_SECRET_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY"),
    "session_token": ("AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"),
    "account": ("EC2_ACCOUNT_NUMBER", "EC2_USER_ID"),
    "user_cert": ("EC2_CERT",),
    "user_key": ("EC2_PRIVATE_KEY",),
    "cloud_cert": ("EUCALYPTUS_CERT",),
}

_BETWEEN_COMMANDS = re.compile(r"(?:[\s;&|]|\\\n)*")
_BETWEEN_WORDS = re.compile(r"(?:[ \t]|\\\n)*")
_GAP = r"(?:[ \t]|\\\n)+"
_ASSIGNMENT = re.compile(rf"(?:(?:then|else){_GAP})?(?:(?:export|declare{_GAP}-x){_GAP})?([A-Za-z_]\w*)=")
_VARIABLE = re.compile(r"\$(?:(?P<plain>\w+)|\{(?P<braced>\w+)(?:(?P<parent>%/\*)|:?-(?P<default>[^}]*))?\})")
_OWN_PLACE = re.compile(r"BASH_SOURCE|\$\{?0")
_FOLDER_OF = re.compile(r"\b(dirname|cd)\b")
_HOME = re.compile(r"~(?=/|[\s;&|]|$)")
_END_OF_COMMAND = "\n;&|"
_END_OF_WORD = " \t" + _END_OF_COMMAND
_ESCAPED_IN_QUOTES = frozenset('"\\$`')

# A value and where it ends in the text. None: only a shell could tell the value.
_Found = tuple[str | None, int]


@dataclass(frozen=True, slots=True)
class _Scope:
    """`variables` grows while the file is read; `given` are those that a shell would bring along."""

    variables: dict[str, str]
    given: Mapping[str, str]
    path: Path


def eucarc_source(path: Path, *, cloud: str, home: Path) -> Source:
    """What it says for our settings. Raises `Halted`, `NotPermitted` if it may not be read.

    `home` is that of the service's user.
    """
    path = path.resolve()  # the files named in it lie beside it, not beside a link to it
    variables = read_eucarc(_text(path, cloud), path=path, home=home)
    said = {setting: _first(variables, names) for setting, names in VARIABLES.items()}
    values = {setting: value for setting, value in said.items() if value}
    if not values:
        raise Halted(
            f"{path} (eucarc of cloud {cloud})",
            "it sets none of the variables that an eucarc sets, such as EC2_URL and EC2_ACCESS_KEY",
            "Name the file eucarc itself; if credentials came as an archive, unpack that first.",
        )
    placed = {key: str(path.parent / value) if key in PATHS else value for key, value in values.items()}
    spelled = {setting: names[0] for setting, names in VARIABLES.items()}
    remedies = {setting: f"Add `export {name}=…` to {path}" for setting, name in spelled.items()}
    return Source(str(path), placed, spelled, (path,), remedies=remedies)


def _first(variables: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((variables[name] for name in names if variables.get(name)), None)


def _text(path: Path, cloud: str) -> str:
    what = f"{path} (eucarc of cloud {cloud})"
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except PermissionError as error:
        hint = f"Let our group read it: chgrp uecwatchd {path} && chmod g+r {path}"
        raise NotPermitted(what, "cannot read it", hint) from error
    except OSError as error:
        hint = f"Correct eucarc under [cloud.{cloud}], or put the file there."
        raise Halted(what, f"cannot read it: {error.strerror}", hint) from error


def read_eucarc(text: str, *, path: Path, home: Path) -> Mapping[str, str]:
    """All variables that it sets; `path` is the file's own. Raises nothing, whatever the text."""
    scope = _Scope({}, {"HOME": str(home), "BASH_SOURCE": str(path)}, path)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    at = 0
    while at < len(text):
        between, at = _blank(_BETWEEN_COMMANDS, text, at)
        at = _command(text, at, scope, otherwise="||" in between)
    return scope.variables


def _command(text: str, at: int, scope: _Scope, *, otherwise: bool) -> int:
    """Where it ends. Assignments are read up to the first word that is none."""
    assigning = True
    while at < len(text) and text[at] not in _END_OF_COMMAND:
        if text[at] == "#":
            return _upto("\n", text, at)[1]
        assignment = _ASSIGNMENT.match(text, at) if assigning else None
        value, at = _word(text, assignment.end() if assignment else at, scope)
        if assignment and value is not None and not (otherwise and assignment[1] in scope.variables):
            scope.variables[assignment[1]] = value
        assigning = assignment is not None
        _, at = _blank(_BETWEEN_WORDS, text, at)
    return at


def _blank(kind: re.Pattern[str], text: str, at: int) -> tuple[str, int]:
    found = kind.match(text, at)
    return (found[0], found.end()) if found else ("", at)


def _word(text: str, at: int, scope: _Scope) -> _Found:
    pieces: list[str | None] = []
    if home := _HOME.match(text, at):
        pieces, at = [scope.given["HOME"]], home.end()
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
        case "\\" if text.startswith("\n", at + 1):
            return "", at + 2
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
    return (_joined(pieces) if at < len(text) else None), at + 1


def _quoted_piece(text: str, at: int, scope: _Scope) -> _Found:
    if text[at] in "$`":
        return _substituted(text, at, scope)
    if text.startswith("\\\n", at):
        return "", at + 2
    if text[at] == "\\" and text[at + 1 : at + 2] in _ESCAPED_IN_QUOTES:
        return text[at + 1], at + 2
    return text[at], at + 1


def _substituted(text: str, at: int, scope: _Scope) -> _Found:
    if text[at] == "`":
        return _answered(*_upto("`", text, at + 1), scope)
    if text.startswith("$(", at):
        return _answered(*_upto_closing(text, at + 2), scope)
    return _variable(text, at, scope)


def _answered(command: str | None, end: int, scope: _Scope) -> _Found:
    if command is None or not _OWN_PLACE.search(command):
        return None, end
    return str(scope.path.parent if _FOLDER_OF.search(command) else scope.path), end


def _variable(text: str, at: int, scope: _Scope) -> _Found:
    name = _VARIABLE.match(text, at)
    if not name:
        return (None, _upto("}", text, at)[1]) if text.startswith("${", at) else ("$", at + 1)
    called = name["plain"] or name["braced"]
    value = scope.variables.get(called, scope.given.get(called))
    if value and name["parent"]:
        value = value.rpartition("/")[0] or value
    if not value and name["default"] is not None:
        value = _expanded(name["default"], scope)
    return value, name.end()


def _expanded(default: str, scope: _Scope) -> str | None:
    """A default may name variables, but has no default in it: it holds no closing brace."""
    return _quoted(default.replace('"', "") + '"', 0, scope)[0]


def _upto(mark: str, text: str, at: int) -> _Found:
    end = text.find(mark, at)
    return (text[at:end], end + 1) if end >= 0 else (None, len(text))


def _upto_closing(text: str, at: int) -> _Found:
    depth = 1
    for end in range(at, len(text)):
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        if depth == 0:
            return text[at:end], end + 1
    return None, len(text)


def _joined(pieces: list[str | None]) -> str | None:
    known = [piece for piece in pieces if piece is not None]
    return "".join(known) if len(known) == len(pieces) else None
