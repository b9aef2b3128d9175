"""The few commands that find a script's own place, or files beside it, answered without running them.

`dirname`, `basename`, `readlink`, `realpath` and `cd … && pwd` are sums on paths: the script's own has no
links in it. `ls`, `echo` and `find` with a pattern look into the script's own folder, and into no other.
"""

import fnmatch
import os
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

MOST_FILES = 10_000  # looked at in the folder of credentials, which has a dozen
PATTERN = re.compile(r"[*?\[]")

# What a command prints, line by line. None: only a shell could tell.
Lines = list[str] | None


@dataclass(slots=True)
class CommandState:
    """`script` is the path of what asks, `folder` where `cd` has led to, `lines` what the commands so far
    have printed, `why` the reason if one of them could not be answered."""

    script: Path
    folder: str | None = None
    lines: Lines = field(default_factory=list)
    why: str = ""


def answered(state: CommandState, words: list[str | None]) -> Lines:
    """Return the output of one command, "" for `cd`; None if only a shell could tell."""
    while words[:1] in (["builtin"], ["command"]):
        words = words[1:]
    name = words[0] if words else None
    arguments = [word for word in words[1:] if word is not None]
    if name is None or len(arguments) < len(words) - 1:
        return None
    operands = [word for word in arguments if not word.startswith("-")]
    answer = COMMANDS.get(name)
    return answer(state, operands, arguments) if answer else None


def _cd(state: CommandState, operands: list[str], _: list[str]) -> Lines:
    if len(operands) != 1:
        return None
    state.folder = _path(state, operands[0])
    return [] if state.folder else None


def _pwd(state: CommandState, _: list[str], __: list[str]) -> Lines:
    return [state.folder] if state.folder else None


def _dirname(state: CommandState, operands: list[str], _: list[str]) -> Lines:
    return [posixpath.dirname(operands[0].rstrip("/")) or "."] if len(operands) == 1 else None


def _basename(state: CommandState, operands: list[str], _: list[str]) -> Lines:
    return [posixpath.basename(operands[0].rstrip("/"))] if len(operands) == 1 else None


def _real_path(state: CommandState, operands: list[str], _: list[str]) -> Lines:
    """Return the argument's path: the script's own path has no links in it."""
    path = _path(state, operands[0]) if len(operands) == 1 else None
    return [path] if path else None


def _path(state: CommandState, name: str) -> str | None:
    if name.startswith("/"):
        return posixpath.normpath(name)
    return posixpath.normpath(posixpath.join(state.folder, name)) if state.folder else None


def _echo(state: CommandState, operands: list[str], _: list[str]) -> Lines:
    if not any(PATTERN.search(word) for word in operands):
        return [" ".join(operands)]
    return _ls(state, operands, [])


def _ls(state: CommandState, operands: list[str], _: list[str]) -> Lines:
    path = _path(state, operands[0]) if len(operands) == 1 else None
    if path is None or not PATTERN.search(path):
        return [path] if path else None
    found, state.why = the_one_file(path, folder=state.script.parent)
    return None if found is None else [found]


def _find(state: CommandState, operands: list[str], arguments: list[str]) -> Lines:
    words = [word for word in arguments if word not in ("-maxdepth", "1", "-type", "f", "-print")]
    if len(words) != 3 or words[1] != "-name":
        return None
    return _ls(state, [posixpath.join(words[0], words[2])], [])


COMMANDS: Mapping[str, Callable[[CommandState, list[str], list[str]], Lines]] = {
    "cd": _cd,
    "pwd": _pwd,
    "dirname": _dirname,
    "basename": _basename,
    "readlink": _real_path,
    "realpath": _real_path,
    "echo": _echo,
    "ls": _ls,
    "find": _find,
    "unset": lambda *_: [],
}


def filtered(lines: Lines, words: list[str | None]) -> Lines:
    """Return the output of a pipe for one line: that line."""
    return (
        lines if words[0] in ("head", "tail", "sort", "uniq", "cat") and lines and len(lines) == 1 else None
    )


def the_one_file(pattern: str, *, folder: Path) -> tuple[str | None, str]:
    """Return the path of the only file in the folder that matches; else None, and the reason as a clause."""
    place, _, name = pattern.rpartition("/")
    if place != str(folder) or PATTERN.search(place):
        return None, f"{name} is looked for in another folder than the file's own"
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in islice(entries, MOST_FILES)]
    except OSError as error:
        return None, f"{folder} cannot be listed ({error.strerror})"
    fitting = sorted(
        n for n in names if fnmatch.fnmatchcase(n, name) and n.startswith(".") == name.startswith(".")
    )
    if len(fitting) == 1:
        return f"{place}/{fitting[0]}", ""
    return None, f"{' and '.join(fitting[:3])} fit {name}" if fitting else f"no file fits {name} in {folder}"
