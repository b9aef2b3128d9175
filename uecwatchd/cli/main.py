"""The command line: a table of verbs, and how each is run.

Standard output has data, standard error has messages; the exit code is from sysexits. The module of a verb is
imported only when the verb is used: most verbs need no cloud, and `--help` needs nothing.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NoReturn

from uecwatchd.cli import output
from uecwatchd.cli.output import discard_output, flush, put_text, say
from uecwatchd.errors import NotPermitted, UecError
from uecwatchd.system import memory
from uecwatchd.system.internal_errors import internal_error
from uecwatchd.system.text import shell_word

EX_OK = 0
EX_USAGE = 64

# What a verb takes from the service: its user and environment, only its environment, or nothing.
Place = Literal["service", "environment", "own"]


@dataclass(frozen=True, slots=True)
class VerbModule:
    """One verb. Its `module` has a function with its name, and one that adds its options."""

    name: str
    help: str
    module: str
    place: Place = "service"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        if add := getattr(self.load(), f"add_{self.name}_options", None):
            add(parser)

    def run(self, arguments: argparse.Namespace) -> int:
        act: Callable[[argparse.Namespace], int] = getattr(self.load(), self.name)
        return act(arguments)

    def load(self) -> ModuleType:
        return import_module(f"uecwatchd.{self.module}")


VERBS = (
    VerbModule("run", "watch the spool folders until stopped (for systemd)", "cli.run"),
    VerbModule("once", "scan, do everything that can be done, and exit", "cli.once"),
    VerbModule("check", "check everything the service needs", "cli.check.verb", "environment"),
    VerbModule("status", "the state of each file; with a name: why not yet", "cli.status.verb"),
    VerbModule("verify", "download a set from the cloud and compare it", "cli.verify"),
    VerbModule("retry", "try a set again now, in any state", "cli.requests"),
    VerbModule(
        "forget",
        "delete the record of a set; its image stays in the cloud",
        "cli.requests",
    ),
    VerbModule("hold", "stop work on a set, also on a future one", "cli.requests"),
    VerbModule("release", "let a held set continue", "cli.requests"),
    VerbModule("images", "list the images of a cloud, like euca-describe-images", "cli.images"),
    VerbModule("bundle", "bundle one image into a folder, without a cloud", "cli.bundle", "environment"),
    VerbModule("unbundle", "restore the image from a bundle in a folder", "cli.bundle", "environment"),
    VerbModule("inspect", "look into an image: what it is, and if it is ready", "cli.inspect", "own"),
    VerbModule("sandbox", "run the embedded test cloud until interrupted", "cli.sandbox", "own"),
    VerbModule("demo", "show the service at work: embedded cloud, a real image set", "cli.demo", "own"),
)


class _Parser(argparse.ArgumentParser):
    """Parser that makes the end of its help, `appendix`, only on demand, because it needs imports."""

    appendix: Callable[[], str] | None = None

    def format_help(self) -> str:
        if self.appendix:
            self.epilog = self.appendix()
        return super().format_help()

    def print_help(self, _file: object = None) -> None:
        """Print the help on standard output. Raises if nothing more can be written there."""
        put_text(self.format_help())

    def exit(self, status: int = EX_OK, message: str | None = None) -> NoReturn:
        flush()
        super().exit(status, message)

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"{self.prog}: {message}\n")


class _VerbParser(_Parser):
    """Parser of one verb. It adds its options only on use: the other verbs are not loaded."""

    verb: VerbModule

    def parse_known_args(self, *given: Any, **more: Any) -> Any:
        _add_common_options(self, unset=argparse.SUPPRESS)  # options before the verb stay
        self.set_defaults(verb=self.verb, besides="")
        self.verb.add_options(self)
        return super().parse_known_args(*given, **more)


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
        arguments = _parser().parse_args(given)
        with _permitted(given, arguments):
            arguments.given = _enter(arguments)
            code: int = arguments.verb.run(arguments)
        flush()
        return code
    except UecError as error:
        say(f"uecwatchd: {error.what}: {error.why}")
        say(f"  {error.hint}")
        return error.exit_code
    except BrokenPipeError:
        # `uecwatchd status | head`: no reader is left, and Python's message about that is not useful.
        discard_output()
        return EX_OK
    except Exception as fault:  # noqa: BLE001 (every failure of a command is reported as a sentence)
        found = internal_error("this command", fault)
        say(f"uecwatchd: {found.what}: {found.why}")
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
    """Tell a user without access to the configuration or the ledger to use sudo.

    If root lacks access, the service's user does, and another hint applies.
    """
    as_root = os.geteuid() == 0
    try:
        yield
    except NotPermitted as error:
        if as_root or "set" not in arguments:
            raise
        hint = f"Try: sudo uecwatchd {' '.join(map(shell_word, argv))}"
        raise NotPermitted(error.what, error.why, f"{hint}{arguments.besides}") from error


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="uecwatchd",
        description="Turns a drop folder into a cloud image registry.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    _add_common_options(parser, unset=None)
    verbs = parser.add_subparsers(required=True, metavar="VERB", parser_class=_VerbParser)
    for verb in VERBS:
        text = verb.help
        one = verbs.add_parser(verb.name, help=text, description=text[0].upper() + text[1:] + ".")
        one.verb = verb
    return parser


def _add_common_options(parser: argparse.ArgumentParser, *, unset: str | None) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        default=unset,
        metavar="FILE",
        help="configuration file, instead of /etc/uecwatchd/uecwatchd.toml",
    )
    parser.add_argument(
        "--unit",
        default=unset,
        metavar="NAME",
        help="unit with the environment, credentials and user to use: uecwatchd.service",
    )


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from uecwatchd.system.version import version  # it takes as long to load as all else of this module

        put_text(f"uecwatchd {version()}\n")
        parser.exit()
