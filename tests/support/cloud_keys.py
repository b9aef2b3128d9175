"""Keys of embedded clouds, generated once: that takes longer than all else at the start of a small cloud."""

import atexit
import functools
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from uecwatchd.sandbox.state.identity import ensure_identity


@functools.cache
def _keys() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="uecwatchd-keys-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    ensure_identity(folder, now=datetime.now(UTC))
    return folder


def with_keys(folder: Path) -> Path:
    """Make the folder of an embedded cloud, with an account and its keys in it. Returns the folder.

    All clouds in such folders have the same account: a test of two clouds starts one of them without.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in _keys().iterdir():
        shutil.copy2(file, folder)
    return folder
