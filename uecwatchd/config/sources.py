"""Sources of the configuration, for pydantic-settings to merge.

A setting is taken from the first of these that has it:

1. the environment: `UECWATCHD_SPOOL__SETTLE=2`, `UECWATCHD_CLOUD__DEFAULT__ACCESS_KEY=…`
2. systemd's credentials, files of the same names in lower case: `uecwatchd_cloud__default__secret_key`.
   For settings that name a file, such as `user_key`, the credential is that file.
3. the configuration file
4. for the two folders under [state], `$STATE_DIRECTORY` and `$CACHE_DIRECTORY`, as a unit sets them
5. the defaults of the records

In 1 and 2, `UECWATCHD_ACCESS_KEY` and `UECWATCHD_SECRET_KEY` are short for those of the cloud `default`.

Files are read here: TomlConfigSettingsSource skips what is not a regular file and has no limits, and
NestedSecretsSettingsSource reads the credentials of other programs and strips spaces from secrets.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource

from uecwatchd.config.documents import Malformed, parse_toml
from uecwatchd.errors import Halted, NotPermitted
from uecwatchd.system.small_files import read_small, read_small_text
from uecwatchd.system.text import shell_word

DEFAULT_CONFIG = Path("/etc/uecwatchd/uecwatchd.toml")
CONFIG_VARIABLE = "UECWATCHD_CONFIG"  # names the file, and is not a setting itself
PREFIX = "UECWATCHD_"
DELIMITER = "__"
SHORT: Mapping[tuple[str, ...], tuple[str, ...]] = MappingProxyType(
    {(key,): ("cloud", "default", key) for key in ("access_key", "secret_key")}
)
FOLDERS = (
    ("spool", "folders"),
    ("state", "dir"),
    ("state", "work"),
    ("outputs", "page"),
    ("outputs", "metrics"),
    ("install", "builds"),
)
FILES_OF_A_CLOUD = ("eucarc", "euca2ools_files", "user_cert", "user_key", "cloud_cert", "ca_bundle")


@dataclass(frozen=True, slots=True)
class NamedSetting:
    """One setting from a variable or a credential."""

    name: str  #: of the variable or credential, for people
    path: tuple[str, ...]  #: such as `("spool", "settle")`
    value: Any


class NamedSettingsSource(EnvSettingsSource):
    """Tables made of settings that were given one by one.

    EnvSettingsSource alone would decode JSON, so that the account 123456789012 becomes a number, and ignore
    settings of unknown tables.
    """

    def __init__(self, tables: type[BaseSettings], given: Iterable[NamedSetting]) -> None:
        ordered = sorted(given, key=lambda one: len(one.path))  # a table before the settings in it
        tables_given = {one.path[:length] for one in ordered for length in range(len(one.path))}
        # A text gives way to the settings of the table in whose place it is.
        self._given = [one for one in ordered if one.path not in tables_given or isinstance(one.value, dict)]
        super().__init__(tables, env_nested_delimiter=DELIMITER)

    def _load_env_vars(self) -> Mapping[str, Any]:
        return {DELIMITER.join(one.path): one.value for one in self._given}

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Leave the value to the validation."""
        return value

    def __call__(self) -> dict[str, Any]:
        """Return the tables, also unknown ones: validation refuses them with a proposal."""
        known = self.settings_cls.model_fields
        unknown = {one.path[0]: one.value for one in self._given if one.path[0] not in known}
        return {**unknown, **super().__call__()}


# --- variables and credentials ----------------------------------------------------------------------------


def variables(environ: Mapping[str, str]) -> Iterator[NamedSetting]:
    """Yield the settings of the environment; an empty variable is none."""
    for name, text in environ.items():
        if name.startswith(PREFIX) and name != CONFIG_VARIABLE and text:
            path = _path_of(name)
            yield NamedSetting(name, path, _value(path, text))


