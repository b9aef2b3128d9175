"""How fast bundling is, beside the classic pipeline and beside what this machine can do at all.

Run by hand: `python tests/bench/speed.py [--folder DIR] [--markdown FILE]`. It takes some ten minutes and 8
GB of disk in DIR, all of it removed in the end. What else runs here shows in the seconds; compare the
ratios, all of whose parts were measured in turn within this one run.
"""

import argparse
import hashlib
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from uecwatchd.bundle.deflate import deflater
from uecwatchd.bundle.packing import BLOCK_BYTES
from uecwatchd.bundle.stream import Bundling, Secret
from uecwatchd.bundle.unbundle import inflated
from uecwatchd.digest import fitting_file
from uecwatchd.extents import stored

MB, MIB, GIB = 10**6, 1 << 20, 1 << 30
ROUNDS = 3
SECRET = Secret(b"k" * 16, b"i" * 16)
# What the classic clients do, as a shell would have it; both make parts of 10 MiB.
PIPELINE = """\
set -o pipefail
tar --format=gnu -S -cf - -C {folder} {name} | tee >(sha1sum > {out}/sha1) | {gzip} \
| openssl enc -aes-128-cbc -K {key} -iv {iv} | split -b 10485760 - {out}/part.
"""


@dataclass(frozen=True)
class Run:
    """One way through one image: wall and processor seconds, and what came out, in bytes."""

    seconds: float
    processor: float
    made: int


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments.add_argument("--markdown", type=Path, help="write the tables there as well")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="uecwatchd-speed-") as folder:
        lines = list(report(Path(folder)))
    if given.markdown:
        given.markdown.write_text("\n".join(lines) + "\n")


def report(folder: Path) -> Iterator[str]:
    for line in _lines(folder):
        print(line, flush=True)  # noqa: T201
        yield line


def _lines(folder: Path) -> Iterator[str]:
    cores = len(os.sched_getaffinity(0))
    yield f"# {' '.join(sys.argv)}"
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    yield f"{cores} processors, {_processor()}, {system}"
    images = dict(materials(folder))
    yield from throughput(images, folder)
    yield from primitives(images["dense"], cores)
    yield from drops(images, folder, cores)
    yield from holes(images["dense"], folder)
    yield from memory(folder)


# --- what is bundled --------------------------------------------------------------------------------------


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


# --- (a) beside the classic pipeline ----------------------------------------------------------------------


HEADINGS = "image | ours MB/s | gzip MB/s | pigz MB/s | times gzip | times pigz | ours leaves | gzip leaves"


def throughput(images: dict[str, Path], folder: Path) -> Iterator[str]:
    yield from ("", "## Bundling 1 GiB, into files", "", f"| {HEADINGS} |", f"|{'---|' * 8}")
    for name, path in images.items():
        ours, classic, pigz = in_turn(
            lambda path=path: into_files(path, folder),
            lambda path=path: pipeline(path, folder, "gzip"),
            lambda path=path: pipeline(path, folder, "pigz"),
        )
        speeds = " | ".join(f"{GIB / one.seconds / MB:.0f}" for one in (ours, classic, pigz))
        ratios = f"{classic.seconds / ours.seconds:.1f} | {pigz.seconds / ours.seconds:.1f}"
        yield f"| {name} | {speeds} | {ratios} | {ours.made / GIB:.1%} | {classic.made / GIB:.1%} |"


