"""One result of a check."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from uecwatchd.errors import UecError
from uecwatchd.system.text import shell_word

Level = Literal["ok", "warning", "bad"]

# The right of everybody to read a file.
OTHERS_READ = 0o004


@dataclass(frozen=True, slots=True)
class Finding:
    """One result. `exit_code` is that of the command if this is the worst result."""

    level: Level
    what: str
    hint: str = ""
    exit_code: int = 0


def bad(error: UecError, cloud: str = "") -> Finding:
    """Return an error as a finding, with the name of the cloud if the error does not have it."""
    known = not cloud or f"cloud {cloud}" in error.what
    what = error.what if known else f"cloud {cloud}: {error.what}"
    return Finding("bad", f"{what}: {error.why}", error.hint, error.exit_code)


def exit_code(findings: Iterable[Finding]) -> int:
    """Return the exit code of the worst finding: our own mistakes count more than a cloud that is away."""
    return max((f.exit_code for f in findings if f.level == "bad"), default=0)


def open_to_all(path: Path) -> Finding | None:
    """Return a warning for a secret file that everybody may read."""
    try:
        mode = path.stat().st_mode
    except OSError:  # the code that reads it reports this
        return None
    if not mode & OTHERS_READ:
        return None
    what = f"{path}: every user of this machine may read it (mode {mode & 0o7777:04o}), and it holds a secret"
    return Finding("warning", what, f"Try: chmod o-rwx {shell_word(str(path))}")
