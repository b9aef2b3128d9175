"""Two mounts of one folder, as two hosts have it from a file server.

By bindfs, which keeps the locks of each mount for itself: what one host locks, the other one may lock, too.
Names, inodes and times are those of the folder; the numbers of the devices differ.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

needs_bindfs = pytest.mark.skipif(shutil.which("bindfs") is None, reason="bindfs is not installed")


@contextmanager
def mounted(folder: Path, *places: Path) -> Iterator[None]:
    """Mount a folder at other places."""
    with ExitStack() as stack:
        for place in places:
            place.mkdir(parents=True, exist_ok=True)
            subprocess.run(["bindfs", str(folder), str(place)], check=True)
            stack.callback(subprocess.run, ["umount", "--lazy", str(place)], check=True)
        yield
