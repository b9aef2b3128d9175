"""Loading of the configuration: from all its sources to one record, and every mistake to a sentence."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from uecwatchd.config.documents import KeyPath, did_you_mean, join_first, word_mistakes
from uecwatchd.config.installation import InstallSettings
from uecwatchd.config.overlaps import find_overlaps
from uecwatchd.config.records import (
    SECTIONS,
    CloudSettings,
    FleetSettings,
    FolderPolicy,
    HookSettings,
    NotifySettings,
    OutputSettings,
    Settings,
    SpoolSettings,
    StateSettings,
    WorkSettings,
    cloud_name,
    keys_of,
)
from uecwatchd.config.retention import RetentionRule
from uecwatchd.config.sharing import find_wrong_shares
from uecwatchd.config.sources import (
    PREFIX,
    NamedSetting,
    NamedSettingsSource,
    credentials,
    directory_tables,
    file_tables,
    read_file,
    variables,
)
from uecwatchd.errors import Halted
from uecwatchd.types import BucketPlace

CORRECT = "Correct this, then run `uecwatchd check`."


def _with_names(clouds: object) -> object:
    """Add its own name to each table of a cloud."""
    if not isinstance(clouds, dict):
        return clouds
    return {
        name: {**table, "[name]": name} if isinstance(table, dict) else table
        for name, table in clouds.items()
    }


def _check_policies(spool: SpoolSettings) -> SpoolSettings:
    """Refuse a policy for an unknown folder: with a misspelt name the right folder would have no policy."""
    for folder in spool.policy:
        if folder not in spool.folders:
            watched = [str(one) for one in spool.folders]
            near = did_you_mean(str(folder), watched)
            raise ValueError(f"has a policy for {folder}, which is not among its folders{near}")
    return spool


class _Tables(BaseSettings):
    """The tables as in the file: `[cloud.NAME]`, where the record says `clouds`."""

    model_config = SettingsConfigDict(case_sensitive=True, extra="forbid", hide_input_in_errors=True)

    spool: Annotated[SpoolSettings, AfterValidator(_check_policies)] = SpoolSettings()
    state: StateSettings = StateSettings()
    work: WorkSettings = WorkSettings()
    outputs: OutputSettings = OutputSettings()
    notify: NotifySettings = NotifySettings()
    hooks: HookSettings = HookSettings()
    install: InstallSettings = InstallSettings()
    retention: RetentionRule = RetentionRule()
    fleet: FleetSettings = FleetSettings()
    defaults: dict[str, object] = {}
    cloud: Annotated[
        dict[Annotated[str, AfterValidator(cloud_name)], CloudSettings], BeforeValidator(_with_names)
    ] = {}

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the sources that `merged` passes. They depend on the call, and a class takes 9 ms to make."""
        return tuple(init_settings()["sources"])

    @classmethod
    def merged(cls, *sources: PydanticBaseSettingsSource) -> Self:
        """Merge the sources, the first with priority. Raises ValidationError."""
        arguments: Mapping[str, Any] = {"sources": sources}
        return cls(**arguments)


def load(config: Path | None, *, environ: Mapping[str, str]) -> Settings:
    """Read the configuration. Raises Halted with all mistakes, or NotPermitted if it is unreadable."""
    source, data = read_file(config, environ)
    by_variable, by_credential = list(variables(environ)), credentials(environ)
    from_file = file_tables(source, data, home=environ.get("HOME")) if source else {}
    try:
        tables = _Tables.merged(
            NamedSettingsSource(_Tables, by_variable),
            NamedSettingsSource(_Tables, by_credential),
            InitSettingsSource(_Tables, from_file),
            InitSettingsSource(_Tables, directory_tables(environ)),
        )
    except ValidationError as error:
        # Without its cause: pydantic's message might show a secret.
        raise _mistakes(error, (*by_credential, *by_variable), source) from None
    settings = Settings(
        tables.spool,
        tables.state,
        tables.work,
        tables.outputs,
        tables.notify,
        tables.hooks,
        tables.install,
        tables.retention,
        tables.defaults,
        tables.cloud,
        tables.fleet,
        source,
    )
    if why := join_first([*find_overlaps(settings), *_contradictions(settings)]):
        raise Halted(_where(source), why, CORRECT)
    return settings


