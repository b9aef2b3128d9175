"""The verb `demo`: the embedded test cloud and the service, shown at work on a real image set."""

import argparse
import tempfile
import time
from pathlib import Path

from uecwatchd.cli.output import put
from uecwatchd.cli.sandbox import sandbox_class


def demo(arguments: argparse.Namespace) -> int:
    sandbox_class()
    from uecwatchd.demo.run import show

    folder = arguments.dir or Path(tempfile.mkdtemp(prefix="uecwatchd-demo-"))
    return show(folder, tuple(arguments.files), say=put, clock=time.monotonic)
