"""The images to be bundled."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.bench.runs import GIB, MIB


def materials(folder: Path) -> Iterator[tuple[str, Path]]:
    """Images of 1 GiB: programs and libraries through and through, 400 MiB of them, and noise."""
    files = folder / "files"
    for name, mib in (("dense", 1400), ("mixed", 400)):
        gather(files, mib * MIB)
        path = folder / f"{name}.img"
        with path.open("wb") as image:
            image.truncate(GIB)
        if name == "dense":
            fill(path, files)
        else:
            subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(files), str(path)], check=True)
            yield "mixed, written out", written_out(path)
        shutil.rmtree(files)
        yield name, path
    noise = folder / "noise.img"
    with noise.open("wb") as image:
        for _ in range(GIB // (16 * MIB)):
            image.write(os.urandom(16 * MIB))
    yield "noise", noise


def gather(folder: Path, size: int) -> None:
    """Copy so many bytes of this system's programs and libraries."""
    folder.mkdir()
    taken = 0
    for source in sorted(Path("/usr").rglob("*")):
        if source.is_symlink() or not source.is_file() or taken > size:
            continue
        shutil.copyfile(source, folder / f"{taken:012}")
        taken += source.stat().st_size


def fill(path: Path, files: Path) -> None:
    """The files' bytes one behind the other, as a disk's are that is full."""
    with path.open("r+b") as image:
        for file in sorted(files.iterdir()):
            image.write(file.read_bytes()[: GIB - image.tell()])
        assert image.tell() == GIB, "there is too little in /usr"


def written_out(path: Path) -> Path:
    dense = path.with_name(f"{path.stem}-written-out.img")
    subprocess.run(["cp", "--sparse=never", str(path), str(dense)], check=True)
    return dense
