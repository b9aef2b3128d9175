"""The words of a shell script, with their expansions, as far as their values are known.

Quotes, `$VAR`, `${VAR:-default}`, `${VAR:=default}`, `${VAR%/*}` and `$(…)` are filled in as a shell would.
What only a shell could tell makes the whole word unknown, and why is kept.
"""

import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from uecwatchd.clouds.credentials.shell_commands import PATTERN, CommandState, answered, filtered

DEEPEST = 12  # of substitutions in each other: no script that people read has as many

# Comments too: one begins where a command could.
BETWEEN_COMMANDS = re.compile(r"(?:[\s;&|]|\\\n|#[^\n]*)*")
BETWEEN_WORDS = re.compile(r"(?:[ \t]|\\\n)*")
END_OF_COMMAND = "\n;&|"
REDIRECTION = re.compile(r"\d*(?:>>?\|?|<(?!<))(&[\d-])?[ \t]*")
_HERE = re.compile(r"<<(?!<)(-?)[ \t]*(?:'([^'\n]*)'|\"([^\"\n]*)\"|\\?([^\s;&|<>()'\"]+))")
_PLAIN = re.compile(r"\$(\w+)")
_EXPANSION = re.compile(
    r"(?P<name>[A-Za-z_]\w*|\d)(?:\[[0@*]\])?"
    r"(?:(?P<cut>%%?|##?)(?P<pattern>.*)|(?P<how>:?[-=])(?P<default>.*))?",
    re.DOTALL,
)
_OWN_PLACE_OF_ZSH = re.compile(r"\(%\):-%[xN]")
_MODIFIERS = re.compile(r"(?:(?P<inner>\$\{.*\})|(?P<name>\w+))(?P<modifiers>(?::[aAPh])+)", re.DOTALL)
_HOME = re.compile(r"~(?=/|[\s;&|]|$)")
_END_OF_WORD = " \t" + END_OF_COMMAND
_ESCAPED_IN_QUOTES = frozenset('"\\$`')
_BACKTICKED = re.compile(r"((?:[^`\\]|\\.)*)`", re.DOTALL)
_ESCAPING = re.compile(r"((?:[^'\\]|\\.)*)'", re.DOTALL)

# A value and where it ends in the text. None: only a shell could tell the value.
Found = tuple[str | None, int]

# Longer than a key that stands in a variable; one that is doubled in each line soon has more.
LONGEST_VALUE_CHARACTERS = 64 * 1024


@dataclass(frozen=True, slots=True)
class UnknownVariable:
    """A variable that only a shell could tell, with the reason; `at` is the place of its assignment in the
    text. It is `open` if only branches have set it so far, each in a way that only a shell could tell.
    """

    at: int
    why: str
    open: bool = False


@dataclass(frozen=True, slots=True)
class SavedVariable:
    """The value of a variable before it was set for one command alone."""

    name: str
    value: str | None
    unknown: UnknownVariable | None
    maybe: bool


@dataclass(slots=True)
class Scope:
    """The variables known so far, and the effects of the word that is being read.

    `maybe` are variables whose value a branch has set, `skipped` the commands that may set any. `here` are
    the ends of here-documents that begin on the next line, `why` the reason if the last word is unknown.
    `at` is where the word begins, `is_maybe` whether it may not be reached, `depth` of how many substitutions
    it is in, `aside` whether of one whose settings are lost.
    """

    path: Path
    given: Mapping[str, str]
    variables: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, UnknownVariable] = field(default_factory=dict)
    maybe: set[str] = field(default_factory=set)
    skipped: list[UnknownVariable] = field(default_factory=list)
    here: list[tuple[str, bool]] = field(default_factory=list)
    why: str = ""
    at: int = 0
    is_maybe: bool = False
    depth: int = 0
    aside: bool = False

    def has(self, name: str) -> bool:
        return name in self.variables or name in self.unknown or name in self.given

    def value_of(self, name: str) -> str | None:
        if (value := self.variables.get(name, self.given.get(name))) is None or name in self.unknown:
            reason = self.unknown.get(name)
            self.why = f"${name} is not known{f', since {reason.why}' if reason else ''}"
            return None
        return value

    def assign(self, name: str, value: str | None, *, is_maybe: bool) -> None:
        """Set a variable. The value None means that only a shell could tell it, for the reason `why`."""
        before, earlier = self.variables.get(name), self.unknown.get(name)
        if value is not None and len(value) > LONGEST_VALUE_CHARACTERS:
            value, self.why = None, "it is longer than any address or key"
        if value is None:
            if before is None or not is_maybe or name not in self.maybe:
                is_open = is_maybe and before is None and (earlier is None or earlier.open)
                self._mark_unknown(name, self.why or "only a shell could tell it", is_open=is_open)
        elif is_maybe and earlier and not earlier.open:
            return
        elif is_maybe and before is not None and before != value:
            self._mark_unknown(name, f"another branch sets {name} otherwise")
        else:
            self.variables[name] = value
            self.unknown.pop(name, None)
            (self.maybe.add if is_maybe else self.maybe.discard)(name)

    def unset(self, name: str) -> None:
        if not self.is_maybe:
            self.variables.pop(name, None)
            self.unknown.pop(name, None)
            self.maybe.discard(name)
        elif name in self.variables:
            self._mark_unknown(name, f"another branch unsets {name}")

    def was(self, name: str) -> SavedVariable:
        return SavedVariable(name, self.variables.get(name), self.unknown.get(name), name in self.maybe)

    def restore(self, was: SavedVariable) -> None:
        self.variables.pop(was.name, None)
        self.unknown.pop(was.name, None)
        if was.value is not None:
            self.variables[was.name] = was.value
        if was.unknown is not None:
            self.unknown[was.name] = was.unknown
        (self.maybe.add if was.maybe else self.maybe.discard)(was.name)

    def _mark_unknown(self, name: str, why: str, *, is_open: bool = False) -> None:
        self.variables.pop(name, None)
        self.unknown[name] = UnknownVariable(self.at, why, is_open)


