"""Loading of the configuration: from all its sources to one record, and every mistake to a sentence.

A setting is taken from the first of these that has it:

1. the environment: `UECWATCHD_SPOOL__SETTLE=2`, `UECWATCHD_CLOUD__DEFAULT__ACCESS_KEY=…`
2. systemd's credentials, files of the same names in lower case: `uecwatchd_cloud__default__secret_key`.
   For settings that name a file, such as `user_key`, the credential is that file.
3. the configuration file
4. for the two folders under [state], `$STATE_DIRECTORY` and `$CACHE_DIRECTORY`, as a unit sets them
5. the defaults below

In 1 and 2, `UECWATCHD_ACCESS_KEY` and `UECWATCHD_SECRET_KEY` are short for those of the cloud `default`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from uecwatchd.config.documents import (
    KeyPath,
    Malformed,
    did_you_mean,
    join_first,
    parse_toml,
    word_mistakes,
)
from uecwatchd.config.overlaps import clashes
from uecwatchd.config.records import (
    CloudSettings,
    FolderPolicy,
    Settings,
    SpoolSettings,
    StateSettings,
    WorkSettings,
    cloud_name,
)
from uecwatchd.errors import Halted, NotPermitted
from uecwatchd.system.small_files import read_small, read_small_text
from uecwatchd.system.text import shell_word

DEFAULT_CONFIG = Path("/etc/uecwatchd/uecwatchd.toml")
PREFIX = "UECWATCHD_"
CORRECT = "Correct this, then run `uecwatchd check`."
CONFIG_VARIABLE = "UECWATCHD_CONFIG"  # names the file, and is not a setting itself


def _named(clouds: object) -> object:
    if not isinstance(clouds, dict):
        return clouds
    return {
        name: {**table, "[name]": name} if isinstance(table, dict) else table
        for name, table in clouds.items()
    }


def _for_folders_that_are_watched(spool: SpoolSettings) -> SpoolSettings:
    """Refuse a policy for an unknown folder: with a misspelt name the right folder would have no policy."""
    for folder in spool.policy:
        if folder not in spool.folders:
            watched = [str(one) for one in spool.folders]
            near = did_you_mean(str(folder), watched)
            raise ValueError(f"has a policy for {folder}, which is not among its folders{near}")
    return spool


class _Door(BaseSettings):
    """The tables as in the file: `[cloud.NAME]`, where the record says `clouds`."""

    model_config = SettingsConfigDict(extra="forbid", hide_input_in_errors=True)

    spool: Annotated[SpoolSettings, AfterValidator(_for_folders_that_are_watched)] = SpoolSettings()
    state: StateSettings = StateSettings()
    work: WorkSettings = WorkSettings()
    defaults: dict[str, object] = {}
    cloud: Annotated[
        dict[Annotated[str, AfterValidator(cloud_name)], CloudSettings], BeforeValidator(_named)
    ] = {}


SECTIONS: Mapping[str, Any] = MappingProxyType(
    {"spool": SpoolSettings, "state": StateSettings, "work": WorkSettings, "cloud": CloudSettings}
)
SHORT: Mapping[tuple[str, ...], tuple[str, ...]] = MappingProxyType(
    {(key,): ("cloud", "default", key) for key in ("access_key", "secret_key")}
)
FOLDERS = (("spool", "folders"), ("state", "dir"), ("state", "work"))
FILES_OF_A_CLOUD = ("eucarc", "euca2ools_files", "user_cert", "user_key", "cloud_cert", "ca_bundle")


def keys_of(section: str) -> tuple[str, ...]:
    """Return the settings of a section, as a configuration file spells them."""
    return tuple(one.name for one in fields(SECTIONS[section]) if one.name != "name")


# --- the layers -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layer:
    """Settings from one source as nested tables. `names` maps each to its variable or credential."""

    tables: Mapping[str, Any]
    names: Mapping[KeyPath, str] = field(default_factory=dict)


class _Source(PydanticBaseSettingsSource):
    """Adapter that passes one layer to pydantic-settings, which merges the layers."""

    def __init__(self, door: type[BaseSettings], layer: _Layer) -> None:
        super().__init__(door)
        self._layer = layer

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._layer.tables.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return dict(self._layer.tables)


def load(config: Path | None, *, environ: Mapping[str, str]) -> Settings:
    """Read the configuration. Raises Halted with all mistakes, or NotPermitted if it is unreadable."""
    source, data = _read(config, environ)
    layers = (
        _environment(environ),
        _credentials(environ),
        _file(source, data, home=environ.get("HOME")) if source else _Layer({}),
        _directories(environ),
    )
    try:
        door = _lay_over(layers)
    except ValidationError as error:
        raise _mistakes(error, layers, source) from None  # pydantic's message might show a secret
    settings = Settings(door.spool, door.state, door.work, door.defaults, door.cloud, source)
    if why := join_first(clashes(settings)):
        raise Halted(_where(source), why, CORRECT)
    return settings


def _lay_over(layers: Iterable[_Layer]) -> _Door:
    class Door(_Door):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: Any, **__: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(_Source(settings_cls, layer) for layer in layers)

    return Door()


def _read(config: Path | None, environ: Mapping[str, str]) -> tuple[Path | None, bytes]:
    """Return the path and content of the file. A file that was named must exist; the default one need not."""
    named, by = (config, "--config") if config else (environ.get(CONFIG_VARIABLE), f"${CONFIG_VARIABLE}")
    path = Path(named or DEFAULT_CONFIG).absolute()
    try:
        return path, read_small(path)
    except PermissionError:
        word = shell_word(str(path))
        hint = f"Try: chgrp uecwatchd {word} && chmod 640 {word}"
        raise NotPermitted(str(path), "cannot read it", hint) from None
    except FileNotFoundError:
        if not named:
            return None, b""
        raise Halted(str(path), "there is no such file", f"Correct {by}, which names it.") from None
    except OSError as error:
        hint = f"Correct {by}, which names it." if named else "It must be a file."
        raise Halted(str(path), f"cannot read it ({error.strerror})", hint) from error


def _file(path: Path, data: bytes, *, home: str | None) -> _Layer:
    try:
        tables = parse_toml(data)
    except Malformed as error:
        raise Halted(str(path), str(error), "Correct it, then run `uecwatchd check`.") from error
    return _Layer(_anchored(tables, (), folder=path.parent, home=home))


def _anchored(value: Any, path: tuple[str, ...], *, folder: Path, home: str | None) -> Any:
    """Make relative paths absolute, starting at the folder of the file that contains them."""
    if isinstance(value, dict):
        return {key: _anchored(one, (*path, key), folder=folder, home=home) for key, one in value.items()}
    if isinstance(value, list):
        return [_anchored(one, path, folder=folder, home=home) for one in value]
    if not isinstance(value, str) or not _names_a_file(path):
        return value
    return str(Path(home, value[2:]) if home and value.startswith("~/") else folder / value)


def _names_a_file(path: tuple[str, ...]) -> bool:
    return path in FOLDERS or (path[0] == "cloud" and path[-1] in FILES_OF_A_CLOUD)


def _environment(environ: Mapping[str, str]) -> _Layer:
    ours = {name: value for name, value in environ.items() if name.startswith(PREFIX) and value}
    ours.pop(CONFIG_VARIABLE, None)
    return _layer((name, _path_of(name), value) for name, value in ours.items())


def _credentials(environ: Mapping[str, str]) -> _Layer:
    """Return the files of `$CREDENTIALS_DIRECTORY` that have names of settings; others are not for us."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return _Layer({})
    try:
        files = sorted(file for file in Path(folder).iterdir() if file.name.startswith(PREFIX.lower()))
        return _layer((f"credential {file.name}", *_credential(file)) for file in files)
    except UnicodeDecodeError as error:
        raise Halted(folder, "a credential is not text", "Write it again, as UTF-8.") from error
    except OSError as error:
        kind = NotPermitted if isinstance(error, PermissionError) else Halted
        why = f"cannot read {error.filename} ({error.strerror})"
        raise kind("$CREDENTIALS_DIRECTORY", why, "Correct LoadCredential= in the unit.") from error


