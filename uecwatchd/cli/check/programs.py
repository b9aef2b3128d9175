"""Checks of hooks and messages: their programs, and the addresses for apprise."""

import os
from collections.abc import Iterator

from uecwatchd.cli.check.finding import Finding
from uecwatchd.cli.output import say
from uecwatchd.config.records import Command, NotifySettings, Settings
from uecwatchd.errors import Halted
from uecwatchd.outputs.notify.apprise_process import MISSING
from uecwatchd.outputs.notify.facts import facts_of_test
from uecwatchd.outputs.notify.ways import Way, ways_of
from uecwatchd.system.site_program import reason_not_runnable
from uecwatchd.system.text import shell_word

CORRECT = "Correct its path, or let the service's user reach it."
WAYS = "Set command or urls under [notify]."
ADDRESSES = "The forms of addresses are at https://appriseit.com/services/"


def programs_of(settings: Settings) -> dict[str, Command]:
    """Return the configured programs by the names of their settings."""
    found = {
        "hooks.pre": settings.hooks.pre,
        "hooks.registered": settings.hooks.registered,
        "notify.command": settings.notify.command,
    }
    return {setting: command for setting, command in found.items() if command}


def examine_programs(settings: Settings, *, send: bool = False) -> Iterator[Finding]:
    """Check the programs and addresses as this user; with `send`, send a message on each way."""
    for setting, command in programs_of(settings).items():
        yield _examine_program(setting, command)
    ways = ways_of(settings.notify)
    for way in ways:
        if way.url:
            yield _examine_address(way)
    if not ways:
        yield from _examine_useless(settings.notify)
    if send and not ways:
        yield Finding("bad", "no message can be sent", WAYS, os.EX_CONFIG)
    for way in ways if send else ():
        yield _send(way)


def _examine_useless(notify: NotifySettings) -> Iterator[Finding]:
    """Report what is set about messages while none can be sent."""
    if notify.fresh:
        yield Finding("warning", "notify.fresh has no effect: no message can be sent", WAYS)
    if notify.outcomes != NotifySettings().outcomes:
        yield Finding("warning", "notify.outcomes has no effect: no message can be sent", WAYS)


def _examine_program(setting: str, command: Command) -> Finding:
    if why := reason_not_runnable(command[0]):
        hint = f"Try: chmod a+rx {shell_word(command[0])}" if os.path.isfile(command[0]) else CORRECT  # noqa: PTH113
        return Finding("bad", f"{setting}: {command[0]} cannot be started: {why}", hint, Halted.exit_code)
    return Finding("ok", f"{setting}: {command[0]}")


def _examine_address(way: Way) -> Finding:
    if problem := way.examine():
        hint = problem.hint if problem.why == MISSING else ADDRESSES
        return Finding("bad", f"{way.label}: {problem.why}", hint, Halted.exit_code)
    return Finding("ok", f"{way.label}: an address that apprise knows")


def _send(way: Way) -> Finding:
    problem = way.deliver(facts_of_test(), tell=lambda line: say(f"{way.label}: {line}"), check=lambda: None)
    if problem is None:
        return Finding("ok", f"{way.label}: a test message was delivered")
    hint = "See what it says, and `uecwatchd check` for the rest; messages are tried again for a day."
    return Finding("bad", f"{way.label}: the test message failed: {problem.why}", hint, os.EX_TEMPFAIL)
