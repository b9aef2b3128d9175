"""Settings of a unit, with all drop-ins, from systemd's D-Bus interface.

`busctl` is used because its JSON has types: the output of `systemctl show` would have to be parsed again, and
has no credentials. Every user may ask.
"""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uecwatchd.config.sources import CONFIG_VARIABLE, DEFAULT_CONFIG
from uecwatchd.errors import Deferred
from uecwatchd.system.text import printable

DEFAULT_NAME = "uecwatchd.service"
# Exists only if systemd is process 1 (sd_booted).
BOOTED = Path("/run/systemd/system")
BUS_PATH = "/org/freedesktop/systemd1/unit/"
# It answers within milliseconds; a little later while it is being reloaded.
ASK_SECONDS = 10.0


class UnitUnknown(Deferred):
    """systemd runs here, but does not answer."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit's settings by their names on the bus, which are mostly those in the file."""

    name: str
    settings: Mapping[str, Any]

    def text(self, setting: str) -> str:
        return str(self.settings.get(setting) or "")

    def listed(self, setting: str) -> Sequence[Any]:
        found: Sequence[Any] = self.settings.get(setting) or ()
        return found

    @property
    def environment(self) -> dict[str, str]:
        """The variables in `Environment=`, without files and credentials."""
        return dict(pair.partition("=")[::2] for pair in self.listed("Environment"))

    @property
    def config(self) -> Path:
        """The configuration file that the service reads, as far as the unit says."""
        return Path(self.config_of_command or self.environment.get(CONFIG_VARIABLE) or DEFAULT_CONFIG)

    @property
    def config_of_command(self) -> str:
        return next(_named(self.listed("ExecStart")), "")

    @property
    def is_this_process(self) -> bool:
        """True if this unit runs us: then we already have everything."""
        identity = bytes(self.listed("InvocationID")).hex()
        return bool(identity) and os.environ.get("INVOCATION_ID") == identity


def _named(commands: Sequence[Any]) -> Iterator[str]:
    """Yield the file after `--config` in the unit's command."""
    for _, argv, *_ in commands:
        for word, following in zip(argv, [*argv[1:], ""], strict=True):
            option, equals, value = word.partition("=")
            if option == "--config":
                yield value if equals else following


def unit_for(config: Path | None, *, name: str | None) -> Unit | None:
    """Return the unit with that configuration; None if there is none, or if it runs us.

    With `config` None it is the unit's own. Raises UnitUnknown.
    """
    if os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid()):
        return None
    unit = ask(name or DEFAULT_NAME)
    if unit is None or unit.is_this_process:
        return None
    named = config or (Path(text) if (text := os.environ.get(CONFIG_VARIABLE)) else None)
    return unit if name or named is None or os.path.realpath(named) == os.path.realpath(unit.config) else None


def ask(name: str) -> Unit | None:
    """Return a unit; None if there is none, or no systemd. Raises UnitUnknown."""
    if not BOOTED.is_dir():
        return None
    name = name if "." in name else f"{name}.service"
    path = BUS_PATH + "".join(_in_a_path(byte) for byte in os.fsencode(name))
    method = ("org.freedesktop.DBus.Properties", "GetAll", "s", "")
    command = ["busctl", "--json=short", "call", "org.freedesktop.systemd1", path, *method]
    try:
        done = subprocess.run(command, capture_output=True, timeout=ASK_SECONDS, check=True)
        answer = json.loads(done.stdout)["data"][0]
    except (OSError, subprocess.SubprocessError, ValueError, LookupError) as error:
        raise _unasked(name, error) from None
    settings = {setting: value["data"] for setting, value in answer.items()}
    return Unit(name, settings) if settings.get("LoadState") == "loaded" else None


def _in_a_path(byte: int) -> str:
    plain = byte < 0x80 and chr(byte).isalnum()
    return chr(byte) if plain else f"_{byte:02x}"


def _unasked(name: str, error: Exception) -> UnitUnknown:
    message = (getattr(error, "stderr", None) or str(error).encode()).decode(errors="replace").strip()
    why = printable(message.splitlines()[-1] if message else str(error))
    return UnitUnknown(f"{name}: cannot ask systemd about it", why, "Try: apt-get install dbus")
