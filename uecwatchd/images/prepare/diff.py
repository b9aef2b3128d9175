"""Changes of an edit, as text for a log and a report."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from uecwatchd.images.prepare.edits import MakeLink, RemoveEntry
from uecwatchd.images.prepare.placing import PlacedEdit
from uecwatchd.system.text import printable, shorten

ChangeWord = Literal["added", "changed", "emptied", "removed", "linked"]
MAX_LINES = 100  # the hook has half of them
MAX_LINE_CHARS = 400  # far more than one of the hook has, but a file may be one line


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file of a guest that was changed."""

    path: str
    word: ChangeWord
    reason: str
    lines: tuple[str, ...]  #: with "+" or "-" in front

    def __str__(self) -> str:
        return f"{self.path} {self.word}: {self.reason}"


def describe_change(placed: PlacedEdit) -> FileChange:
    """Return what an edit does to the file that is there."""
    edit, path = placed.edit, shorten(placed.path)
    if isinstance(edit, MakeLink):
        return FileChange(path, "linked", edit.reason, (f"+ -> {edit.target}",))
    if isinstance(edit, RemoveEntry):
        return FileChange(path, "removed", edit.reason, tuple(_lines(placed.before or b"", b"")))
    word: ChangeWord = "added" if placed.before is None else "changed" if edit.content else "emptied"
    return FileChange(path, word, edit.reason, tuple(_lines(placed.before or b"", edit.content)))


def _lines(before: bytes, after: bytes) -> Iterator[str]:
    old, new = (content.decode("utf-8", "replace").splitlines() for content in (before, after))
    changed = (line for line in difflib.ndiff(old, new) if line.startswith(("+ ", "- ")))
    for number, line in enumerate(changed):
        if number == MAX_LINES:
            yield "…"
            return
        yield printable(line[:MAX_LINE_CHARS])
