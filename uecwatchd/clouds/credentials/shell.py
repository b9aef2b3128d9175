"""The variables that a shell script sets, read as text: nothing of it is ever run.

What is read: assignments, by themselves or of `export`, `readonly` and `declare`, one on a line or several,
between `;`, `&&` and `||` as well; words bare, in single or in double quotes, which may span lines; a
backslash at the end of a line; `$VAR`, `${VAR}`, `${VAR:-default}` and `${VAR%/*}`; a leading `~/`;
here-documents, which are passed over.
The place of the script itself is known, however it asks for it, in bash and in zsh: by `$BASH_SOURCE`, `$0`
or `${(%):-%x}`, and through the commands of `shell_commands`, which are answered, and not run either.
The output of any other command is unknown, and so is any value made of it. The only condition that is
evaluated is if a variable is set: a value is known if all branches set the same one.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from uecwatchd.clouds.credentials.shell_words import (
    BETWEEN_COMMANDS,
    BETWEEN_WORDS,
    END_OF_COMMAND,
    REDIRECTION,
    SavedVariable,
    Scope,
    UnknownVariable,
    blank,
    upto_closing,
    word,
)

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(\+?)=")
_DECLARING = frozenset({"export", "readonly", "declare", "typeset"})
# Options of these that make another value of what is written: a number, lower case, a list, a reference.
_CHANGING = re.compile(r"-\w*[iluaAn]")
_COMMENT = re.compile(r"#[^\n]*")
# `[ -n "$VAR" ]`, in each way to write it.
_IS_SET = re.compile(
    r"(?:\[\[?|test)\s+(?:-n\s+|!\s+-z\s+)?\"?\$\{?(?P<name>[A-Za-z_]\w*)(?::-)?\}?\"?(?:\s+\]\]?)?\s*"
)
_KEYWORD = re.compile(
    r"(if|then|elif|else|fi|for|while|until|select|do|done|case|esac|[{}!])(?=[\s;&|]|$)"
    r"|(function[ \t]+[\w-]+[ \t]*(?:\([ \t]*\))?|[\w-]+[ \t]*\([ \t]*\))\s*\{"
)
_CASE = re.compile(r"[^\n;]{0,200}?\sin(?=\s)\s*")  # up to its first pattern
_CASE_PATTERN = re.compile(r"[^\n)]{0,200}\)\s*")
_OPENING = frozenset({"if", "for", "while", "until", "select", "case"})
_CLOSING = frozenset({"fi", "done", "esac", "}"})


@dataclass(frozen=True, slots=True)
class Command:
    """A command that was read, as far as it matters to the next one after `||` or `&&`.

    `is_sure` is that it is run if what is around it is, `succeeds` that it cannot fail. `sets` is the
    variable that it has set, `tests` the one that it tests for being set.
    """

    is_sure: bool = False
    succeeds: bool = False
    sets: str = ""
    tests: str = ""


@dataclass(slots=True)
class ScriptState:
    """State between two commands. `blocks` are the open constructs; a `{` alone is no branch."""

    text: str
    scope: Scope
    blocks: list[str] = field(default_factory=list)
    last: Command = Command()

    @property
    def in_branch(self) -> bool:
        return any(block != "{" for block in self.blocks)


def read_script(text: str, *, path: Path, home: Path) -> Scope:
    """Read all of it; `path` is the script's own. Raises nothing, whatever the text."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    scope = Scope(path, {"HOME": str(home), "BASH_SOURCE": str(path), "0": str(path)})
    reading, at = ScriptState(text, scope), 0
    while at < len(text):
        between, end = blank(BETWEEN_COMMANDS, text, at)
        if scope.here and "\n" in between:
            at = _past_here_documents(text, text.index("\n", at) + 1, scope)
            continue
        between = _COMMENT.sub("", between)
        if reading.blocks[-1:] == ["case"] and (";;" in between or ";&" in between):
            end = _past_pattern(text, end)
        joint = next((mark for mark in ("||", "&&", "|") if mark in between), "")
        at = _command(reading, end, joint)
    return scope


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
    """Skip the pattern of a case, `prod|test) …`, and return the position of its commands."""
    if text.startswith("esac", at):
        return at
    found = _CASE_PATTERN.match(text, at)
    return found.end() if found else at