def _credential(file: Path) -> tuple[tuple[str, ...], str]:
    path = _path_of(file.name)
    if path[0] == "cloud" and path[-1] in FILES_OF_A_CLOUD:
        return path, str(file.absolute())
    return path, read_small_text(file).rstrip("\r\n")


def _path_of(name: str) -> tuple[str, ...]:
    """Split `UECWATCHD_SPOOL__SETTLE` into `("spool", "settle")`."""
    path = tuple(name[len(PREFIX) :].lower().split("__"))
    return SHORT.get(path, path)


def _layer(said: Iterable[tuple[str, tuple[str, ...], str]]) -> _Layer:
    """Make nested tables from single settings, given as (name, path, value)."""
    tables: dict[str, Any] = {}
    names: dict[KeyPath, str] = {}
    for name, path, value in sorted(said, key=lambda one: len(one[1])):
        table = tables
        for part in path[:-1]:
            if not isinstance(table.setdefault(part, {}), dict):
                table[part] = {}
            table = table[part]
        table[path[-1]] = _literal(value) if path[0] == "defaults" else value
        names[path] = name
    return _Layer(tables, names)


def _literal(text: str) -> object:
    """Parse a sidecar key from the environment: true, false, lists and tables are JSON, the rest is text.

    Numbers stay text: no sidecar key is a number, but `version = "9.10"` looks like one.
    """
    if text not in ("true", "false") and not text.startswith(("[", "{")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _directories(environ: Mapping[str, str]) -> _Layer:
    """Return the folders that systemd made for the unit; it separates several by colons."""
    given = {"dir": environ.get("STATE_DIRECTORY"), "work": environ.get("CACHE_DIRECTORY")}
    return _Layer({"state": {key: value.split(":")[0] for key, value in given.items() if value}})


# --- mistakes ---------------------------------------------------------------------------------------------


def _mistakes(error: ValidationError, layers: Iterable[_Layer], source: Path | None) -> Halted:
    named = {path: name for layer in reversed(tuple(layers)) for path, name in layer.names.items()}
    found = word_mistakes(error, noun="setting", known=_known)
    why = join_first(
        f"{_misplaced(path, named) or sentence}{_said_by(path, named)}" for path, sentence in found
    )
    return Halted(_where(source), why, CORRECT)


def _where(source: Path | None) -> str:
    return str(source) if source else "the configuration"


def _misplaced(path: KeyPath, named: Mapping[KeyPath, str]) -> str | None:
    """Describe a setting that is before the first table instead of in its own, or has such a name."""
    homes = (section for section in SECTIONS if len(path) == 1 and path[0] in keys_of(section))
    home = next(homes, None)
    if not home:
        return None
    table = "cloud.NAME" if home == "cloud" else home
    return f"{path[0]} belongs under [{table}]{_proper_name(table, str(path[0]), named.get(path))}"


def _proper_name(table: str, key: str, name: str | None) -> str:
    """Return the right name of a variable or credential; empty for a line of the file."""
    if name is None:
        return ""
    inner = f"{table.replace('.', '__')}__{key}"
    return (
        f": name it {f'{PREFIX}{inner}'.upper() if name.startswith(PREFIX) else f'{PREFIX.lower()}{inner}'}"
    )


def _said_by(path: KeyPath, named: Mapping[KeyPath, str]) -> str:
    """Name the variable or credential if the mistake is not in the file."""
    inner = (named[path[:length]] for length in range(len(path), 0, -1) if path[:length] in named)
    name = next(inner, None)
    return f" (from {name})" if name else ""


def _known(path: KeyPath) -> Iterable[str]:
    if path[:2] == ("spool", "policy"):
        return [one.name for one in fields(FolderPolicy)]
    return keys_of(str(path[0])) if path else _Door.model_fields
