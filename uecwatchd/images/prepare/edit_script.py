"""Edits as commands of debugfs(8), with contents in memory files.

debugfs opens these by their descriptors, so nothing has to be written to a disk for it.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Self

from uecwatchd.images.prepare.edits import MakeLink, WriteContent
from uecwatchd.images.prepare.placing import PlacedEdit

LABEL = "security.selinux"
REGULAR_FILE = 0o100000


class EditScript:
    """A script that grows by edits. Use it in a `with`.

    `labelled` are the paths with a label of SELinux. A file that is replaced keeps its own, a new one gets
    that of its folder, as the kernel would do.
    """

    def __init__(self, labelled: frozenset[str]) -> None:
        self._labelled = labelled
        self._opened = ExitStack()
        self._lines = list[str]()
        self._made = set[str]()  # folders
        self.descriptors: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)

    def add(self, placed: PlacedEdit) -> None:
        """Add the commands for an edit. Each command takes names in the current folder only."""
        edit, name = placed.edit, placed.name
        model = placed.path if placed.path in self._labelled and placed.is_there else placed.folder
        label = self._read_label(model)
        self._lines.append(f"cd {placed.folder}")
        self._make_folders(placed, label)
        if placed.is_there:
            self._lines.append(f"rm {name}")
        if isinstance(edit, WriteContent):
            self._lines.append(f"write {self._file(edit.content)} {name}")
            self._lines.append(f"sif {name} mode 0{REGULAR_FILE | edit.mode:o}")
        elif isinstance(edit, MakeLink):
            self._lines.append(f"symlink {name} {edit.target}")
        else:
            return
        self._lines.extend(_set_label(name, label))

    def _make_folders(self, placed: PlacedEdit, label: str) -> None:
        path = placed.folder
        for name in placed.new_folders:
            path = f"{path.rstrip('/')}/{name}"
            if path not in self._made:
                self._made.add(path)
                self._lines += [f"mkdir {name}", *_set_label(name, label)]
            self._lines.append(f"cd {path}")

    def _read_label(self, path: str) -> str:
        """Let debugfs read a label, and return the file where it is then; empty if there is none."""
        if path not in self._labelled:
            return ""
        file = self._file(b"")
        self._lines.append(f"ea_get -f {file} {path} {LABEL}")
        return file

    def _file(self, content: bytes) -> str:
        descriptor = os.memfd_create("edit", os.MFD_CLOEXEC)
        self._opened.callback(os.close, descriptor)
        self.descriptors.append(descriptor)
        os.pwrite(descriptor, content, 0)
        return f"/dev/fd/{descriptor}"


def _set_label(name: str, file: str) -> Iterator[str]:
    if file:
        yield f"ea_set -f {file} {name} {LABEL}"
