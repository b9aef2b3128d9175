"""The verb `setup`."""

import argparse
import getpass
import os
import sys

from uecwatchd.cli.output import put, say
from uecwatchd.cli.setup.answers import SetupRequest, requested
from uecwatchd.cli.setup.host_facts import HostFacts, drop_in_path, host_facts
from uecwatchd.cli.setup.plan import left_to_do, plan_removal, plan_setup
from uecwatchd.cli.setup.steps import SetupStep, StepFailed, carry_out
from uecwatchd.cli.unit.systemd import DEFAULT_NAME
from uecwatchd.errors import Halted, NotPermitted


def setup(arguments: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        raise NotPermitted(
            "setup", "it changes this host, which only root may do", "Try: sudo uecwatchd setup"
        )
    dry, unit = arguments.dry_run, arguments.unit or DEFAULT_NAME
    if arguments.purge and not arguments.remove:
        raise Halted("--purge", "it belongs to --remove", "Try: uecwatchd setup --remove --purge")
    if arguments.remove:
        facts = host_facts(arguments.config, unit, try_encryption=False)
        return _act(plan_removal(facts, purge=arguments.purge), dry=dry)
    wanted = requested(arguments, ask=_ask if _may_ask(arguments) else None)
    try_encryption = not dry and bool(wanted.credentials)
    people = (*wanted.members, *wanted.operators)
    facts = host_facts(arguments.config, unit, people=people, try_encryption=try_encryption)
    return _set_up(wanted, facts, dry=dry)


def _may_ask(arguments: argparse.Namespace) -> bool:
    """Ask only a person, and only at first: later calls add members, or replace what they name."""
    return sys.stdin.isatty() and not drop_in_path(arguments.unit or DEFAULT_NAME).exists()


def _ask(question: str, secret: bool) -> str:  # noqa: FBT001 (as the questions have it)
    prompt = f"{question}: "
    try:
        return getpass.getpass(prompt) if secret else input(prompt).strip()
    except EOFError:
        put("")  # the message begins a line of its own
        hint = "Nothing was changed. Options can answer too: uecwatchd setup --help"
        raise Halted("setup", "a question got no answer", hint) from None


def _set_up(wanted: SetupRequest, facts: HostFacts, *, dry: bool) -> int:
    steps = plan_setup(wanted, facts)
    code = _act(steps, dry=dry)
    if dry or not facts.is_booted:
        return code
    from uecwatchd.cli.main import main  # the last act: it gives up the rights of root

    # A check that finds nothing wrong does not start the service.
    return main(["check", f"--unit={facts.unit}", f"--config={facts.config}"]) or code


def _act(steps: tuple[SetupStep, ...], *, dry: bool) -> int:
    """Print each step, and carry it out unless this is a trial. Returns the code of one that may fail."""
    code = os.EX_OK
    if not left_to_do(steps):
        put("Nothing to change.")
    for step in steps:
        put(f"{'Would: ' if dry and step.change else ''}{step.text}")
        if step.change and not dry:
            try:
                carry_out(step.change)
            except StepFailed as error:
                say(f"uecwatchd: {error.what}: {error.why}")
                code = error.exit_code
    return code
