"""Checks that the service's unit allows access to everything in the configuration."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePath

from uecwatchd.cli.check.finding import Finding, open_to_all
from uecwatchd.cli.check.programs import programs_of
from uecwatchd.cli.unit.path_access import Need, bound, drop_in, obstacles
from uecwatchd.cli.unit.systemd import Unit
from uecwatchd.clouds.credentials import account
from uecwatchd.clouds.credentials.aws_profile import profile_files
from uecwatchd.config.records import CloudSettings, Settings
from uecwatchd.config.sources import FILES_OF_A_CLOUD, PREFIX
from uecwatchd.errors import Halted, UecError
from uecwatchd.system.text import shell_word

CREDENTIALS = PurePath("/run/credentials")
# Credentials without a secret, by the end of their names.
PUBLIC = ("user_cert", "cloud_cert", "ca_bundle", "_url", "region", "account", "dialect")
# Files of a cloud with a setting for each, so that a credential can replace them.
AS_CREDENTIALS = tuple(key for key in FILES_OF_A_CLOUD if key != "euca2ools_files")


def needs(settings: Settings) -> tuple[Need, ...]:
    """Return the paths that the service has to use.

    Call it as root, who can see them all. Starts no program.
    """
    folders = [*settings.spool.folders, settings.state.dir, *settings.outputs.folders().values()]
    if settings.install.worker == "unit":
        folders.append(settings.install.builds)
    found = [Need(PurePath(os.path.realpath(folder)), write=True) for folder in folders]
    found += [_read(settings.source)] if settings.source else []
    found += [replace(_read(Path(path)), execute=True) for path, *_ in programs_of(settings).values()]
    for cloud in settings.clouds.values():
        found += _of_cloud(cloud)
    # Missing files are reported elsewhere; credentials are always accessible.
    needs = (
        need
        for need in found
        if need.write or (not need.path.is_relative_to(CREDENTIALS) and os.path.exists(need.path))  # noqa: PTH110
    )
    return tuple(dict.fromkeys(needs))


def _of_cloud(cloud: CloudSettings) -> Iterator[Need]:
    """Yield the files of a cloud.

    A profile is not read: it may run a program, so that a user who can write its files could run it as root.
    """
    try:
        sources = account.find_sources(replace(cloud, profile=None))
    except UecError:  # reported with the credentials; the files in the configuration itself are known
        sources = account.CredentialSources(cloud.name, cloud, (account.configured(cloud),))
    for key in AS_CREDENTIALS:
        if path := sources.value(key):
            yield _read(Path(path), f"{PREFIX.lower()}cloud__{cloud.name}__{key}")
    eucarc = [cloud.eucarc] if cloud.eucarc else []
    files = [file for place in sources.places for file in place.files]
    files += profile_files(cloud.profile) if cloud.profile else ()
    yield from (_read(file) for file in dict.fromkeys(files) if file not in eucarc)


def _read(path: Path, credential: str = "") -> Need:
    return Need(PurePath(os.path.realpath(path)), credential=credential)


def makes(unit: Unit, folder: Path) -> bool:
    """Return True if systemd creates this state directory for the service."""
    return str(folder) in {f"/var/lib/{name}" for name in unit.listed("StateDirectory")}


def examine_unit(unit: Unit, wanted: tuple[Need, ...]) -> Iterator[Finding]:
    """Check that the service can reach its files; the hint is the command that adds the missing drop-in."""
    user = unit.text("User") or "root"
    yield Finding("ok", f"unit: {unit.name}, whose service runs as {user}")
    if unit.settings.get("NeedDaemonReload"):
        hint = "Try: systemctl daemon-reload"
        yield Finding("warning", f"{unit.name}: its files have changed since systemd read them", hint)
    yield from _open_credentials(unit)
    if found := obstacles(unit, wanted):
        what = f"{unit.name}: {'; '.join(obstacle.why for obstacle in found)}"
        lines = drop_in(found)
        hint = _command(unit, lines) if lines else f"Correct it: systemctl edit {unit.name}"
        yield Finding("bad", what, hint, Halted.exit_code)


def _open_credentials(unit: Unit) -> Iterator[Finding]:
    """Warn of secrets in files open to every user, among the credentials of the unit."""
    for name, place in unit.listed("LoadCredential"):
        if not name.endswith(PUBLIC) and place.startswith("/") and (warning := open_to_all(Path(place))):
            yield warning


def unless_bound(unit: Unit | None, folder: Path, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield the findings, but not those about a folder that the unit has replaced by another."""
    setting = bound(unit, PurePath(folder)) if unit else ""
    for finding in findings:
        if unit and setting and finding.level == "bad":
            what = f"{folder}: only the service sees what {unit.name} has there ({setting})"
            yield Finding("warning", what, f"Once it runs: journalctl -u {unit.name} -p warning -n 20")
        else:
            yield finding


def _command(unit: Unit, lines: tuple[str, ...]) -> str:
    """Return a command for root that adds the lines to our drop-in, and keeps its content.

    Of several drop-ins the last by name has priority, and ours may revoke lines of another.
    """
    folder = f"/etc/systemd/system/{unit.name}.d"
    words = " ".join(map(shell_word, lines))
    written = f"mkdir -p {folder} && printf '%s\\n' {words} >> {folder}/zz-paths.conf"
    return f"Try: {written} && systemctl daemon-reload && systemctl try-restart {unit.name}"
