"""(c) From the drop to the EMI."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runs import nowhere, processor_of, timed

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
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Drop:
    """A run of `once`: seconds, the processors' seconds, and when each line was said."""

    seconds: float
    ours: float
    theirs: float
    said: tuple[tuple[float, str], ...]

    def when(self, words: str) -> float:
        """When it was said, in seconds after the attempt began."""
        begin = next(moment for moment, line in self.said if ": attempt 1 on cloud" in line)
        found = [moment for moment, line in self.said if words in line]
        assert found, "\n".join(line for _, line in self.said)
        return found[0] - begin

    @property
    def uploading(self) -> float:
        """Seconds of bundling and uploading, as it says itself."""
        return float(re.findall(r"parts? in (\d+\.\d) s", "\n".join(line for _, line in self.said))[0])


def drops(images: dict[str, Path], folder: Path, cores: int) -> Iterator[str]:
    """`uecwatchd once` on one image, and the embedded cloud, which has the same processors."""
    yield from ("", "## From the drop to the EMI, on loopback", "")
    yield (
        "From the beginning of the attempt: the file is read for its digest, then it is bundled and uploaded "
        "in one go, and then the cloud reads the whole bundle before it gives an id. The embedded cloud does "
        "that on the same processors; of rclone, a real S3 server, only the upload is measured."
    )
    yield ""
    yield (
        "| image | S3 | bundling alone s | digest s | bundle and upload s | registration s | to the EMI s "
        "| EMI / alone | upload / alone | our processor s | the cloud's | both, on all processors s |"
    )
    yield f"|{'---|' * 12}"
    for name, path in images.items():
        if not name.startswith("mixed"):  # the others are no images that a cloud would take
            continue
        alone = timed(path, nowhere).seconds
        with tempfile.TemporaryDirectory(dir=folder) as place:
            run = dropped(path, Path(place))
        done, sent = run.when("karmic is emi-"), run.when(": uploaded ")
        yield (
            f"| {name} | embedded | {alone:.2f} | {sent - run.uploading:.1f} | {run.uploading:.1f} "
            f"| {done - sent:.2f} | {done:.2f} | {done / alone:.2f} | {run.uploading / alone:.2f} "
            f"| {run.ours:.2f} | {run.theirs:.2f} | {(run.ours + run.theirs) / cores:.2f} |"
        )
        with tempfile.TemporaryDirectory(dir=folder) as place:
            run = dropped(path, Path(place), real=True)
        sent = run.when(": uploaded ")
        yield (
            f"| {name} | rclone | {alone:.2f} | {sent - run.uploading:.1f} | {run.uploading:.1f} | | | "
            f"| {run.uploading / alone:.2f} | | {run.theirs:.2f} | |"
        )


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
            _await(port)
            yield server.pid
        finally:
            server.terminate()


def _await(port: int) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def once(config: Path, cloud: int) -> Drop:
    """`uecwatchd once` with this configuration; `cloud` is the process of the cloud."""
    environ, said = {**os.environ, "UECWATCHD_CONFIG": str(config)}, []
    theirs, began = processor_of(cloud), time.monotonic()
    command = [sys.executable, "-m", "uecwatchd", "once"]
    service = subprocess.Popen(
        command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert service.stderr is not None
    with service.stderr as lines:
        for line in lines:
            said.append((time.monotonic() - began, line.rstrip()))
    _, status, usage = os.wait4(service.pid, 0)
    service.returncode = os.waitstatus_to_exitcode(status)
    seconds, theirs = time.monotonic() - began, processor_of(cloud) - theirs
    ours = usage.ru_utime + usage.ru_stime
    return Drop(seconds, ours, theirs, tuple(said))