def _command(reading: ScriptState, at: int, joint: str) -> int:
    """Read one command and return its end. An assignment before its name applies to it alone."""
    text, scope, last, start = reading.text, reading.scope, reading.last, at
    is_sure = not joint or (joint == "&&" and last.is_sure and last.succeeds)
    at, is_closing = _past_keywords(reading, at, is_sure=is_sure)
    scope.is_maybe = reading.in_branch or not is_sure
    reading.last = Command()
    if is_closing:
        return at
    if text.startswith("(", at):  # a shell of its own: what is set there is lost
        return upto_closing(")", text, at + 1)[1]
    begun, words, sets = at, list[str | None](), list[SavedVariable]()
    while at < len(text) and text[at] not in END_OF_COMMAND and text[at] != "#":
        scope.at, scope.why = at, ""
        if redirection := REDIRECTION.match(text, at):
            at = redirection.end() if redirection[1] else word(text, redirection.end(), scope)[1]
        elif (found := _ASSIGNMENT.match(text, at)) and (not words or words[0] in _DECLARING):
            sets.append(scope.was(found[1]))
            at = _assignment(reading, found, words, after=last if joint == "||" else Command())
        else:
            if not words:
                for was in reversed(sets):
                    scope.restore(was)
            value, at = word(text, at, scope)
            words.append(value)
        _, at = blank(BETWEEN_WORDS, text, max(at, scope.at + 1))
    scope.at = begun
    _act(scope, words)
    names = [was.name for was in sets] if not words else []
    succeeds = bool(names) and not scope.unknown.keys() & set(names)
    succeeds = succeeds or (bool(words) and words[0] in _DECLARING)
    asked = _IS_SET.fullmatch(text[begun:at]) if "!" not in text[start:begun] else None
    reading.last = Command(is_sure, succeeds, names[-1] if names else "", asked["name"] if asked else "")
    return _end_of_line(text, at) if text.startswith("#", at) else at


def _assignment(
    reading: ScriptState, found: re.Match[str], words: list[str | None], *, after: Command
) -> int:
    """Read one assignment and return its end. `after` is the command before `||`, if there is one."""
    text, scope, name, at = reading.text, reading.scope, found[1], found.end()
    if text.startswith("(", at):
        value, scope.why, at = None, "it is a list", upto_closing(")", text, at + 1)[1]
    else:
        value, at = word(text, at, scope)
    if changing := next((one for one in words[1:] if one and _CHANGING.match(one)), None):
        value, scope.why = None, f"{words[0]} {changing} is more than is read here"
    if found[2] and value is not None:
        before = scope.value_of(name) if scope.has(name) else ""
        value = None if before is None else before + value
    if not after.is_sure:
        scope.assign(name, value, is_maybe=scope.is_maybe)
    elif not after.succeeds and not (after.tests == name and scope.variables.get(name)):
        for_want = after.sets == name or (after.tests == name and name not in scope.unknown)
        scope.assign(name, value, is_maybe=reading.in_branch or not for_want)
    return at


def _act(scope: Scope, words: list[str | None]) -> None:
    """Apply the effect of commands that change variables without an assignment."""
    match words:
        case ["unset", *names] if "-f" not in names:
            for name in names:
                scope.unset(name or "")
        case ["read", *names]:
            scope.why = "`read` is a command, and none is run"
            for name in names:
                if name and name.isidentifier():
                    scope.assign(name, None, is_maybe=scope.is_maybe)
        case ["." | "source" | "eval" as name, *arguments]:
            file = f" {arguments[0][:40]}" if arguments and arguments[0] and name != "eval" else ""
            scope.skipped.append(UnknownVariable(scope.at, f"`{name}{file}` is a command, and none is run"))


def _past_keywords(reading: ScriptState, at: int, *, is_sure: bool) -> tuple[int, bool]:
    """Return the position of the command after keywords; with True after one that closes a construct."""
    text, blocks = reading.text, reading.blocks
    while found := _KEYWORD.match(text, at):
        keyword = found[1] or "function"
        if keyword in _CLOSING:
            del blocks[-1:]
            return found.end(), True
        if keyword == "{":
            blocks.append("{" if is_sure else "a branch")
        elif keyword in _OPENING or keyword == "function":
            blocks.append(keyword)
        at = blank(BETWEEN_COMMANDS, text, found.end())[1]
        if keyword == "case":
            opened = _CASE.match(text, at)
            at = _past_pattern(text, opened.end()) if opened else at
            at = blank(BETWEEN_COMMANDS, text, at)[1]
    return at, False


def _end_of_line(text: str, at: int) -> int:
    end = text.find("\n", at)
    return end if end >= 0 else len(text)
