"""(c) From the drop to the EMI."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from runs import children, nowhere, processor_of, timed

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
        alone = timed(path, nowhere)
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
        before, theirs, began = children(), processor_of(cloud.pid), time.monotonic()
        once = [sys.executable, "-m", "uecwatchd", "once"]
        done = subprocess.run(once, env=environ, check=True, capture_output=True, text=True)
        seconds = time.monotonic() - began
        assert (spool / "karmic.emi").exists(), done.stderr
        theirs = processor_of(cloud.pid) - theirs
        ours = children() - before
        cloud.communicate("")
    return seconds, ours, theirs
