"""(c) From the drop to the EMI."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from tests.bench.runs import ROUNDS, SAMPLE_SECONDS, in_turn, nowhere, processor_of, timed
from tests.support.waiting import until

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
START_SECONDS = 30.0  # far longer than a server takes to start

READING = """
From the beginning of the attempt: the file is read for its digest and the cloud asked what it is and has,
then the image is bundled and uploaded in one go, and then the cloud reads the whole bundle before it gives an
id. The embedded cloud does that on the same processors; of rclone, a real S3 server, only the upload is
measured.
"""
PROFILE = """
Use of the processors in that time, in seconds. The last row of each image is the least that the same work can
take of them, in stages that overlap without end: a target below it cannot be reached.
"""
STAGES = ("before the upload", "bundle and upload", "registration")


@dataclass(frozen=True)
class Taken:
    """Seconds that passed, and seconds of processors taken in them: ours, and the cloud's."""

    seconds: float
    ours: float
    theirs: float

    def __sub__(self, other: "Taken") -> "Taken":
        return Taken(self.seconds - other.seconds, self.ours - other.ours, self.theirs - other.theirs)

    def idle(self, cores: int) -> float:
        return cores * self.seconds - self.ours - self.theirs


@dataclass(frozen=True)
class Drop:
    """A run of `once`: when each line was said, and what was taken from its start on, sampled."""

    said: tuple[tuple[float, str], ...]
    samples: tuple[Taken, ...]

    def when(self, words: str) -> float:
        found = [moment for moment, line in self.said if words in line]
        assert found, "\n".join(line for _, line in self.said)
        return found[0]

    @property
    def uploading(self) -> float:
        """Seconds of bundling and uploading, as it says itself."""
        return float(re.findall(r"parts? in (\d+\.\d) s", "\n".join(line for _, line in self.said))[0])

    @property
    def sent(self) -> float:
        return self.when(": uploaded ")

    def stages(self) -> dict[str, Taken]:
        """The whole attempt, cut where the upload begins and where it ends."""
        ends = (": attempt 1 on cloud", None, ": uploaded ", "karmic is emi-")
        moments = [self.sent - self.uploading if words is None else self.when(words) for words in ends]
        taken = [min(self.samples, key=lambda one: abs(one.seconds - moment)) for moment in moments]
        return {stage: after - before for stage, (before, after) in zip(STAGES, pairwise(taken), strict=True)}


def drops(images: dict[str, Path], folder: Path, cores: int) -> Iterator[str]:
    """`uecwatchd once` on one image, and the embedded cloud, which has the same processors."""
    yield from ("", "## From the drop to the EMI, on loopback", "")
    yield READING.strip()
    yield from (
        "",
        "| image | S3 | bundling alone s | upload s | upload / alone | to the EMI s | EMI / alone |",
    )
    yield f"|{'---|' * 7}"
    profiles = list[str]()
    for name, path in images.items():
        if not name.startswith("mixed"):  # the others are no images that a cloud would take
            continue
        alone = in_turn(partial(timed, path, nowhere))[0].seconds
        begun = f"| {name} |"
        run = middle(path, folder)
        whole = sum(one.seconds for one in run.stages().values())
        upload = f"{alone:.2f} | {run.uploading:.1f} | {run.uploading / alone:.2f}"
        yield f"{begun} embedded | {upload} | {whole:.2f} | {whole / alone:.2f} |"
        profiles.extend(profile(begun, run, cores, alone))
        run = middle(path, folder, real=True)
        yield f"{begun} rclone | {alone:.2f} | {run.uploading:.1f} | {run.uploading / alone:.2f} | | |"
    yield PROFILE.rstrip()
    yield from ("", "| image | stage | took | our processor | the cloud's | idle | took / alone |")
    yield f"|{'---|' * 7}"
    yield from profiles


def profile(begun: str, run: Drop, cores: int, alone: float) -> Iterator[str]:
    """Measure the processor time of each stage, and of all of them if none were ever idle."""
    for stage, one in run.stages().items():
        took = f"{one.seconds:.2f} | {one.ours:.2f} | {one.theirs:.2f} | {one.idle(cores):.2f}"
        yield f"{begun} {stage} | {took} | {one.seconds / alone:.2f} |"
    ours = sum(one.ours for one in run.stages().values())
    theirs = sum(one.theirs for one in run.stages().values())
    least = (ours + theirs) / cores
    yield f"{begun} none ever idle | {least:.2f} | {ours:.2f} | {theirs:.2f} | 0 | {least / alone:.2f} |"


def middle(path: Path, folder: Path, *, real: bool = False) -> Drop:
    """The run in the middle of several."""
    runs = list[Drop]()
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            runs.append(dropped(path, Path(place), real=real))
    return sorted(runs, key=lambda run: run.uploading)[ROUNDS // 2]


def dropped(path: Path, place: Path, *, real: bool = False) -> Drop:
    """One image dropped; `real` has its objects go to rclone, where the embedded cloud cannot read them."""
    spool, config = place / "spool", place / "uecwatchd.toml"
    spool.mkdir()
    command = [sys.executable, "-c", CLOUD, str(place / "cloud")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as cloud:
        assert cloud.stdout is not None
        eucarc = Path(cloud.stdout.readline().strip())
        config.write_text(CONFIGURATION.format(spool=spool, state=place / "state", eucarc=eucarc))
        subprocess.run(["cp", "--sparse=auto", str(path), str(spool / "karmic.img")], check=True)
        (spool / "karmic.toml").write_text(SIDECAR)
        if real:
            with rclone(place / "store", eucarc) as server:
                drop = once(config, server)
        else:
            drop = once(config, cloud.pid)
        cloud.communicate("")
    return drop


@contextmanager
def rclone(store: Path, eucarc: Path) -> Iterator[int]:
    """A real S3 server with the keys of this eucarc, which names it from now on; its process id."""
    text = eucarc.read_text()
    access, secret = (
        re.findall(rf"^export EC2_{name}_KEY='?([^'\n]+)", text, re.M)[0] for name in ("ACCESS", "SECRET")
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    eucarc.write_text(
        re.sub(r"^export S3_URL=.*$", f"export S3_URL=http://127.0.0.1:{port}", text, flags=re.M)
    )
    store.mkdir()
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert program, "rclone is one of the tests' packages"
    options = ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{access},{secret}", "--config", "/dev/null"]
    with subprocess.Popen(
        [program, "serve", "s3", *options, str(store)], stderr=subprocess.DEVNULL
    ) as server:
        try:
            until(lambda: _accepts(port), "the server", patience=START_SECONDS)
            yield server.pid
        finally:
            server.terminate()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def once(config: Path, cloud: int) -> Drop:
    """`uecwatchd once` with this configuration; `cloud` is the process of the cloud."""
    environ, said, samples = {**os.environ, "UECWATCHD_CONFIG": str(config)}, [], list[Taken]()
    theirs, began, over = processor_of(cloud), time.monotonic(), threading.Event()
    command = [sys.executable, "-m", "uecwatchd", "once"]
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as service:

        def sample() -> None:
            while not over.wait(SAMPLE_SECONDS):
                moment, ours = time.monotonic() - began, processor_of(service.pid)
                samples.append(Taken(moment, ours, processor_of(cloud) - theirs))

        sampling = threading.Thread(target=sample)
        sampling.start()
        assert service.stderr is not None
        for line in service.stderr:
            said.append((time.monotonic() - began, line.rstrip()))
        over.set()
        sampling.join()
    return Drop(tuple(said), tuple(samples))
