"""(a) Bundling beside the classic pipeline."""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.bench.runs import GIB, MB, SECRET, Run, children, in_turn, timed

# What the classic clients do, as a shell would have it; both make parts of 10 MiB.
PIPELINE = """\
set -o pipefail
tar --format=gnu -S -cf - -C {folder} {name} | tee >(sha1sum > {out}/sha1) | {gzip} \
| openssl enc -aes-128-cbc -K {key} -iv {iv} | split -b 10485760 - {out}/part.
"""

HEADINGS = "image | ours MB/s | gzip MB/s | pigz MB/s | times gzip | times pigz | ours leaves | gzip leaves"


def throughput(images: dict[str, Path], folder: Path) -> Iterator[str]:
    yield from ("", "## Bundling 1 GiB, into files", "", f"| {HEADINGS} |", f"|{'---|' * 8}")
    for name, path in images.items():
        ours, classic, pigz = in_turn(
            partial(into_files, path, folder),
            partial(pipeline, path, folder, "gzip"),
            partial(pipeline, path, folder, "pigz"),
        )
        speeds = " | ".join(f"{GIB / one.seconds / MB:.0f}" for one in (ours, classic, pigz))
        ratios = f"{classic.seconds / ours.seconds:.1f} | {pigz.seconds / ours.seconds:.1f}"
        yield f"| {name} | {speeds} | {ratios} | {ours.made / GIB:.1%} | {classic.made / GIB:.1%} |"


def into_files(path: Path, folder: Path) -> Run:
    with _output(folder) as out:
        return timed(path, lambda data, index: (out / f"part.{index}").write_bytes(data))


def pipeline(path: Path, folder: Path, gzip: str) -> Run:
    with _output(folder) as out:
        script = PIPELINE.format(
            folder=path.parent,
            name=path.name,
            gzip=gzip,
            out=out,
            key=SECRET.key.hex(),
            iv=SECRET.iv.hex(),
        )
        began, before = time.monotonic(), children()
        subprocess.run(["bash", "-c", script], check=True)
        seconds = time.monotonic() - began
        made = sum(one.stat().st_size for one in out.glob("part.*"))
        return Run(seconds, children() - before, made)


@contextmanager
def _output(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=folder) as out:
        yield Path(out)
