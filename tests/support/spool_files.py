"""Files in a drop folder, as users put them there."""

import os
from pathlib import Path

from tests.support.sizes import MIB

KEEP = 'kernel = "none"\nconvert = "keep"\n'


def drop_image(folder: Path, name: str, data: bytes, *, sidecar: str = KEEP) -> None:
    """Drop a set of one image that is complete by itself."""
    (folder / f"{name}.toml").write_text(sidecar)
    (folder / f"{name}.img").write_bytes(data)


def image(folder: Path, name: str, *, fill: bytes = b"\x01") -> None:
    drop_image(folder, name, fill * MIB)


ALICE, BOB = 1001, 1002


def dropped(folder: Path, name: str, data: bytes, owner: int) -> None:
    (folder / name).write_bytes(data)
    os.chown(folder / name, owner, owner)


def flood(folder: Path, bad: int) -> None:
    for number in range(bad):
        (folder / f"bad{number}.img").write_bytes(b"no image")
        (folder / f"empty{number}").write_bytes(b"")
    for number in range(bad // 4):
        (folder / f"folder{number}").mkdir()