def _contradictions(settings: Settings) -> Iterator[str]:
    yield from _wrong_sources(settings)
    yield from find_wrong_shares(settings)
    if settings.spool.removed == "withdraw" and settings.spool.after != "keep":
        yield (
            f'spool.removed = "withdraw" needs spool.after = "keep": with "{settings.spool.after}"'
            " the service removes the files of each finished set itself"
        )


def _wrong_sources(settings: Settings) -> Iterator[str]:
    """Say what is wrong with the buckets that folders are filled from."""
    seen: dict[BucketPlace, Path] = {}
    for folder, policy in settings.spool.policy.items():
        if policy.source is None:
            continue
        if other := seen.get(policy.source):
            yield f"spool.policy: {other} and {folder} have the same source, {policy.source}"
        seen[policy.source] = folder
        if policy.source_cloud not in settings.clouds:
            near = did_you_mean(policy.source_cloud, settings.clouds)
            yield f"spool.policy: source_cloud of {folder} is {policy.source_cloud}, an unknown cloud{near}"


def check_cloud(name: str, table: Mapping[str, str]) -> None:
    """Raise Halted with all mistakes in these settings, which are to be written for a cloud."""
    try:
        _Tables.merged(InitSettingsSource(_Tables, {"cloud": {name: dict(table)}}))
    except ValidationError as error:
        why = join_first(words for _, words in word_mistakes(error, noun="setting", known=_known))
        raise Halted(f"[cloud.{name}]", why, "Nothing was changed. Correct this, then repeat.") from None


# --- mistakes ---------------------------------------------------------------------------------------------


def _mistakes(error: ValidationError, given: Iterable[NamedSetting], source: Path | None) -> Halted:
    """Describe all mistakes; of two in `given` for one setting, the later applies."""
    names: Mapping[KeyPath, str] = {one.path: one.name for one in given}
    found = word_mistakes(error, noun="setting", known=_known)
    why = join_first(f"{_misplaced(path, names) or words}{_source_of(path, names)}" for path, words in found)
    return Halted(_where(source), why, CORRECT)


def _where(source: Path | None) -> str:
    return str(source) if source else "the configuration"


def _misplaced(path: KeyPath, names: Mapping[KeyPath, str]) -> str | None:
    """Describe a setting that is before the first table instead of in its own, or has such a name."""
    homes = (section for section in SECTIONS if len(path) == 1 and path[0] in keys_of(section))
    home = next(homes, None)
    if not home:
        return None
    table = "cloud.NAME" if home == "cloud" else home
    return f"{path[0]} belongs under [{table}]{_proper_name(table, str(path[0]), names.get(path))}"


def _proper_name(table: str, key: str, name: str | None) -> str:
    """Return the right name of a variable or credential; empty for a line of the file."""
    if name is None:
        return ""
    inner = f"{table.replace('.', '__')}__{key}"
    return (
        f": name it {f'{PREFIX}{inner}'.upper() if name.startswith(PREFIX) else f'{PREFIX.lower()}{inner}'}"
    )


def _source_of(path: KeyPath, names: Mapping[KeyPath, str]) -> str:
    """Name the variable or credential if the mistake is not in the file."""
    inner = (names[path[:length]] for length in range(len(path), 0, -1) if path[:length] in names)
    name = next(inner, None)
    return f" (from {name})" if name else ""


def _known(path: KeyPath) -> Iterable[str]:
    if path[:2] == ("spool", "policy"):
        return [one.name for one in fields(FolderPolicy)]
    return keys_of(str(path[0])) if path else _Tables.model_fields