def blank(kind: re.Pattern[str], text: str, at: int) -> tuple[str, int]:
    found = kind.match(text, at)
    return (found[0], found.end()) if found else ("", at)


def word(text: str, at: int, scope: Scope) -> Found:
    pieces: list[str | None] = []
    if home := _HOME.match(text, at):
        pieces, at = [scope.given["HOME"]], home.end()
    while at < len(text) and text[at] not in _END_OF_WORD:
        piece, at = _piece(text, at, scope)
        pieces.append(piece)
    return _joined(pieces), at


def _piece(text: str, at: int, scope: Scope) -> Found:
    match text[at]:
        case "'":
            return _upto("'", text, at + 1)
        case '"':
            return _quoted(text, at + 1, scope)
        case "\\" if text.startswith("\n", at + 1):
            return "", at + 2
        case "\\":
            return text[at + 1 : at + 2], at + 2
        case "$" if text.startswith("$'", at):
            return _escaping(text, at + 2, scope)
        case "$" if text.startswith('$"', at):
            return _quoted(text, at + 2, scope)
        case "$" | "`":
            return _substituted(text, at, scope)
        case "<" if text.startswith("<<<", at):
            return "<<<", at + 3
        case "<" if found := _HERE.match(text, at):
            scope.here.append(
                (next((end for end in found.groups()[1:] if end is not None), ""), bool(found[1]))
            )
            return "", found.end()
        case ">" if text.startswith(">&", at):
            return ">&", at + 2
        case character:
            return character, at + 1


def _escaping(text: str, at: int, scope: Scope) -> Found:
    """Read the inside of `$'…'`, where a backslash has many meanings."""
    found = _ESCAPING.match(text, at)
    if found and "\\" not in found[1]:
        return found[1], found.end()
    scope.why = "a backslash in $'…' is more than is read here"
    return None, found.end() if found else len(text)


def _quoted(text: str, at: int, scope: Scope) -> Found:
    pieces: list[str | None] = []
    while at < len(text) and text[at] != '"':
        piece, at = _quoted_piece(text, at, scope)
        pieces.append(piece)
    return (_joined(pieces) if at < len(text) else None), at + 1


def _quoted_piece(text: str, at: int, scope: Scope) -> Found:
    if text[at] in "$`":
        return _substituted(text, at, scope)
    if text.startswith("\\\n", at):
        return "", at + 2
    if text[at] == "\\" and text[at + 1 : at + 2] in _ESCAPED_IN_QUOTES:
        return text[at + 1], at + 2
    return text[at], at + 1


def _substituted(text: str, at: int, scope: Scope) -> Found:
    if text[at] == "`":
        return _within(_answer, *_upto_backtick(text, at + 1), scope)
    if text.startswith("$(", at):
        return _within(_answer, *upto_closing(")", text, at + 2), scope)
    if text.startswith("${", at):
        return _within(_expanded, *upto_closing("}", text, at + 2), scope)
    name = _PLAIN.match(text, at)
    return (scope.value_of(name[1]), name.end()) if name else ("$", at + 1)


def _within(read: Callable[[str, Scope], str | None], inner: str | None, end: int, scope: Scope) -> Found:
    if inner is None or scope.depth >= DEEPEST:
        scope.why = "what opens there never ends" if inner is None else "it is nested too deeply"
        return None, end
    scope.depth += 1
    value = read(inner, scope)
    scope.depth -= 1
    return value, end