def credentials(environ: Mapping[str, str]) -> list[NamedSetting]:
    """Return the settings of `$CREDENTIALS_DIRECTORY`; files with other names are not for us."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return []
    try:
        files = sorted(file for file in Path(folder).iterdir() if file.name.startswith(PREFIX.lower()))
        return [_credential(file) for file in files]
    except UnicodeDecodeError as error:
        raise Halted(folder, "a credential is not text", "Write it again, as UTF-8.") from error
    except OSError as error:
        kind = NotPermitted if isinstance(error, PermissionError) else Halted
        why = f"cannot read {error.filename} ({error.strerror})"
        raise kind("$CREDENTIALS_DIRECTORY", why, "Correct LoadCredential= in the unit.") from error


def _credential(file: Path) -> NamedSetting:
    name, path = f"credential {file.name}", _path_of(file.name)
    if path[0] == "cloud" and path[-1] in FILES_OF_A_CLOUD:
        return NamedSetting(name, path, str(file.absolute()))
    return NamedSetting(name, path, _value(path, read_small_text(file).rstrip("\r\n")))


def _path_of(name: str) -> tuple[str, ...]:
    """Split `UECWATCHD_SPOOL__SETTLE` into `("spool", "settle")`."""
    path = tuple(name[len(PREFIX) :].lower().split(DELIMITER))
    return SHORT.get(path, path)


def _value(path: tuple[str, ...], text: str) -> object:
    """Parse the text of a sidecar key: true, false, lists and tables are JSON. All other texts remain.

    Numbers are text: no sidecar key is a number, but `version = "9.10"` looks like one.
    """
    if path[0] != "defaults" or (text not in ("true", "false") and not text.startswith(("[", "{"))):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


# --- the file ---------------------------------------------------------------------------------------------


def read_file(config: Path | None, environ: Mapping[str, str]) -> tuple[Path | None, bytes]:
    """Return the path and content of the file. A file that was named must exist; the default one need not."""
    named, by = (config, "--config") if config else (environ.get(CONFIG_VARIABLE), f"${CONFIG_VARIABLE}")
    path = Path(named or DEFAULT_CONFIG).absolute()
    try:
        return path, read_small(path)
    except PermissionError:
        raise closed_file(path) from None
    except FileNotFoundError:
        if not named:
            return None, b""
        raise Halted(str(path), "there is no such file", f"Correct {by}, which names it.") from None
    except OSError as error:
        hint = f"Correct {by}, which names it." if named else "It must be a file."
        raise Halted(str(path), f"cannot read it ({error.strerror})", hint) from error


def closed_file(path: Path) -> NotPermitted:
    """Return the error for a configuration that the service's user may not read."""
    word = shell_word(str(path))
    return NotPermitted(str(path), "cannot read it", f"Try: chgrp uecwatchd {word} && chmod 640 {word}")


def file_tables(path: Path, data: bytes, *, home: str | None) -> dict[str, Any]:
    """Parse the file, and make its paths absolute: they start at its folder, or with `~` at `home`."""
    try:
        tables = parse_toml(data)
    except Malformed as error:
        raise Halted(str(path), str(error), "Correct it, then run `uecwatchd check`.") from error
    return {key: _absolute(value, (key,), folder=path.parent, home=home) for key, value in tables.items()}


def _absolute(value: Any, path: tuple[str, ...], *, folder: Path, home: str | None) -> Any:
    if isinstance(value, dict):
        return {key: _absolute(one, (*path, key), folder=folder, home=home) for key, one in value.items()}
    if isinstance(value, list):
        return [_absolute(one, path, folder=folder, home=home) for one in value]
    names_a_file = path in FOLDERS or (path[0] == "cloud" and path[-1] in FILES_OF_A_CLOUD)
    if not isinstance(value, str) or not names_a_file:
        return value
    return str(Path(home, value[2:]) if home and value.startswith("~/") else folder / value)


def directory_tables(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the folders that systemd made for the unit; it separates several by colons."""
    given = {"dir": environ.get("STATE_DIRECTORY"), "work": environ.get("CACHE_DIRECTORY")}
    return {"state": {key: value.split(":")[0] for key, value in given.items() if value}}
