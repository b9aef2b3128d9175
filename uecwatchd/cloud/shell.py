"""What a shell script sets, read as text: nothing of it is ever run.

What is read: assignments, with or without `export`, one on a line or several, between `;`, `&&` and `||` as
well; words bare, in single or in double quotes, which may span lines; a backslash at the end of a line;
`$VAR`, `${VAR}`, `${VAR:-default}` and `${VAR%/*}`; a leading `~/`; here-documents, which are passed over.
The place of the script itself is known, however it asks for it, in bash and in zsh: by `$BASH_SOURCE`, `$0`
or `${(%):-%x}`, and through the commands of `shell_commands`, which are answered, and not run either.
The output of any other command is unknown, and so is what is made of it. No condition is weighed: what
several branches set alike is known, and what they set otherwise is not.
"""

import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from uecwatchd.cloud.shell_commands import PATTERN, Answering, answered, filtered

DEEPEST = 12  # of substitutions in each other: no script that people read has as many

_BETWEEN_COMMANDS = re.compile(r"(?:[\s;&|]|\\\n)*")
_BETWEEN_WORDS = re.compile(r"(?:[ \t]|\\\n)*")
_GAP = r"(?:[ \t]|\\\n)+"
_EXPORT = re.compile(rf"(?:export|(?:declare|typeset){_GAP}-g?x){_GAP}")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=")
_KEYWORD = re.compile(
    r"(if|then|elif|else|fi|for|while|until|select|do|done|case|esac|[{}!])(?=[\s;&|]|$)"
    r"|(function[ \t]+[\w-]+[ \t]*(?:\([ \t]*\))?|[\w-]+[ \t]*\([ \t]*\))\s*\{"
)
_CASE = re.compile(r"[^\n;]{0,200}?\sin(?=\s)\s*")  # up to its first pattern
_CASE_PATTERN = re.compile(r"[^\n)]{0,200}\)\s*")
_OPENING = frozenset({"if", "for", "while", "until", "select", "case"})
_CLOSING = frozenset({"fi", "done", "esac", "}"})
_REDIRECTION = re.compile(r"\d*(?:>>?\|?|<(?!<))(&[\d-])?[ \t]*")
_HERE = re.compile(r"<<(?!<)(-?)[ \t]*(?:'([^'\n]*)'|\"([^\"\n]*)\"|\\?([^\s;&|<>()'\"]+))")
_PLAIN = re.compile(r"\$(\w+)")
_EXPANSION = re.compile(
    r"(?P<name>[A-Za-z_]\w*|\d)(?:\[[0@*]\])?(?:(?P<cut>%%?|##?)(?P<pattern>.*)|:?[-=](?P<default>.*))?",
    re.DOTALL,
)
_OWN_PLACE_OF_ZSH = re.compile(r"\(%\):-%[xN]")
_MODIFIERS = re.compile(r"(?:(?P<inner>\$\{.*\})|(?P<name>\w+))(?P<modifiers>(?::[aAPh])+)", re.DOTALL)
_HOME = re.compile(r"~(?=/|[\s;&|]|$)")
_END_OF_COMMAND = "\n;&|"
_END_OF_WORD = " \t" + _END_OF_COMMAND
_ESCAPED_IN_QUOTES = frozenset('"\\$`')

_BACKTICKED = re.compile(r"((?:[^`\\]|\\.)*)`", re.DOTALL)

# A value and where it ends in the text. None: only a shell could tell the value.
Found = tuple[str | None, int]


@dataclass(frozen=True, slots=True)
class Unknown:
    """Why nobody but a shell can tell a variable; `at` is the place of its assignment in the text."""

    at: int
    why: str


@dataclass(slots=True)
class Scope:
    """All grow while the script is read. `maybe` are variables whose value a branch has set; `blocks` the
    constructs that are open, `here` the ends of here-documents that begin on the next line, `why` the reason
    for which the last word is unknown."""

    path: Path
    given: Mapping[str, str]
    variables: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, Unknown] = field(default_factory=dict)
    maybe: dict[str, int] = field(default_factory=dict)
    blocks: list[str] = field(default_factory=list)
    here: list[tuple[str, bool]] = field(default_factory=list)
    why: str = ""
    depth: int = 0

    @property
    def in_branch(self) -> bool:
        return any(block != "{" for block in self.blocks)

    def value_of(self, name: str) -> str | None:
        if (value := self.variables.get(name, self.given.get(name))) is None:
            reason = self.unknown.get(name)
            self.why = f"${name} is not known{f', since {reason.why}' if reason else ''}"
        return value


