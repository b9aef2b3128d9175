"""The verb `check`: whether the service has all that it needs."""

import argparse
import os
from datetime import UTC, datetime
from functools import partial

from uecwatchd import checkup
from uecwatchd.config.load import load
from uecwatchd.system.signals import stopped_by_signals
from uecwatchd.terminal import put, put_json
from uecwatchd.unit import take_user


def add_check_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def check(arguments: argparse.Namespace) -> int:
    unit, settings = arguments.given, load(arguments.config, environ=os.environ)
    wanted = checkup.needs(settings)
    take_user(unit, settings.state.dir)
    stop, clock = stopped_by_signals(code=os.EX_TEMPFAIL), partial(datetime.now, UTC)
    findings = list(checkup.examine(settings, clock=clock, unit=unit, wanted=wanted, stop=stop))
    stop.may_go_on()
    if arguments.json:
        put_json([{"level": f.level, "what": f.what, "hint": f.hint} for f in findings])
        return checkup.exit_code(findings)
    for finding in findings:
        put(f"{finding.level:<8} {finding.what}")
        if finding.hint:
            put(f"{'':8} {finding.hint}")
    return checkup.exit_code(findings)
