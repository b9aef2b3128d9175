"""The verb `build-worker`: the process that installs systems, with other rights than the service.

It reads no configuration and has no keys: all that it needs to know is in the requests.
"""

import argparse
import os
import time

from uecwatchd.cli.output import say
from uecwatchd.install.worker import WorkerTools, run_worker
from uecwatchd.system.signals import PATIENCE_SECONDS, Stop, handle_stop_signals


def build_worker(arguments: argparse.Namespace) -> int:
    """Work until there are no requests. A stop is no failure: the next worker begins the stage again."""
    stop = Stop()
    handle_stop_signals(stop.set, code=os.EX_OK, patience=PATIENCE_SECONDS)
    tools = WorkerTools(is_stopping=stop.is_set, wait=stop.wait, tell=say, now=time.time)
    run_worker(arguments.folder, tools, at_once=arguments.at_once)
    return os.EX_OK
