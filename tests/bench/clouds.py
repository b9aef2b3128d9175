"""One set on several clouds: what each further one costs."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.drops import CLOUD, SIDECAR
from tests.bench.runs import GIB, MIB, ROUNDS, Watched, watched

NUMBERS = (1, 2, 3)
NOISE_BYTES = 896 * MIB  # the rest of a GiB is the file system's
CHUNK_BYTES = 16 * MIB
CONFIGURATION = """\
[spool]
folders = ["{spool}"]
settle = 0.1
[state]
dir = "{state}"
work = "{work}"
[defaults]
bucket = "images"
clouds = {names}
"""
ONE_CLOUD = """\
[cloud.{name}]
dialect = "sandbox"
eucarc = "{eucarc}"
"""
READING = """
`uecwatchd once` on one image, with each embedded cloud in a process of its own, on the same processors. The
clouds read every bundle before they give an id: that is in the seconds to the EMIs, not in the others.
"""


@dataclass(frozen=True)
class Round:
    """One set on some clouds: the service's process, and the seconds of its uploads."""

    service: Watched
    uploading: float


def clouds(images: dict[str, Path], folder: Path) -> Iterator[str]:
    """Compare a set on several clouds with the same set on one."""
    yield from ("", "## One set on several clouds", READING.rstrip(), "")
    yield "| image | clouds | processor s | of one | upload s | of one | to the EMIs s | peak MiB |"
    yield f"|{'---|' * 8}"
    # Noise alone is no image that a cloud would take. It makes the largest copy, and the cheapest bundle.
    dropped_ones = {
        "mixed, written out": images["mixed, written out"],
        "noise in a file system": noise_in_files(folder),
    }
    for name, path in dropped_ones.items():
        rounds = [[dropped(path, folder, number) for number in NUMBERS] for _ in range(ROUNDS)]
        middle = [
            sorted(each, key=lambda one: one.uploading)[ROUNDS // 2] for each in zip(*rounds, strict=True)
        ]
        for number, run in zip(NUMBERS, middle, strict=True):
            used, took, first = run.service.processor, run.uploading, middle[0]
            ours = f"{used:.2f} | {used / first.service.processor:.2f}"
            upload = f"{took:.1f} | {took / first.uploading:.2f}"
            ends = f"{run.service.seconds:.1f} | {run.service.peak:.0f}"
            yield f"| {name} | {number} | {ours} | {upload} | {ends} |"


def noise_in_files(folder: Path) -> Path:
    """Make a file system that is full of noise."""
    path, files = folder / "noise-in-files.img", folder / "noise-files"
    files.mkdir()
    with (files / "noise").open("wb") as file:
        for _ in range(NOISE_BYTES // CHUNK_BYTES):
            file.write(os.urandom(CHUNK_BYTES))
    with path.open("wb") as image:
        image.truncate(GIB)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(files), str(path)], check=True)
    shutil.rmtree(files)
    return path


def dropped(path: Path, folder: Path, number: int) -> Round:
    """Drop the image for so many clouds."""
    with tempfile.TemporaryDirectory(dir=folder) as made, ExitStack() as running:
        place = Path(made)
        spool, config, said = place / "spool", place / "uecwatchd.toml", place / "said"
        spool.mkdir()
        names = [f"c{i}" for i in range(number)]
        text = CONFIGURATION.format(spool=spool, state=place / "state", work=place / "work", names=names)
        for name in names:
            eucarc = running.enter_context(cloud_process(place / name))
            text += ONE_CLOUD.format(name=name, eucarc=eucarc)
        config.write_text(text)
        subprocess.run(["cp", "--sparse=auto", str(path), str(spool / "karmic.img")], check=True)
        (spool / "karmic.toml").write_text(SIDECAR)
        command = [sys.executable, "-m", "uecwatchd", "once"]
        with said.open("w") as lines:
            environ = {**os.environ, "UECWATCHD_CONFIG": str(config)}
            service = watched(subprocess.Popen(command, env=environ, stdout=lines, stderr=lines))
        sent = [float(seconds) for seconds in re.findall(r"parts? in (\d+\.\d) s", said.read_text())]
        assert len(sent) == number, said.read_text()
        return Round(service, sum(sent))


@contextmanager
def cloud_process(place: Path) -> Iterator[str]:
    """An embedded cloud in a process of its own; yields the path of its eucarc."""
    command = [sys.executable, "-c", CLOUD, str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as cloud:
        assert cloud.stdout is not None
        yield cloud.stdout.readline().strip()
        cloud.communicate("")
