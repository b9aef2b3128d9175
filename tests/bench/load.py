"""The service under load, in figures. Run by hand: `python -m tests.bench.load [--sets N]`.

Everything runs on this machine against the embedded cloud, in a folder that is removed in the end. The
default of 1,000 sets takes a few minutes; what else runs here shows in the figures.
"""

import argparse
import gzip
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.runs import peak_of, processor_of, watched
from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.clouds.dialects import UEC
from uecwatchd.intake.sets import assemble
from uecwatchd.intake.sets.records import Rules
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool import scan
from uecwatchd.sandbox.server import Sandbox

CONFIGURATION = """\
[spool]
folders = ["{spool}"]
settle = 0.3

[state]
dir = "{state}"

[defaults]
bucket = "images"

[work]
sets = {workers}

[cloud.default]
dialect = "{dialect}"
eucarc = "{eucarc}"
"""
SMALL_BYTES = 64 * 1024
LARGE_BYTES = 200 * 1024**3
LARGE_PIECES = 1024
PIECE_BYTES = 4 * 1024**2  # of noise, in all as much as takes a while
IDLE_SECONDS = 30.0
LARGE_SECONDS = 280.0  # far longer than an idle machine takes for the large image
RULES = Rules(
    settle=0.0,
    defaults=Sidecar(),
    needs={"default": UEC.paravirtual_needs},
    windows_needs={"default": UEC.windows_needs},
    disk_alone=frozenset(),
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--sets", type=int, default=1000, help="sets dropped at once (1000)")
    number: int = arguments.parse_args().sets
    say("command", " ".join(sys.orig_argv[1:]))
    say("machine", f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {platform.release()}")
    for files in (100, 1000, 10_000):
        with tempfile.TemporaryDirectory() as folder:
            say(f"scan of {files} files", scan_times(Path(folder), files))
    for title, dialect, measure in (
        (f"{number} small sets", "sandbox", lambda bench: many_small(bench, number)),
        ("100 sets of one kernel and ramdisk", "sandbox", shared_kernel),
        ("50 small beside a large one, sets = 1", "uec", beside_large),  # no limit to an image's size
        ("idle", "sandbox", idle),
    ):
        with (
            tempfile.TemporaryDirectory() as folder,
            Sandbox(Path(folder) / "cloud", dialect=dialect) as cloud,
        ):
            say(title, measure(Bench(Path(folder), cloud, dialect)))


def say(what: str, figures: str) -> None:
    sys.stdout.write(f"{what:<40}{figures}\n")
    sys.stdout.flush()


class Bench:
    """A spool, a state directory, a cloud, and the service as a process on them."""

    def __init__(self, folder: Path, cloud: Sandbox, dialect: str = "sandbox") -> None:
        self.spool, self.cloud, self._dialect = folder / "spool", cloud, dialect
        self.spool.mkdir()
        self._folder = folder

    def drop(self, number: int, *, text: str = 'kernel = "none"\nconvert = "keep"\n') -> None:
        for i in range(number):
            noise = random.Random(i).randbytes(SMALL_BYTES)  # noqa: S311 (only not to be all alike)
            (self.spool / f"s{i:04}.img").write_bytes(noise)
            (self.spool / f"s{i:04}.toml").write_text(text)

    def start(self, *verb: str, workers: int = 2) -> "subprocess.Popen[bytes]":
        config = self._folder / "uecwatchd.toml"
        state = self._folder / "state"
        config.write_text(
            CONFIGURATION.format(
                spool=self.spool,
                state=state,
                dialect=self._dialect,
                eucarc=self.cloud.eucarc,
                workers=workers,
            )
        )
        command = [sys.executable, "-m", "uecwatchd", *verb]
        environ = {**os.environ, "UECWATCHD_CONFIG": str(config)}
        return subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def done(self) -> int:
        return len(list(self.spool.glob("*.emi")))


def scan_times(folder: Path, files: int) -> str:
    first, unchanged = scan_seconds(folder, files)
    return f"first {first:.2f} s, unchanged {unchanged:.2f} s"


def scan_seconds(folder: Path, files: int) -> tuple[float, float]:
    """Of the first scan of so many files, and of another when nothing has changed."""
    for i in range(files):
        ending = ("toml", "img", "vmlinuz", "initrd")[i % 4]
        (folder / f"s{i // 4:05}.{ending}").write_bytes(b"" if ending == "toml" else b"a few bytes")
    before, took = None, []
    for moment in (0.0, 10.0):
        began = time.perf_counter()
        before = scan.scan(folder, now=moment, before=before)
        assemble.assemble(before, rules=RULES)
        took.append(time.perf_counter() - began)
    return took[0], took[1]


def many_small(bench: Bench, number: int) -> str:
    bench.drop(number)
    return run_once(bench, number, workers=2)


def shared_kernel(bench: Bench) -> str:
    bench.drop(100, text='kernel = "memdisk"\nramdisk = "initrd"\nconvert = "keep"\n')
    (bench.spool / "memdisk").write_bytes(Path("/usr/lib/syslinux/memdisk").read_bytes())
    (bench.spool / "initrd").write_bytes(gzip.compress(b"070701" + bytes(SMALL_BYTES)))
    figures = run_once(bench, 100, workers=8)
    return f"{figures}; {len(bench.cloud.calls('RegisterImage'))} registrations"


def run_once(bench: Bench, number: int, *, workers: int) -> str:
    run = watched(bench.start("once", workers=workers))
    rate = f"{bench.done()} of {number} done in {run.seconds:.0f} s, {bench.done() / run.seconds:.1f} sets/s"
    return f"{rate}, peak memory {run.peak:.0f} MiB"


def beside_large(bench: Bench) -> str:
    (bench.spool / "large.toml").write_text('kernel = "none"\nconvert = "keep"\n')
    with (bench.spool / "large.img").open("wb") as image:
        for index in range(LARGE_PIECES):
            image.seek(index * (LARGE_BYTES // LARGE_PIECES))
            image.write(os.urandom(PIECE_BYTES))
        image.truncate(LARGE_BYTES)
    process = bench.start("run", workers=1)
    began = time.perf_counter()
    try:
        until((bench.spool / "large.uec.json").exists, "the large set")
        bench.drop(50)
        dropped = time.perf_counter()
        until(
            lambda: bench.done() - (bench.spool / "large.emi").exists() == 50,
            "the small sets",
            patience=LARGE_SECONDS,
        )
        small = time.perf_counter() - dropped
        until((bench.spool / "large.emi").exists, "the large set", patience=LARGE_SECONDS)
        large, memory = time.perf_counter() - began, peak_of(process.pid)
    finally:
        stop(process)
    size = f"{LARGE_BYTES >> 30} GiB, {LARGE_PIECES * PIECE_BYTES >> 30} GiB of noise in it"
    small_ones, large_one = (
        f"the small ones after {small:.1f} s",
        f"the large one ({size}) after {large:.0f} s",
    )
    return f"{small_ones}, {large_one}, peak {memory:.0f} MiB"


def idle(bench: Bench) -> str:
    process = bench.start("run")
    try:
        time.sleep(5.0)
        before, used = switches(process.pid), processor_of(process.pid)
        time.sleep(IDLE_SECONDS)
        woken = (switches(process.pid) - before) * 60 / IDLE_SECONDS
        used = (processor_of(process.pid) - used) * 60 / IDLE_SECONDS
    finally:
        stop(process)
    return f"{woken:.0f} wake-ups and {used * 1000:.0f} ms of processor a minute"


def switches(pid: int) -> int:
    """Count how often the threads of a process have gone to sleep by themselves."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    lines = (line for text in texts for line in text.splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE_SECONDS)


if __name__ == "__main__":
    main()
