"""The plan of a setup: rules from what is wanted and what is there to the steps that are missing."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from uecwatchd.cli.setup.answers import SetupRequest
from uecwatchd.cli.setup.cloud_table import with_settings
from uecwatchd.cli.setup.host_facts import (
    BUILDS,
    DROPPERS,
    ENCRYPTED,
    ONCE_UNIT,
    OPERATORS,
    PLAIN,
    SPOOL,
    SUDO_RULE,
    USER,
    HostFacts,
    StoredCredential,
)
from uecwatchd.cli.setup.steps import RemovePath, RunProgram, SetupStep, StoreCredential, WriteText
from uecwatchd.config.documents import Malformed, parse_toml
from uecwatchd.config.load import check_cloud
from uecwatchd.config.sources import PREFIX
from uecwatchd.errors import Halted

SYSUSERS, TMPFILES = "/usr/lib/sysusers.d/uecwatchd.conf", "/usr/lib/tmpfiles.d/uecwatchd.conf"
DROP_IN_HEAD = (
    "# Written by `uecwatchd setup`. Your own changes belong into another file: systemctl edit uecwatchd\n"
)
STATE = (Path("/var/lib/uecwatchd"), BUILDS, Path("/var/cache/uecwatchd"))
# In the configuration they would be a second place for what is a credential now.
REPLACED = ("eucarc", "euca2ools", "profile")


def plan_setup(wanted: SetupRequest, facts: HostFacts) -> tuple[SetupStep, ...]:
    """Return the missing steps to a running service. Raises Halted if a wish is a mistake."""
    _check_users(wanted, facts)
    check_cloud(wanted.cloud, wanted.settings)
    changes = [*_made(facts), *_configured(wanted, facts), *_credentials(wanted, facts)]
    groups = [*_joined(wanted.members, DROPPERS, facts), *_joined(wanted.operators, OPERATORS, facts)]
    advice = [*_operated(wanted, facts), *_quota(facts)]
    return (*changes, *groups, *advice, *_started(facts, changed=bool(changes)))


def plan_removal(facts: HostFacts, *, purge: bool) -> tuple[SetupStep, ...]:
    """Return the steps back from a setup. Dropped images always stay."""
    kept = f"{SPOOL} and the members of {DROPPERS}"
    kept = kept if purge else f"{facts.config}, the ledger, {kept}"
    return (*_undone(facts), *(_purged(facts) if purge else ()), SetupStep(f"Advice: {kept} stay."))


def left_to_do(steps: Iterable[SetupStep]) -> bool:
    return any(step.change for step in steps)


# --- what is missing --------------------------------------------------------------------------------------


def _check_users(wanted: SetupRequest, facts: HostFacts) -> None:
    for name in (*wanted.members, *wanted.operators):
        if name not in facts.users:
            hint = f"Correct the name, or make the user: adduser {name}"
            raise Halted(f"user {name}", "there is no such user on this host", hint)


def _made(facts: HostFacts) -> Iterator[SetupStep]:
    is_new = USER not in facts.users or not {DROPPERS, OPERATORS} <= facts.groups.keys()
    if is_new:
        text = f"Make the user {USER} and the groups {DROPPERS} and {OPERATORS}"
        yield SetupStep(text, RunProgram(("systemd-sysusers", SYSUSERS)))
    if is_new or not facts.has_folders:
        yield SetupStep(
            f"Make {SPOOL} and the folders of the service",
            RunProgram(("systemd-tmpfiles", "--create", TMPFILES)),
        )


def _configured(wanted: SetupRequest, facts: HostFacts) -> Iterator[SetupStep]:
    if not wanted.has_cloud:
        return
    elsewhere = (*REPLACED, *wanted.credentials)
    text = with_settings(facts.text or "", wanted.cloud, given=wanted.settings, elsewhere=elsewhere)
    if text != facts.text:
        names = ", ".join(wanted.settings)
        say = f"Write [cloud.{wanted.cloud}] in {facts.config}{f': {names}' if names else ''}"
        yield SetupStep(say, WriteText(facts.config, text, mode=0o640, group=USER))


def _credentials(wanted: SetupRequest, facts: HostFacts) -> Iterator[SetupStep]:
    stored = {one.name: one for one in facts.stored}
    folder = ENCRYPTED if facts.can_encrypt else PLAIN
    for key, data in wanted.credentials.items():
        name = f"{PREFIX.lower()}cloud__{wanted.cloud}__{key}"
        there = stored.get(name)
        if there and there.data == data and there.is_encrypted == facts.can_encrypt:
            continue
        path = folder / name
        stored[name] = StoredCredential(name, path, data)
        how = "encrypted with the key of this host" if facts.can_encrypt else "in plain text for root alone"
        yield SetupStep(f"Store {path}, {how}", StoreCredential(name, path, data, facts.can_encrypt))
        if there and there.path != path:
            yield SetupStep(f"Remove {there.path}", RemovePath(there.path))
    text = _drop_in(stored.values())
    if text and text != facts.drop_in:
        for path in facts.drop_in_paths:
            yield SetupStep(f"Give the service its credentials: {path}", WriteText(path, text))
        yield SetupStep("Let systemd read its files again", RunProgram(("systemctl", "daemon-reload")))
    elif facts.needs_reload:
        yield SetupStep("Let systemd read its files again", RunProgram(("systemctl", "daemon-reload")))


def _drop_in(stored: Iterable[StoredCredential]) -> str:
    lines = [
        f"LoadCredential{'Encrypted' if one.is_encrypted else ''}={one.name}:{one.path}\n"
        for one in sorted(stored, key=lambda one: one.name)
    ]
    return f"{DROP_IN_HEAD}[Service]\n{''.join(lines)}" if lines else ""


def _joined(names: Iterable[str], group: str, facts: HostFacts) -> Iterator[SetupStep]:
    for name in names:
        if name not in facts.groups.get(group, frozenset()):
            text = f"Add {name} to the group {group}; it counts from the next login of {name} on"
            # Not usermod: it wants a user to be in /etc/passwd, and not in a directory service.
            yield SetupStep(text, RunProgram(("gpasswd", "--add", name, group)))


def _operated(wanted: SetupRequest, facts: HostFacts) -> Iterator[SetupStep]:
    """Advise of what operators need besides their group."""
    if wanted.operators and not facts.has_sudo:
        yield SetupStep(f"Advice: members of {OPERATORS} use the verbs by sudo: apt-get install sudo")
    if wanted.operators and not facts.has_sudo_rule:
        yield SetupStep(
            f"Advice: sudo needs a rule for members of {OPERATORS}, which comes with the package. From a"
            f" checkout: install -m 0440 etc/packaging/uecadm.sudoers {SUDO_RULE}"
        )


def _quota(facts: HostFacts) -> Iterator[SetupStep]:
    """Advise against one member filling the disk. A group quota would be shared by all of them."""
    disk = f" ({facts.spool_disk})" if facts.spool_disk else ""
    yield SetupStep(
        f"Advice: a member of {DROPPERS} can fill the disk of {SPOOL}{disk}. Mount a disk of its own there,"
        " or give each member a quota: setquota -u NAME 0 100G 0 0 MOUNTPOINT"
    )


def _started(facts: HostFacts, *, changed: bool) -> Iterator[SetupStep]:
    if not facts.is_booted:
        yield SetupStep("Advice: systemd does not run here, so the service is not started.")
        return
    if not facts.is_enabled:
        yield SetupStep("Start the service at every boot", RunProgram(("systemctl", "enable", facts.unit)))
    if facts.has_failed:
        forgotten = RunProgram(("systemctl", "reset-failed", facts.unit))
        yield SetupStep("Let systemd forget its failures", forgotten)
    if changed or not facts.is_active:
        word = "Restart" if facts.is_active else "Start"
        verb = "restart" if facts.is_active else "start"
        yield SetupStep(f"{word} the service", RunProgram(("systemctl", verb, facts.unit), may_fail=True))


# --- the way back -----------------------------------------------------------------------------------------


def _undone(facts: HostFacts) -> Iterator[SetupStep]:
    if facts.is_booted:
        yield from _single_runs_ended(facts)
        yield from _installations_ended(facts)
    if facts.is_booted and (facts.is_enabled or facts.is_active):
        stopped = RunProgram(("systemctl", "disable", "--now", facts.unit))
        yield SetupStep("Stop the service, and start it at no boot", stopped)
    if facts.drop_in:
        for path in facts.drop_in_paths:
            yield SetupStep(f"Remove {path}", RemovePath(path))
        if facts.is_booted:
            yield SetupStep("Let systemd read its files again", RunProgram(("systemctl", "daemon-reload")))
    for one in facts.stored:
        yield SetupStep(f"Remove the credential {one.path}", RemovePath(one.path))


def _single_runs_ended(facts: HostFacts) -> Iterator[SetupStep]:
    """Stop what starts single runs first: it could start one again."""
    for unit in facts.starters:
        yield SetupStep(
            f"Stop {unit}, and start it at no boot", RunProgram(("systemctl", "disable", "--now", unit))
        )
    if facts.single_run:
        yield SetupStep(f"Stop {ONCE_UNIT}", RunProgram(("systemctl", "stop", ONCE_UNIT)))


def _installations_ended(facts: HostFacts) -> Iterator[SetupStep]:
    """Stop the path unit first: it could start the other one again."""
    for unit in facts.installers:
        way = ("disable", "--now") if unit.endswith(".path") else ("stop",)
        yield SetupStep(f"Stop {unit}", RunProgram(("systemctl", *way, unit)))


def _purged(facts: HostFacts) -> Iterator[SetupStep]:
    if facts.text is not None:
        yield SetupStep(f"Remove {facts.config}", RemovePath(facts.config))
    for folder in STATE:
        yield SetupStep(f"Remove {folder} with all that is in it", RemovePath(folder))
    for folder in _state_elsewhere(facts):
        yield SetupStep(
            f"Advice: {folder} stays, which {facts.config} names under [state]. Delete it yourself if nothing"
            " else is in it."
        )


def _state_elsewhere(facts: HostFacts) -> tuple[Path, ...]:
    """Return the folders under [state] that a purge leaves alone: other files may be in them."""
    try:
        state = parse_toml((facts.text or "").encode()).get("state")
    except Malformed:
        return ()
    named = (state.get(key) for key in ("dir", "work")) if isinstance(state, dict) else ()
    folders = (facts.config.parent / one for one in named if isinstance(one, str))
    return tuple(one for one in folders if not any(one.is_relative_to(removed) for removed in STATE))
