"""The verb `status`: the state of each file, and why not yet."""

import argparse
import os
import time
from collections.abc import Sequence

from uecwatchd.cli.output import put, put_json, say
from uecwatchd.cli.status.rows import Row, about
from uecwatchd.cli.status.survey import survey
from uecwatchd.cli.status.text import details, row_json, table
from uecwatchd.config.load import load
from uecwatchd.config.records import Settings


def status(arguments: argparse.Namespace) -> int:
    return show_rows(load(arguments.config, environ=os.environ), in_json=arguments.json, name=arguments.set)


def show_rows(settings: Settings, *, in_json: bool, name: str | None = None) -> int:
    found = survey(settings, now=time.time())
    for trouble in found.troubles:
        say(f"uecwatchd: {trouble}")
    rows = about(found.rows, name) if name else found.rows
    if name and not rows and not found.troubles:
        say(f"uecwatchd: there is nothing named {name} in the spool folders")
        return os.EX_NOINPUT
    if in_json:
        put_json([row_json(row) for row in rows])
    else:
        for line in _lines(rows, name, settings):
            put(line)
    if not rows and not found.troubles and not in_json:
        say("The spool folders are empty.")
    if not found.known.alive and any(row.needs_daemon for row in rows):
        say(f"No daemon is running on {settings.state.dir}: no work is done until one runs.")
    return max((trouble.exit_code for trouble in found.troubles), default=os.EX_OK)


def _lines(rows: Sequence[Row], name: str | None, settings: Settings) -> list[str]:
    if name:
        return [line for row in rows for line in details(row, asked=name)]
    return shown_table(rows, settings)


def shown_table(rows: Sequence[Row], settings: Settings) -> list[str]:
    return table(rows, folders=len(settings.spool.folders)) if rows else []