def _upto(mark: str, text: str, at: int) -> Found:
    end = text.find(mark, at)
    return (text[at:end], end + 1) if end >= 0 else (None, len(text))


def _upto_backtick(text: str, at: int) -> Found:
    """Find the closing backtick. A backtick after a backslash opens or closes a nested command."""
    found = _BACKTICKED.match(text, at)
    return (re.sub(r"\\([`\\$])", r"\1", found[1]), found.end()) if found else (None, len(text))


def upto_closing(closing: str, text: str, at: int) -> Found:
    """Find the closing character, with respect to quotes and to nested constructs (kept on a stack)."""
    awaited, start = [closing], at
    while at < len(text):
        character, inner = text[at], awaited[-1]
        if character == "\\":
            at += 1
        elif character == inner:
            awaited.pop()
            if not awaited:
                return text[start:at], at + 1
        elif text.startswith(("$(", "${"), at):
            awaited.append(")" if text[at + 1] == "(" else "}")
            at += 1
        elif character == '"':
            awaited.append('"')
        elif inner != '"' and character == "(" and inner == ")":
            awaited.append(")")
        elif inner != '"' and character == "'":
            at = _upto("'", text, at + 1)[1] - 1
        at += 1
    return None, len(text)


def _joined(pieces: list[str | None]) -> str | None:
    known = [piece for piece in pieces if piece is not None]
    return "".join(known) if len(known) == len(pieces) else None


# --- ${…} -------------------------------------------------------------------------------------------------


def _expanded(inner: str, scope: Scope) -> str | None:
    if _OWN_PLACE_OF_ZSH.fullmatch(inner):
        return str(scope.path)
    if found := _MODIFIERS.fullmatch(inner):
        value = (
            _quoted(found["inner"] + '"', 0, scope)[0] if found["inner"] else scope.value_of(found["name"])
        )
        for _ in range(found["modifiers"].count("h") if value else 0):
            value = posixpath.dirname(value or "")
        return value
    found = _EXPANSION.fullmatch(inner)
    if found is None:
        scope.why = f"${{{inner[:20]}}} is more than is read here"
        return None
    name, how = found["name"], found["how"] or ""
    value = scope.value_of(name)
    if how and name not in scope.unknown and not (value or (value == "" and ":" not in how)):
        value = _quoted(found["default"].replace('"', "") + '"', 0, scope)[0]
        if "=" in how and not scope.aside:
            scope.assign(name, value, is_maybe=scope.is_maybe)
        return value
    return _cut(value, found["cut"], found["pattern"], scope) if value and found["cut"] else value


def _cut(value: str, how: str, pattern: str, scope: Scope) -> str | None:
    """Cut a path to its folder or to its last name. None for other patterns: only a shell could tell."""
    match how, pattern:
        case "%", "/*":
            return value.rpartition("/")[0] or value
        case "##", "*/":
            return value.rpartition("/")[2]
        case "%", suffix if not PATTERN.search(suffix):
            return value.removesuffix(suffix)
        case "#", prefix if not PATTERN.search(prefix):
            return value.removeprefix(prefix)
    scope.why = f"{how}{pattern[:20]} is more than is read here"
    return None


# --- $(…) -------------------------------------------------------------------------------------------------


def _answer(inner: str, scope: Scope) -> str | None:
    """Return the output of a command that only asks for the script's place, or for files beside it."""
    state, at, first = CommandState(scope.path), 0, ""
    aside, scope.aside = scope.aside, True
    while at < len(inner):
        between, at = blank(BETWEEN_COMMANDS, inner, at)
        words, at = _words(inner, at, scope)
        if not words or ("||" in between and state.lines is not None):
            continue
        if "||" in between or not between:
            state.lines, first = [], ""
        if "|" in between and "||" not in between:
            state.lines = filtered(state.lines, words)
        elif state.lines is not None:
            lines = answered(state, words)
            state.lines = None if lines is None else state.lines + lines
        if state.lines is None:
            first = (
                first or scope.why or state.why or f"`{(words[0] or '…')[:40]}` is a command, and none is run"
            )
    scope.why, scope.aside = first, aside
    return "\n".join(state.lines) if state.lines is not None else None


def _words(text: str, at: int, scope: Scope) -> tuple[list[str | None], int]:
    words: list[str | None] = []
    scope.why = ""
    while at < len(text) and text[at] not in END_OF_COMMAND:
        start = at
        if redirection := REDIRECTION.match(text, at):
            at = redirection.end()
            if not redirection[1]:
                _, at = word(text, at, scope)
        else:
            one, at = word(text, at, scope)
            words.append(one)
        _, at = blank(BETWEEN_WORDS, text, max(at, start + 1))
    return words, at
