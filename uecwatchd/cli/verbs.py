"""The verbs as a table, and the parser of the whole command line.

The parser has the options of every verb, so that help, completion and manual pages can be made from it. It
loads no verb: the module of a verb is imported only when the verb is run.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Literal, NoReturn

from uecwatchd.cli import options
from uecwatchd.cli.output import flush, put_text

EX_OK = 0
EX_USAGE = 64

# What a verb takes from the service: its user and environment, only its environment, or nothing.
Place = Literal["service", "environment", "own"]


@dataclass(frozen=True, slots=True)
class VerbModule:
    """One verb. Its `module` has a function with its name."""

    name: str
    help: str
    module: str
    add_options: Callable[[argparse.ArgumentParser], None]
    place: Place = "service"
    appendix: Callable[[], str] | None = None  #: makes the end of the help

    def run(self, arguments: argparse.Namespace) -> int:
        act: Callable[[argparse.Namespace], int] = getattr(self.load(), self.name.replace("-", "_"))
        return act(arguments)

    def load(self) -> ModuleType:
        return import_module(f"uecwatchd.{self.module}")


VERBS = (
    VerbModule(
        "run", "watch the spool folders until stopped (for systemd)", "cli.run", options.add_no_options
    ),
    VerbModule(
        "once", "scan, do everything that can be done, and exit", "cli.once", options.add_once_options
    ),
    VerbModule(
        "check",
        "check everything the service needs",
        "cli.check.verb",
        options.add_check_options,
        "environment",
    ),
    VerbModule(
        "status",
        "the state of each file; with a name: why not yet",
        "cli.status.verb",
        options.add_status_options,
    ),
    VerbModule("log", "what happened to a set, from the ledger", "cli.history.verb", options.add_log_options),
    VerbModule(
        "history",
        "the attempts at a set: times, ids, what replaced it",
        "cli.history.verb",
        options.add_history_options,
    ),
    VerbModule(
        "verify", "download a set from the cloud and compare it", "cli.verify", options.add_verify_options
    ),
    VerbModule(
        "boot", "boot the image of a set in its cloud, as a test", "cli.boot", options.add_boot_options
    ),
    VerbModule(
        "console",
        "the console of an installation, to look at it and to type on it",
        "cli.console",
        options.add_console_options,
    ),
    VerbModule("retry", "try a set again now, in any state", "cli.requests", options.add_retry_options),
    VerbModule(
        "forget",
        "delete the record of a set; its image stays in the cloud",
        "cli.requests",
        options.add_forget_options,
    ),
    VerbModule("hold", "stop work on a set, also on a future one", "cli.requests", options.add_hold_options),
    VerbModule("release", "let a held set continue", "cli.requests", options.add_release_options),
    VerbModule(
        "withdraw",
        "take the image of a set back from its clouds, and hold the set",
        "cli.withdraw",
        options.add_withdraw_options,
    ),
    VerbModule(
        "rollback",
        "use the image before the current one again, and hold the set",
        "cli.rollback",
        options.add_rollback_options,
    ),
    VerbModule(
        "prune",
        "deprecate and remove older images, as [retention] says",
        "cli.prune",
        options.add_prune_options,
    ),
    VerbModule(
        "orphans",
        "list what lies in our buckets and belongs to nothing",
        "cli.orphans",
        options.add_orphans_options,
    ),
    VerbModule("fleet", "list the hosts with the same ledger", "cli.fleet", options.add_fleet_options),
    VerbModule("drain", "let a host begin nothing new", "cli.fleet", options.add_drain_options),
    VerbModule(
        "images",
        "list the images of a cloud, like euca-describe-images",
        "cli.images",
        options.add_images_options,
    ),
    VerbModule(
        "bundle",
        "bundle one image into a folder, without a cloud",
        "cli.bundle",
        options.add_bundle_options,
        "environment",
    ),
    VerbModule(
        "unbundle",
        "restore the image from a bundle in a folder",
        "cli.bundle",
        options.add_unbundle_options,
        "environment",
    ),
    VerbModule(
        "inspect",
        "look into an image: what it is, and if it is ready",
        "cli.inspect",
        options.add_inspect_options,
        "environment",
    ),
    VerbModule(
        "build-worker",
        "carry out installations that the service asks for (for systemd)",
        "cli.build_worker",
        options.add_build_worker_options,
        "own",
    ),
    VerbModule(
        "setup",
        "set up and start the service on this host (for root)",
        "cli.setup.verb",
        options.add_setup_options,
        "own",
    ),
    VerbModule(
        "sandbox",
        "run the embedded test cloud until interrupted",
        "cli.sandbox",
        options.add_sandbox_options,
        "own",
        appendix=options.dialects_and_faults,
    ),
    VerbModule(
        "demo",
        "show the service at work: embedded cloud, a real image set",
        "cli.demo",
        options.add_demo_options,
        "own",
    ),
)


class Parser(argparse.ArgumentParser):
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


def build_parser() -> Parser:
    """Build the parser with all verbs and their options. What it parses has the verb as `verb`."""
    parser = Parser(prog="uecwatchd", description="Turns a drop folder into a cloud image registry.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    options.add_common_options(parser, unset=None)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for verb in VERBS:
        text = verb.help
        one = verbs.add_parser(verb.name, help=text, description=text[0].upper() + text[1:] + ".")
        options.add_common_options(one, unset=argparse.SUPPRESS)  # options before the verb stay
        one.set_defaults(verb=verb, besides="")
        one.appendix = verb.appendix
        verb.add_options(one)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from uecwatchd.system.version import version  # it takes as long to load as all else of this module

        put_text(f"uecwatchd {version()}\n")
        parser.exit()