def read_script(text: str, *, path: Path, home: Path) -> Scope:
    """Read all of it; `path` is the script's own. Raises nothing, whatever the text."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    scope = Scope(path, {"HOME": str(home), "BASH_SOURCE": str(path), "0": str(path)})
    at = 0
    while at < len(text):
        between, end = _blank(_BETWEEN_COMMANDS, text, at)
        if scope.here and "\n" in between:
            at = _past_here_documents(text, text.index("\n", at) + 1, scope)
            continue
        if scope.blocks[-1:] == ["case"] and (";;" in between or ";&" in between):
            end = _past_pattern(text, end)
        at = _command(
            text, end, scope, otherwise="||" in between, perhaps="&&" in between and not _sets(text, at)
        )
    return scope


def _sets(text: str, at: int) -> bool:
    """Whether what ends here is an assignment, which always succeeds: what follows && is run then."""
    start = max(text.rfind(mark, 0, at) for mark in _END_OF_COMMAND) + 1
    begun = _EXPORT.sub("", text[start:at].strip(), count=1)
    return _ASSIGNMENT.match(begun) is not None


def _past_here_documents(text: str, at: int, scope: Scope) -> int:
    for last, is_indented in scope.here:
        while at < len(text):
            end = _end_of_line(text, at)
            line, at = text[at:end], end + 1
            if (line.lstrip("\t") if is_indented else line) == last:
                break
    scope.here.clear()
    return at


def _past_pattern(text: str, at: int) -> int:
    """Of `prod|test) …` in a case, to what is run for it."""
    if text.startswith("esac", at):
        return at
    found = _CASE_PATTERN.match(text, at)
    return found.end() if found else at


def _command(text: str, at: int, scope: Scope, *, otherwise: bool, perhaps: bool) -> int:
    """Where it ends. Assignments are read up to the first word that is none."""
    at = _past_keywords(text, at, scope)
    words: list[str | None] = []
    while at < len(text) and text[at] not in _END_OF_COMMAND:
        if text[at] == "#":
            return _end_of_line(text, at)
        start = at
        export = _EXPORT.match(text, at) if not words else None
        at = export.end() if export else at
        assignment = _ASSIGNMENT.match(text, at) if not words else None
        scope.why = ""
        value, at = _word(text, assignment.end() if assignment else at, scope)
        if assignment:
            _assign(scope, assignment[1], value, start, otherwise=otherwise, perhaps=perhaps)
        else:
            words.append(value)
        _, at = _blank(_BETWEEN_WORDS, text, max(at, start + 1))
    if words[:1] == ["unset"] and not scope.in_branch:
        for name in words[1:]:
            scope.variables.pop(name or "", None)
    return at


def _past_keywords(text: str, at: int, scope: Scope) -> int:
    while found := _KEYWORD.match(text, at):
        word = found[1] or "function"
        if word in _OPENING or word in ("{", "function"):
            scope.blocks.append(word)
        elif word in _CLOSING and scope.blocks:
            scope.blocks.pop()
        at = _blank(_BETWEEN_COMMANDS, text, found.end())[1]
        if word == "case":
            opened = _CASE.match(text, at)
            at = _past_pattern(text, opened.end()) if opened else at
        at = _blank(_BETWEEN_COMMANDS, text, at)[1] if word == "case" else at
    return at


def _assign(scope: Scope, name: str, value: str | None, at: int, *, otherwise: bool, perhaps: bool) -> None:
    before = scope.variables.get(name)
    if otherwise and before is not None:
        return
    is_maybe = scope.in_branch or perhaps
    if value is None:
        if before is None or not is_maybe or name not in scope.maybe:
            scope.variables.pop(name, None)
            scope.unknown[name] = Unknown(at, scope.why or "only a shell could tell it")
        return
    disputed = name in scope.unknown and name in scope.maybe
    if is_maybe and (disputed or (before is not None and before != value)):
        scope.variables.pop(name, None)
        scope.unknown[name] = Unknown(at, f"another branch sets {name} otherwise")
    else:
        scope.variables[name] = value
        scope.unknown.pop(name, None)
    if is_maybe:
        scope.maybe[name] = at
    else:
        scope.maybe.pop(name, None)


def _end_of_line(text: str, at: int) -> int:
    end = text.find("\n", at)
    return end if end >= 0 else len(text)


def _blank(kind: re.Pattern[str], text: str, at: int) -> tuple[str, int]:
    found = kind.match(text, at)
    return (found[0], found.end()) if found else ("", at)


# --- words ------------------------------------------------------------------------------------------------


def _word(text: str, at: int, scope: Scope) -> Found:
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
        return _within(_answer, *_upto_closing(")", text, at + 2), scope)
    if text.startswith("${", at):
        return _within(_expanded, *_upto_closing("}", text, at + 2), scope)
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
    """One with a backslash before it opens or closes what is nested."""
    found = _BACKTICKED.match(text, at)
    return (re.sub(r"\\([`\\$])", r"\1", found[1]), found.end()) if found else (None, len(text))


def _upto_closing(closing: str, text: str, at: int) -> Found:
    """Quotes are heeded, and what opens within them: a stack of what is to be closed."""
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
    value = scope.value_of(found["name"])
    if not value and found["default"] is not None:
        return _quoted(found["default"].replace('"', "") + '"', 0, scope)[0]
    return _cut(value, found["cut"], found["pattern"], scope) if value and found["cut"] else value


def _cut(value: str, how: str, pattern: str, scope: Scope) -> str | None:
    """Of a path its folder, or its last name; anything else that could be cut off is left to a shell."""
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
    """What a command would print, as far as it only asks for the script's place, or for files beside it."""
    state, at, first = Answering(scope.path), 0, ""
    while at < len(inner):
        between, at = _blank(_BETWEEN_COMMANDS, inner, at)
        words, at = _words(inner, at, scope)
        if not words or ("||" in between and state.lines is not None):
            continue
        if "||" in between or not between:
            state.lines, first = [], ""
        if "|" in between and "||" not in between:
            state.lines = filtered(state.lines, words)
        elif state.lines is not None:
            told = answered(state, words)
            state.lines = None if told is None else state.lines + told
        if state.lines is None:
            first = (
                first or scope.why or state.why or f"`{(words[0] or '…')[:40]}` is a command, and none is run"
            )
    scope.why = first
    return "\n".join(state.lines) if state.lines is not None else None


def _words(text: str, at: int, scope: Scope) -> tuple[list[str | None], int]:
    words: list[str | None] = []
    scope.why = ""
    while at < len(text) and text[at] not in _END_OF_COMMAND:
        start = at
        if redirection := _REDIRECTION.match(text, at):
            at = redirection.end()
            if not redirection[1]:
                _, at = _word(text, at, scope)
        else:
            word, at = _word(text, at, scope)
            words.append(word)
        _, at = _blank(_BETWEEN_WORDS, text, max(at, start + 1))
    return words, at
