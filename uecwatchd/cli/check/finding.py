"""One line of the answer."""

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
    """`exit_code` is what the command ends with if this is the worst of it."""

    level: Level
    what: str
    hint: str = ""
    exit_code: int = 0


def bad(error: UecError, cloud: str = "") -> Finding:
    """An error as a finding. It names the file or the call; with several clouds one has to know whose."""
    known = not cloud or f"cloud {cloud}" in error.what
    what = error.what if known else f"cloud {cloud}: {error.what}"
    return Finding("bad", f"{what}: {error.why}", error.hint, error.exit_code)


def exit_code(findings: Iterable[Finding]) -> int:
    """The worst finding's: what is ours to mend counts more than a cloud that is away."""
    return max((f.exit_code for f in findings if f.level == "bad"), default=0)


def open_to_all(path: Path) -> Finding | None:
    """A warning for a file that should be secret and is not."""
    try:
        mode = path.stat().st_mode
    except OSError:  # whoever reads it says so
        return None
    if not mode & OTHERS_READ:
        return None
    what = f"{path}: every user of this machine may read it (mode {mode & 0o7777:04o}), and it holds a secret"
    return Finding("warning", what, f"Try: chmod o-rwx {shell_word(str(path))}")
