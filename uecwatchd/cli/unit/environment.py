"""The environment and credentials of the service, for a verb.

Files of variables and credentials are read by systemd itself: it starts a short service with these settings
of the unit, which prints what it got. Only root can do this.
"""

import base64
import ctypes
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uecwatchd.cli.unit.systemd import Unit
from uecwatchd.config.sources import CONFIG_VARIABLE, PREFIX
from uecwatchd.errors import Halted, NotPermitted
from uecwatchd.system.text import printable

# Variables that always come from the caller: terminal, language, and settings for this call.
OF_THE_CALLER = ("TERM", "COLUMNS", "LINES", "NO_COLOR", "LANG", "LANGUAGE", "TZ", "INVOCATION_ID")
CALLERS_PREFIXES = ("LC_", "PYTHON", PREFIX)
# Variables that systemd sets for the printing service, not for the service of the unit.
OF_THE_PRINTING_SERVICE = (
    "INVOCATION_ID",
    "SYSTEMD_EXEC_PID",
    "CREDENTIALS_DIRECTORY",
    "JOURNAL_STREAM",
    "TERM",
)
# systemd's folder for credentials of running services.
CREDENTIALS = Path("/run/credentials")
# A credential may come over a socket from a program that has to start first.
GIVEN_SECONDS = 60.0

PRINT_ENVIRONMENT = """
import base64, json, os
folder = os.environ.get("CREDENTIALS_DIRECTORY")
def read(name):
    with open(os.path.join(folder, name), "rb") as file:
        return base64.b64encode(file.read()).decode()
files = {name: read(name) for name in os.listdir(folder)} if folder else {}
print(json.dumps([dict(os.environ), files]))
"""

# <sched.h>, <sys/mount.h>
CLONE_NEWNS = 0x0002_0000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_SLAVE = 2, 4, 8, 1 << 14, 1 << 19


@dataclass(frozen=True, slots=True)
class ServiceEnvironment:
    """Environment and credentials that systemd would give to the service."""

    environment: Mapping[str, str]
    credentials: Mapping[str, bytes]


def take_environment(unit: Unit) -> None:
    """Replace the environment by that of the unit's service, with its credentials.

    Raises NotPermitted if the caller may not have them, Halted if systemd cannot provide them.
    """
    given = _service_environment(unit)
    own = {
        name: value
        for name, value in os.environ.items()
        if name in OF_THE_CALLER or name.startswith(CALLERS_PREFIXES)
    }
    environment = {**_home(unit), **_folders(unit), **given.environment}
    if unit.config_of_command:
        environment[CONFIG_VARIABLE] = unit.config_of_command
    environment.update(own)
    os.environ.clear()
    os.environ.update(environment)
    if given.credentials:
        os.environ["CREDENTIALS_DIRECTORY"] = str(_store_credentials(unit, given.credentials))


def _service_environment(unit: Unit) -> ServiceEnvironment:
    """Return everything for root; for others, only public settings and what the running service's user can
    see."""
    if not any(_systemd_options(unit)):
        return ServiceEnvironment({"PATH": os.environ.get("PATH", os.defpath), **unit.environment}, {})
    if os.geteuid() == 0:
        return _ask_systemd(unit)
    running = CREDENTIALS / unit.name
    if unit.listed("EnvironmentFiles") or not os.access(running, os.R_OK | os.X_OK):
        why = "it gives the service credentials or variables that this user may not read"
        raise NotPermitted(f"{unit.name}", why, "Run this as root.")
    return ServiceEnvironment({**unit.environment, "CREDENTIALS_DIRECTORY": str(running)}, {})


def _home(unit: Unit) -> dict[str, str]:
    """Return the variables that systemd sets for a unit with `User=`."""
    try:
        entry = pwd.getpwnam(unit.text("User") or "root")
    except KeyError:
        return {}
    return {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name, "SHELL": entry.pw_shell}


def _folders(unit: Unit) -> dict[str, str]:
    settings = {"STATE_DIRECTORY": "StateDirectory", "CACHE_DIRECTORY": "CacheDirectory"}
    places = {"STATE_DIRECTORY": "/var/lib", "CACHE_DIRECTORY": "/var/cache"}
    listed = {
        name: [f"{places[name]}/{one}" for one in unit.listed(setting)] for name, setting in settings.items()
    }
    return {name: ":".join(folders) for name, folders in listed.items() if folders}


