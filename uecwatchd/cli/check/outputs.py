"""Checks of the folders for the page and for the metrics, and of the libraries that write them."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from uecwatchd.cli.check.finding import Finding, bad
from uecwatchd.errors import UecError
from uecwatchd.outputs.metrics import write_metrics
from uecwatchd.outputs.overview import Overview
from uecwatchd.outputs.page import render_page
from uecwatchd.outputs.public_files import cannot_publish
from uecwatchd.system.disk_space import check_space
from uecwatchd.system.text import shell_word

WRITERS = {"outputs.page": render_page, "outputs.metrics": write_metrics}
# The right of everybody to use a folder: a web server and node_exporter run as other users.
OTHERS_ENTER = 0o005


def examine_output(setting: str, folder: Path) -> Iterator[Finding]:
    """Check that the service can write its file there, and that others can read it. Writes nothing."""
    try:
        WRITERS[setting](Overview(0.0, "", ""))
        _check_access(folder, os.R_OK | os.X_OK)
        check_space(folder, f"the folder of {setting}")  # a read-only disk would look like a missing right
        _check_access(folder, os.W_OK)
    except UecError as error:
        yield bad(error)
        return
    if folder.stat().st_mode & OTHERS_ENTER != OTHERS_ENTER:
        hint = f"If their group cannot either: chmod o+rx {shell_word(str(folder))}"
        yield Finding("warning", f"{setting}: other users cannot read what is in {folder}", hint)
        return
    yield Finding("ok", f"{setting}: {folder}")


def _check_access(folder: Path, rights: int) -> None:
    """Raise what the service would report about a folder that it cannot use."""
    try:
        folder.stat()
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(folder, rights, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise cannot_publish(folder, error) from error
