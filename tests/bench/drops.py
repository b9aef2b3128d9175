"""(c) From the drop to the EMI."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runs import nowhere, peak_of, processor_of, timed

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


@dataclass(frozen=True)
class Drop:
    """A run of `once`: seconds, the processors' seconds, peak RSS in MiB, and when each line was said."""

    seconds: float
    ours: float
    theirs: float
    peak: float
    said: tuple[tuple[float, str], ...]


def drops(images: dict[str, Path], folder: Path, cores: int) -> Iterator[str]:
    """`uecwatchd once` on one image, and the embedded cloud, which has the same processors."""
    yield from ("", "## From the drop to the EMI, on loopback", "")
    yield "| image | bundling s | to the EMI s | ratio | our processor s | the cloud's | at best s |"
    yield "|---|---|---|---|---|---|---|"
    spoken = {}
    for name, path in images.items():
        if not name.startswith("mixed"):  # the others are no images that a cloud would take
            continue
        alone = timed(path, nowhere)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            run = dropped(path, Path(place))
        yield (
            f"| {name} | {alone.seconds:.2f} | {run.seconds:.2f} | {run.seconds / alone.seconds:.2f} "
            f"| {run.ours:.2f} | {run.theirs:.2f} | {(run.ours + run.theirs) / cores:.2f} |"
        )
        spoken[name] = run.said
    for name, said in spoken.items():
        yield from ("", f'When the service said what of "{name}", in seconds after its start:', "", "```")
        yield from (f"{seconds:6.2f}  {line}" for seconds, line in said)
        yield "```"


def dropped(path: Path, place: Path) -> Drop:
    spool, config = place / "spool", place / "uecwatchd.toml"
    spool.mkdir()
    command = [sys.executable, "-c", CLOUD, str(place / "cloud")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as cloud:
        assert cloud.stdout is not None
        eucarc = cloud.stdout.readline().strip()
        config.write_text(CONFIGURATION.format(spool=spool, state=place / "state", eucarc=eucarc))
        subprocess.run(["cp", "--sparse=auto", str(path), str(spool / "karmic.img")], check=True)
        (spool / "karmic.toml").write_text(SIDECAR)
        drop = once(config, cloud.pid)
        assert (spool / "karmic.emi").exists(), "\n".join(line for _, line in drop.said)
        cloud.communicate("")
    return drop


def once(config: Path, cloud: int) -> Drop:
    """`uecwatchd once` with this configuration; `cloud` is the process of the cloud."""
    environ, said = {**os.environ, "UECWATCHD_CONFIG": str(config)}, []
    theirs, began = processor_of(cloud), time.monotonic()
    command = [sys.executable, "-m", "uecwatchd", "once"]
    service = subprocess.Popen(
        command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert service.stderr is not None
    peak = 0.0
    with service.stderr as lines:
        for line in lines:
            said.append((time.monotonic() - began, line.rstrip()))
            peak = max(peak, peak_of(service.pid))  # the last line is said after all work
    _, status, usage = os.wait4(service.pid, 0)
    service.returncode = os.waitstatus_to_exitcode(status)
    seconds, theirs = time.monotonic() - began, processor_of(cloud) - theirs
    ours = usage.ru_utime + usage.ru_stime
    return Drop(seconds, ours, theirs, peak, tuple(said))