def in_turn(*ways: Callable[[], Run]) -> list[Run]:
    """Each way so many times, one after the other; of each the run in the middle."""
    runs = [[way() for way in ways] for _ in range(ROUNDS)]
    return [sorted(each, key=lambda run: run.seconds)[ROUNDS // 2] for each in zip(*runs, strict=True)]


def into_files(path: Path, folder: Path) -> Run:
    with _output(folder) as out:
        return timed(path, lambda data, index: (out / f"part.{index}").write_bytes(data))


def timed(path: Path, keep: Callable[[memoryview, int], object], threads: int | None = None) -> Run:
    with path.open("rb", buffering=0) as source:
        status, began, before = os.fstat(source.fileno()), time.monotonic(), time.process_time()
        bundling = Bundling(
            source,
            name="karmic.img",
            size=status.st_size,
            prefix="karmic",
            secret=SECRET,
            extents=stored(source.fileno(), status.st_size),
            digest=fitting_file(status),
            threads=threads,
        )
        for piece in bundling:
            keep(piece.data, piece.part.index)
            bundling.give_back(piece)
    return Run(time.monotonic() - began, time.process_time() - before, bundling.totals.bundled_size)


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
        began, before = time.monotonic(), _children()
        subprocess.run(["bash", "-c", script], check=True)
        seconds = time.monotonic() - began
        made = sum(one.stat().st_size for one in out.glob("part.*"))
        return Run(seconds, _children() - before, made)


@contextmanager
def _output(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=folder) as out:
        yield Path(out)


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


# --- (b) beside what the machine can do -------------------------------------------------------------------


def primitives(path: Path, cores: int) -> Iterator[str]:
    """Each kind of work alone, in one thread, on the same bytes: what they take together is the roof."""
    yield ""
    yield "## What the machine can do at all (dense image)"
    yield ""
    yield "| work | MB/s | seconds for each GB of the image |"
    yield "|---|---|---|"
    with path.open("rb", buffering=0) as source:
        blocks = [bytearray(BLOCK_BYTES) for _ in range(256)]
        reading = processor(lambda: [source.readinto(block) for block in blocks])
    whole = len(blocks) * BLOCK_BYTES
    library = deflater("fast")
    packed = [library.block(block) for block in blocks]
    left = sum(map(len, packed)) / whole
    costs = {
        "read": reading,
        "SHA-256 of the image": processor(lambda: hashed("sha256", blocks)),
        "SHA-1 of the archive": processor(lambda: hashed("sha1", blocks)),
        "deflate": processor(lambda: [library.block(block) for block in blocks]),
        "AES-128-CBC": processor(lambda: encrypted(packed)),
        "SHA-1 of the parts": processor(lambda: hashed("sha1", packed)),
    }
    for work, seconds in costs.items():
        share = left if work in ("AES-128-CBC", "SHA-1 of the parts") else 1
        yield f"| {work} | {whole * share / seconds / MB:.0f} | {seconds / whole * 10**9:.2f} |"
    roof = cores * whole / sum(costs.values())
    ours = statistics.median(GIB / timed(path, _nowhere).seconds for _ in range(ROUNDS))
    yield ""
    yield (
        f"All of it on {cores} processors, none ever idle: {roof / MB:.0f} MB/s. "
        f"Ours, into nothing: {ours / MB:.0f} MB/s, {ours / roof:.0%} of that."
    )
    for threads in (1, 2, 4):
        run = timed(path, _nowhere, threads)
        yield (
            f"Deflating in {threads} threads: {GIB / run.seconds / MB:.0f} MB/s, "
            f"{run.processor / run.seconds:.2f} processors busy."
        )
    yield f"Inflating: {whole / processor(lambda: unpacked(packed)) / MB:.0f} MB/s in one thread."


def processor(work: Callable[[], object]) -> float:
    """Processor seconds of this thread; the least of several times."""

    def once() -> float:
        before = time.thread_time()
        work()
        return time.thread_time() - before

    return min(once() for _ in range(ROUNDS))


def hashed(name: str, blocks: list[bytearray] | list[bytes]) -> None:
    digest = hashlib.new(name)
    for block in blocks:
        digest.update(block)


def encrypted(blocks: list[bytes]) -> None:
    encryptor = Cipher(AES(SECRET.key), CBC(SECRET.iv)).encryptor()
    buffer = bytearray(2 * BLOCK_BYTES)
    for block in blocks:
        encryptor.update_into(block, buffer)


def unpacked(packed: list[bytes]) -> None:
    from uecwatchd.bundle.deflate import HEADER, ending

    stream = inflated(iter([HEADER, *packed, ending(0, 0)]))
    for _ in range(len(packed)):
        next(stream)


def _nowhere(data: memoryview, index: int) -> None:
    del data, index


# --- (c) from the drop to the EMI -------------------------------------------------------------------------

CONFIGURATION = """\
[spool]
folders = ["{spool}"]
settle = 0.1
[state]
dir = "{state}"
[defaults]
bucket = "images"
[cloud.default]
dialect = "sandbox"
eucarc = "{eucarc}"
"""
CLOUD = """
import sys
from pathlib import Path
from uecwatchd.sandbox.server import Sandbox
with Sandbox(Path(sys.argv[1])) as cloud:
    print(cloud.eucarc, flush=True)
    sys.stdin.read()
"""
SIDECAR = 'kernel = "none"\nconvert = "keep"\n'


def drops(images: dict[str, Path], folder: Path, cores: int) -> Iterator[str]:
    """`uecwatchd once` on one image, and the embedded cloud, which has the same processors."""
    yield from ("", "## From the drop to the EMI, on loopback", "")
    yield "| image | bundling s | to the EMI s | ratio | our processor s | the cloud's | at best s |"
    yield "|---|---|---|---|---|---|---|"
    for name, path in images.items():
        if not name.startswith("mixed"):  # the others are no images that a cloud would take
            continue
        alone = timed(path, _nowhere)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            seconds, ours, theirs = dropped(path, Path(place))
        best = (ours + theirs) / cores
        yield (
            f"| {name} | {alone.seconds:.2f} | {seconds:.2f} | {seconds / alone.seconds:.2f} | {ours:.2f} "
            f"| {theirs:.2f} | {best:.2f} |"
        )


def dropped(path: Path, place: Path) -> tuple[float, float, float]:
    """Wall seconds of a run of `once`, its processor seconds, and those of the cloud."""
    spool, config = place / "spool", place / "uecwatchd.toml"
    spool.mkdir()
    command = [sys.executable, "-c", CLOUD, str(place / "cloud")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as cloud:
        assert cloud.stdout is not None
        eucarc = cloud.stdout.readline().strip()
        config.write_text(CONFIGURATION.format(spool=spool, state=place / "state", eucarc=eucarc))
        subprocess.run(["cp", "--sparse=auto", str(path), str(spool / "karmic.img")], check=True)
        (spool / "karmic.toml").write_text(SIDECAR)
        environ = {**os.environ, "UECWATCHD_CONFIG": str(config)}
        before, theirs, began = _children(), _processor_of(cloud.pid), time.monotonic()
        once = [sys.executable, "-m", "uecwatchd", "once"]
        done = subprocess.run(once, env=environ, check=True, capture_output=True, text=True)
        seconds = time.monotonic() - began
        assert (spool / "karmic.emi").exists(), done.stderr
        theirs = _processor_of(cloud.pid) - theirs
        ours = _children() - before
        cloud.communicate("")
    return seconds, ours, theirs


def _processor_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- holes ------------------------------------------------------------------------------------------------


def holes(dense: Path, folder: Path) -> Iterator[str]:
    yield ""
    yield "## Holes"
    yield ""
    yield "| image | seconds | to the same data without a hole |"
    yield "|---|---|---|"
    base = statistics.median(timed(dense, _nowhere).seconds for _ in range(ROUNDS))
    yield f"| 1 GiB, dense | {base:.2f} | 1 |"
    for name, size in (("100 GiB", 100 * GIB), ("1 TiB", 1024 * GIB)):
        path = scattered(dense, folder / "sparse.img", size)
        seconds = statistics.median(timed(path, _nowhere).seconds for _ in range(ROUNDS))
        yield f"| {name} with that GiB in it, in 1,024 places | {seconds:.2f} | {seconds / base:.2f} |"
        path.unlink()
    zeros = folder / "zeros.img"
    with zeros.open("wb") as image:
        for _ in range(1024):
            image.write(bytes(MIB))
    seconds = statistics.median(timed(zeros, _nowhere).seconds for _ in range(ROUNDS))
    yield f"| 1 GiB of zeros, written out | {seconds:.2f} | {seconds / base:.2f} |"
    zeros.unlink()


def scattered(dense: Path, path: Path, size: int) -> Path:
    with dense.open("rb") as source, path.open("wb") as image:
        for index in range(1024):
            image.seek(size // 1024 * index)
            image.write(source.read(MIB))
        image.truncate(size)
    return path


# --- (d) memory -------------------------------------------------------------------------------------------


def memory(folder: Path) -> Iterator[str]:
    yield ""
    yield "## Memory of a process that bundles, by the size of the image (a tenth of it noise, 4 parts kept)"
    yield ""
    yield "| image | peak RSS | open files | seconds |"
    yield "|---|---|---|---|"
    for size in (GIB, 10 * GIB):
        path = folder / "growing.img"
        with path.open("wb") as image:
            for at in range(0, size, 100 * MIB):
                image.seek(at)
                image.write(os.urandom(10 * MIB))
            image.truncate(size)
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(path)], check=True, capture_output=True, text=True
        )
        peak, files, seconds = child.stdout.split()
        yield f"| {size // GIB} GiB | {int(peak) // 1024} MiB | {files} | {float(seconds):.2f} |"
        path.unlink()


CHILD = """
import os, sys, time
from collections import deque
from uecwatchd.bundle.stream import Bundling, Secret
from uecwatchd.extents import stored
began, most, held = time.monotonic(), 0, deque()
with open(sys.argv[1], "rb", buffering=0) as source:
    size = os.fstat(source.fileno()).st_size
    extents = stored(source.fileno(), size)
    made = Bundling(source, name="k", size=size, prefix="k", secret=Secret.random(), extents=extents)
    for piece in made:
        held.append(piece)
        if len(held) > 4:
            made.give_back(held.popleft())
        most = max(most, len(os.listdir("/proc/self/fd")))
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(peak, most, time.monotonic() - began)
"""


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
