"""The verb `demo`: the embedded test cloud and the service, shown at work on a real image set."""

import argparse
import os
import tempfile
import time
from pathlib import Path

from uecwatchd.cli.output import put, say
from uecwatchd.cli.sandbox import sandbox_class


def demo(arguments: argparse.Namespace) -> int:
    if arguments.install and arguments.files:
        say("uecwatchd: --install makes its own files: leave out FILE")
        return os.EX_USAGE
    sandbox_class()
    from uecwatchd.demo.run import show

    folder = arguments.dir or Path(tempfile.mkdtemp(prefix="uecwatchd-demo-"))
    files, install = tuple(arguments.files), arguments.install
    return show(folder, files, install=install, say=put, clock=time.monotonic)
