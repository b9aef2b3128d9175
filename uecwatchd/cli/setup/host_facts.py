"""Facts about this host for a setup. Nothing is changed, but a first encryption makes the key of the host."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from grp import getgrnam
from pathlib import Path
from pwd import getpwnam

from uecwatchd.cli.setup.steps import decrypted, encrypted
from uecwatchd.cli.unit.systemd import BOOTED, DEFAULT_NAME, ask
from uecwatchd.config.sources import DEFAULT_CONFIG, PREFIX
from uecwatchd.errors import Halted, UecError
from uecwatchd.system.disk_space import free_space
from uecwatchd.system.mounts import file_system_of

# systemd's own places for credentials; only root can read them.
PLAIN, ENCRYPTED = Path("/etc/credstore"), Path("/etc/credstore.encrypted")
ONCE_UNIT = "uecwatchd-once.service"
# The units that start it. They come with the unit of that name only.
STARTERS = ("uecwatchd-once.path", "uecwatchd-once.timer")
# The units of installations, in the order of a stop.
INSTALLERS = ("uecwatchd-build.path", "uecwatchd-build.service")
ACTIVE = ("active", "activating", "reloading")
SPOOL, BUILDS = Path("/var/spool/uecwatchd"), Path("/var/lib/uecwatchd-build")
USER, DROPPERS, OPERATORS = "uecwatchd", "uecdrop", "uecadm"
SUDO_RULE = Path("/etc/sudoers.d/uecwatchd")


@dataclass(frozen=True, slots=True)
class StoredCredential:
    """A credential in one of the stores. `data` is None if it cannot be opened here."""

    name: str
    path: Path
    data: bytes | None = field(repr=False)

    @property
    def is_encrypted(self) -> bool:
        return self.path.parent == ENCRYPTED


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Facts about this host. `text` is None without a configuration.

    `users` are those of the asked names that exist, `groups` our groups, with the members among them.
    """

    unit: str
    config: Path
    text: str | None
    drop_in: str
    stored: tuple[StoredCredential, ...]
    can_encrypt: bool
    users: frozenset[str]
    groups: Mapping[str, frozenset[str]]
    is_booted: bool
    is_enabled: bool
    is_active: bool
    has_folders: bool = True  #: those that no unit makes at its start
    has_sudo: bool = True
    has_sudo_rule: bool = True
    needs_reload: bool = False
    has_failed: bool = False  #: systemd may start it no more, whatever is corrected
    starters: tuple[str, ...] = ()  #: units that start single runs, and are enabled or active
    installers: tuple[str, ...] = ()  #: units of installations that are enabled or active
    single_run: bool = False  #: a single run is at work
    spool_disk: str = ""  #: file system and free space of the spool, for people

    @property
    def drop_in_paths(self) -> tuple[Path, ...]:
        """The drop-in of the unit, and of the unit for single runs that comes with it."""
        units = (self.unit, ONCE_UNIT) if self.unit == DEFAULT_NAME else (self.unit,)
        return tuple(map(drop_in_path, units))


def drop_in_path(unit: str) -> Path:
    return Path(f"/etc/systemd/system/{unit}.d/50-setup.conf")


def host_facts(
    config: Path | None, unit_name: str, *, people: Iterable[str] = (), try_encryption: bool
) -> HostFacts:
    """Look at this host as root, and at these users. Raises Halted if the unit is not installed."""
    name = unit_name if "." in unit_name else f"{unit_name}.service"
    is_booted = BOOTED.is_dir()
    unit = ask(name)
    if is_booted and unit is None:
        hint = "Install the package, or the files in systemd/, as the README says."
        raise Halted(name, "this host has no such unit", hint)
    users = existing_users((USER, *people))
    path = config or (unit.config if unit else DEFAULT_CONFIG)
    return HostFacts(
        unit=name,
        config=path,
        text=_text(path),
        drop_in=_text(drop_in_path(name)) or "",
        stored=tuple(_stored()),
        can_encrypt=_can_encrypt(try_it=try_encryption),
        users=users,
        groups=groups_of(users, among=(DROPPERS, OPERATORS)),
        is_booted=is_booted,
        is_enabled=_is_enabled(name),
        is_active=_is_active(name),
        has_folders=SPOOL.is_dir() and BUILDS.is_dir(),
        has_sudo=shutil.which("sudo") is not None,
        has_sudo_rule=SUDO_RULE.exists(),
        needs_reload=bool(unit and unit.settings.get("NeedDaemonReload")),
        has_failed=_asked("is-active", name) == "failed",
        starters=tuple(filter(_is_used, STARTERS)) if name == DEFAULT_NAME else (),
        installers=tuple(filter(_is_used, INSTALLERS)) if name == DEFAULT_NAME else (),
        single_run=name == DEFAULT_NAME and _is_active(ONCE_UNIT),
        spool_disk=_disk(SPOOL),
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Halted(str(path), f"cannot read it: {error}", "Correct this file, or move it away.") from error


def _stored() -> Iterator[StoredCredential]:
    for folder in (PLAIN, ENCRYPTED):
        for path in sorted(folder.glob(f"{PREFIX.lower()}*")):
            data = None
            with suppress(UecError, OSError):
                data = path.read_bytes() if folder == PLAIN else decrypted(path.name, path)
            yield StoredCredential(path.name, path, data)


def _can_encrypt(*, try_it: bool) -> bool:
    if shutil.which("systemd-creds") is None:
        return False
    if try_it:
        try:
            encrypted("uecwatchd_trial", b"trial")
        except UecError:
            return False
    return True


def existing_users(names: Iterable[str]) -> frozenset[str]:
    """Return the users among the names. Each is asked for, because a directory service lists none."""
    return frozenset(name for name in names if _exists(name))


def _exists(name: str) -> bool:
    try:
        getpwnam(name)
    except KeyError:
        return False
    return True


def groups_of(users: Iterable[str], *, among: Iterable[str]) -> Mapping[str, frozenset[str]]:
    """Return the existing groups, each with its members among these users (primary groups count too)."""
    numbers = {user: os.getgrouplist(user, getpwnam(user).pw_gid) for user in users}
    found = {}
    for name in among:
        with suppress(KeyError):
            number = getgrnam(name).gr_gid
            found[name] = frozenset(user for user in numbers if number in numbers[user])
    return found


def _is_used(unit: str) -> bool:
    return _is_enabled(unit) or _is_active(unit)


def _is_enabled(unit: str) -> bool:
    return _asked("is-enabled", unit) == "enabled"


def _is_active(unit: str) -> bool:
    return _asked("is-active", unit) in ACTIVE


def _asked(*question: str) -> str:
    return _output("systemctl", *question).strip()


def _output(*command: str) -> str:
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        return done.stdout
    return ""


def _disk(folder: Path) -> str:
    """Describe the disk of a folder, or of the first folder above it that is there."""
    there: Sequence[Path] = [one for one in (folder, *folder.parents) if os.path.exists(one)]  # noqa: PTH110
    kind, space = file_system_of(there[0]), free_space(there[0])
    return f"{kind}, {space.free_bytes / 1e9:.0f} GB free" if kind and space else kind
