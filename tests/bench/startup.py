"""(g) How long a verb takes to begin, and what it loads for that."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.bench.load import Bench
from tests.bench.runs import children
from uecwatchd.sandbox.server import Sandbox

RUNS = 5
HEAVY = ("asyncio", "ssl", "pydantic", "sqlite3", "structlog", "isal", "cryptography", "botocore", "boto3")
VERBS = (
    ("--help",),
    ("--version",),
    ("status", "--help"),
    ("run", "--help"),
    ("status",),
    ("hold", "s0000"),
    ("release", "s0000"),
    ("check",),
    ("images",),
    ("bundle", "--help"),
    ("once",),
)
# Runs a verb in silence, and prints which of the named modules are loaded then.
LOADED = """
import contextlib, io, json, sys
from uecwatchd.cli.main import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    with contextlib.suppress(SystemExit):
        main(sys.argv[2:])
print(json.dumps([name for name in json.loads(sys.argv[1]) if name in sys.modules]))
"""


def startup(folder: Path) -> Iterator[str]:
    """The processor time of each verb on one small set, beside that of a bare interpreter."""
    yield from ("", f"## How long a verb takes to begin (processor time, median of {RUNS})", "")
    yield "| verb | seconds | times a bare interpreter | loads |"
    yield "|---|---|---|---|"
    with tempfile.TemporaryDirectory(dir=folder) as place, Sandbox(Path(place) / "cloud") as cloud:
        bench = Bench(Path(place), cloud)
        bench.drop(1)
        bench.start("once").wait()
        environ = {**os.environ, "UECWATCHD_CONFIG": str(Path(place) / "uecwatchd.toml")}
        bare = seconds_of([sys.executable, "-c", ""], environ)
        for verb in VERBS:
            seconds = seconds_of([sys.executable, "-m", "uecwatchd", *verb], environ)
            command = [sys.executable, "-c", LOADED, json.dumps(HEAVY), *verb]
            loaded = json.loads(subprocess.run(command, env=environ, check=True, capture_output=True).stdout)
            yield (
                f"| `{' '.join(verb)}` | {seconds:.3f} | {seconds / bare:.1f} | "
                f"{', '.join(loaded) or 'none of them'} |"
            )


def seconds_of(command: list[str], environ: Mapping[str, str]) -> float:
    return statistics.median(_once(command, environ) for _ in range(RUNS))


def _once(command: list[str], environ: Mapping[str, str]) -> float:
    before = children()
    subprocess.run(command, env=environ, check=False, capture_output=True)
    return children() - before