def _systemd_options(unit: Unit) -> Iterator[str]:
    """Yield the settings that only systemd can apply, as options of systemd-run."""
    for path, may_lack in unit.listed("EnvironmentFiles"):
        yield f"--property=EnvironmentFile={'-' if may_lack else ''}{path}"
    for name in unit.listed("PassEnvironment"):
        yield f"--property=PassEnvironment={name}"
    for setting in ("LoadCredential", "LoadCredentialEncrypted"):
        for name, path in unit.listed(setting):
            yield f"--property={setting}={name}:{path}"
    # Since systemd 257 it may have another name for the result, and is there twice.
    plain = [(pattern, "") for pattern in unit.listed("ImportCredential")]
    for pattern, name in unit.listed("ImportCredentialEx") or plain:
        yield f"--property=ImportCredential={pattern}{name and f':{name}'}"
    for name, data in unit.listed("SetCredential"):
        escaped = "".join(f"\\x{byte:02x}" for byte in data)
        yield f"--property=SetCredential={name}:{escaped}"
    for name, data in unit.listed("SetCredentialEncrypted"):
        encoded = base64.b64encode(bytes(data)).decode()
        yield f"--property=SetCredentialEncrypted={name}:{encoded}"


def _ask_systemd(unit: Unit) -> ServiceEnvironment:
    plain = [f"--setenv={name}={value}" for name, value in unit.environment.items()]
    unset = [f"--property=UnsetEnvironment={name}" for name in unit.listed("UnsetEnvironment")]
    try:
        environment, files = json.loads(_run(*plain, *_systemd_options(unit), *unset))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise _not_given(unit, error) from None
    variables = {name: value for name, value in environment.items() if name not in OF_THE_PRINTING_SERVICE}
    return ServiceEnvironment(variables, {name: base64.b64decode(text) for name, text in files.items()})


def _run(*options: str) -> bytes:
    """Let systemd start the service that prints its environment and credentials."""
    command = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", *options]
    done = subprocess.run(
        [*command, sys.executable, "-I", "-c", PRINT_ENVIRONMENT],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=GIVEN_SECONDS,
        check=True,
    )
    return done.stdout


def _not_given(unit: Unit, error: Exception) -> Halted:
    """Return the error for a unit whose service could not start either."""
    what = f"{unit.name}: systemd cannot give the service its credentials and variables"
    hint = f"Correct it: systemctl edit {unit.name}"
    if isinstance(error, subprocess.CalledProcessError) and (faults := [*_faults(unit)]):
        return Halted(what, "; ".join(faults), hint)
    message = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip()
    return Halted(what, printable(message.splitlines()[-1] if message else str(error)), hint)


def _faults(unit: Unit) -> Iterator[str]:
    """Yield the settings that fail alone: systemd's message is in the journal, and names none."""
    for option in _systemd_options(unit):
        try:
            _run(option)
        except (OSError, subprocess.SubprocessError):
            setting, _, value = option.removeprefix("--property=").partition("=")
            yield _fault(setting, value)


def _fault(setting: str, value: str) -> str:
    """Describe a failing setting, without the content of a credential, which may be in the unit itself."""
    credential, _, place = value.partition(":") if "Credential" in setting else ("", "", value)
    path = place.removeprefix("-")
    is_a_path = path.startswith("/") and "*" not in path and not setting.startswith("Set")
    if is_a_path and not Path(path).exists():
        return f"there is no {printable(path)}, which {setting}= names"
    return f"{setting}={printable(credential or path)} cannot be used"


def _store_credentials(unit: Unit, credentials: Mapping[str, bytes]) -> Path:
    """Store the credentials in the service's folder, visible only to this process, and gone at its end.

    They are in memory that is never swapped, in our own mount namespace.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    CREDENTIALS.mkdir(mode=0o755, exist_ok=True)
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    _check_call(libc, libc.unshare(CLONE_NEWNS))
    _check_call(libc, libc.mount(None, b"/", None, MS_REC | MS_SLAVE, None))
    _check_call(libc, libc.mount(b"ramfs", os.fsencode(CREDENTIALS), b"ramfs", flags, b"mode=0755"))
    folder = CREDENTIALS / unit.name
    folder.mkdir()
    for name, data in credentials.items():
        (folder / name).write_bytes(data)
    _change_owner(folder, unit.text("User"))
    return folder


def _check_call(libc: Any, answer: int) -> None:
    if answer != 0:
        number = ctypes.get_errno()
        why = f"it takes file systems of their own, and the kernel says: {os.strerror(number)}"
        raise Halted("credentials cannot be kept here", why, "Ask while the service runs, as its user.")


def _change_owner(folder: Path, user: str) -> None:
    owner = pwd.getpwnam(user).pw_uid if user and not user.isdigit() else int(user or 0)
    for path, mode in (*((file, 0o400) for file in folder.iterdir()), (folder, 0o500)):
        path.chmod(mode)
        os.chown(path, owner, -1)
