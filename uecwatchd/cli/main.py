"""The command line: one verb, run in the place of the service.

Standard output has data, standard error has messages; the exit code is from sysexits.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from uecwatchd.cli import output
from uecwatchd.cli.operators import repeat_as_operator
from uecwatchd.cli.output import discard_output, flush, say
from uecwatchd.cli.verbs import EX_OK, build_parser
from uecwatchd.errors import NotPermitted, UecError, problem
from uecwatchd.system import memory
from uecwatchd.system.internal_errors import internal_error
from uecwatchd.system.signals import end_by_interrupt
from uecwatchd.system.text import shell_word


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns its exit code."""
    output.never_closed()
    if argv is None:
        output.speak_utf8()
    output.escape()
    memory.use_one_heap()
    memory.disable_core_dumps()
    given = sys.argv[1:] if argv is None else argv
    try:
        arguments = build_parser().parse_args(given)
        with _permitted(given, arguments):
            arguments.given = _enter(arguments)
            code: int = arguments.verb.run(arguments)
        flush()
        return code
    except UecError as error:
        say(f"uecwatchd: {problem(error)}")
        say(f"  {error.hint}")
        return error.exit_code
    except BrokenPipeError:
        # `uecwatchd status | head`: no reader is left, and Python's message about that is not useful.
        discard_output()
        return EX_OK
    except KeyboardInterrupt:
        if argv is not None:
            raise
        end_by_interrupt()
        return EX_OK
    except Exception as fault:  # noqa: BLE001 (every failure of a command is reported as a sentence)
        found = internal_error("this command", fault)
        say(f"uecwatchd: {problem(found)}")
        say(f"  Please report it, with these places: {found.way}")
        return found.exit_code


def _enter(arguments: argparse.Namespace) -> Any:
    """Take the environment and the user of the service, as the verb needs them. Returns the unit."""
    if arguments.verb.place == "own":
        return None
    from uecwatchd.cli.unit.environment import take_environment
    from uecwatchd.cli.unit.systemd import UnitUnknown, unit_for
    from uecwatchd.cli.unit.user import take_user
    from uecwatchd.config.load import load

    try:
        given = unit_for(arguments.config, name=arguments.unit)
    except UnitUnknown as error:
        say(f"uecwatchd: {error}")
        given = None
    if given:
        take_environment(given)
    if arguments.verb.place == "service" and os.geteuid() == 0:
        take_user(given, load(arguments.config, environ=os.environ).state.dir)
    return given


@contextmanager
def _permitted(argv: Sequence[str], arguments: argparse.Namespace) -> Iterator[None]:
    """Let an operator without access to the configuration or the ledger use sudo; tell others about it.

    If root lacks access, the service's user does, and another hint applies.
    """
    as_root = os.geteuid() == 0
    try:
        yield
    except NotPermitted as error:
        if not as_root:
            repeat_as_operator(arguments.verb.name, argv)
        if as_root or "set" not in arguments:
            raise
        hint = f"Try: sudo uecwatchd {' '.join(map(shell_word, argv))}"
        raise NotPermitted(error.what, error.why, f"{hint}{arguments.besides}") from error
