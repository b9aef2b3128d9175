"""The verb `check`."""

import argparse
import os
from datetime import UTC, datetime
from functools import partial

from uecwatchd.cli.check.examine import examine
from uecwatchd.cli.check.finding import exit_code
from uecwatchd.cli.check.unit import needs
from uecwatchd.cli.output import put, put_json
from uecwatchd.cli.unit.user import take_user
from uecwatchd.config.load import load
from uecwatchd.system.signals import stop_on_signals


def check(arguments: argparse.Namespace) -> int:
    unit, settings = arguments.given, load(arguments.config, environ=os.environ)
    wanted = needs(settings)
    take_user(unit, settings.state.dir)
    stop, clock = stop_on_signals(code=os.EX_TEMPFAIL), partial(datetime.now, UTC)
    findings = list(
        examine(settings, clock=clock, unit=unit, wanted=wanted, stop=stop, send=arguments.notify)
    )
    stop.may_go_on()
    if arguments.json:
        put_json([{"level": f.level, "what": f.what, "hint": f.hint} for f in findings])
        return exit_code(findings)
    for finding in findings:
        put(f"{finding.level:<8} {finding.what}")
        if finding.hint:
            put(f"{'':8} {finding.hint}")
    return exit_code(findings)
