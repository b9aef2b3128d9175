"""The verb `status`: the state of each file, and why not yet."""

import argparse
import os
import sys
import time
from collections.abc import Sequence

from uecwatchd.cli.output import put, put_json, say, written
from uecwatchd.cli.status.answer import StatusAnswer, make_answer
from uecwatchd.cli.status.elsewhere import LookElsewhere
from uecwatchd.cli.status.rows import Row
from uecwatchd.cli.status.survey import survey
from uecwatchd.cli.status.text import answer_lines, row_json
from uecwatchd.config.load import load
from uecwatchd.config.records import Settings
from uecwatchd.errors import Rejected
from uecwatchd.outputs.terminal import adapt_size, rich_console


def status(arguments: argparse.Namespace) -> int:
    settings = load(arguments.config, environ=os.environ)
    cloud = arguments.cloud or ""
    if cloud and cloud not in settings.clouds:
        why = f"the configuration has {', '.join(sorted(settings.clouds)) or 'none'}"
        raise Rejected(f"there is no cloud named {cloud}", why, "Name one of them.")

    def look() -> StatusAnswer:
        elsewhere = LookElsewhere(arguments.host or "", arguments.set or "")
        found = survey(settings, now=time.time(), cloud=cloud, look=elsewhere)
        return make_answer(found, settings, arguments.set)

    if arguments.watch is None:
        return show(look(), in_json=arguments.json)
    from uecwatchd.cli.status.watch import watch

    return watch(look, every_seconds=arguments.watch)


def show(answer: StatusAnswer, *, in_json: bool) -> int:
    """Print an answer: data on standard output, all messages on standard error. Returns its exit code."""
    for trouble in answer.troubles:
        say(trouble)
    if in_json and not answer.is_unknown:
        put_json([row_json(row, host=answer.host) for row in answer.rows])
    elif not in_json:
        put_answer(answer)
    if answer.rows or not in_json or answer.is_unknown:
        for remark in answer.remarks:
            say(remark)
    return answer.exit_code


def put_answer(answer: StatusAnswer) -> None:
    """Print the rows: in colours on a terminal, and as plain lines elsewhere."""
    if answer.rows and (console := rich_console(sys.stdout, os.environ)):
        from uecwatchd.cli.status.drawing import draw

        adapt_size(console)
        with written():
            console.print(draw(answer, columns=console.width))
        return
    for line in answer_lines(answer):
        put(line)


def put_table(rows: Sequence[Row], settings: Settings) -> None:
    put_answer(StatusAnswer(time.time(), tuple(rows), len(settings.spool.folders)))
