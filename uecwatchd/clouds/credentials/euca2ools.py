"""The configuration of euca2ools: its ini files, read by its own rules.

    [global]         default-region = aws:us-east-1
    [region lab]     ec2-url, s3-url, certificate (the cloud's), user, verify-ssl
    [user admin]     key-id, secret-key, account-id, certificate, private-key

- Of an option that is set twice the last one counts, in the order of the files.
- Names are in groups, `aws:us-east-1`. An option that a section lacks is looked for where parts of the name
  are a `*`, from the right: `aws:*`. Then in the one section whose name ends like that, so that `us-east-1`
  will do. Last in `*`.
- The value `use SECTION` or `use SECTION OPTION` takes its value from there.
- `~` and `$VARIABLE` are expanded in file names, and a relative one is meant from the ini file's folder.

Left alone are `s3-force-sigv4`, since a cloud is asked which signatures it takes, and `verify-ssl = false`:
users of a cloud's own authority name it with ca_bundle.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from configparser import ConfigParser, Error
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from uecwatchd.clouds.credentials.source import PATHS, Remark, Source, at_home
from uecwatchd.config.documents import did_you_mean
from uecwatchd.errors import Halted
from uecwatchd.system.file_errors import cannot_read
from uecwatchd.system.small_files import read_small_text

USER_OPTIONS: Mapping[str, str] = {
    "access_key": "key-id",
    "secret_key": "secret-key",
    "account": "account-id",
    "user_cert": "certificate",
    "user_key": "private-key",
}
REGION_OPTIONS: Mapping[str, str] = {"ec2_url": "ec2-url", "s3_url": "s3-url", "cloud_cert": "certificate"}
# The second is its name in euca2ools 3.0.
USER_OF_A_REGION = ("user", "default-user")
FALSE = ("false", "0", "no", "off")


@dataclass(frozen=True, slots=True)
class _OptionValue:
    """The value of an option, and which file says so."""

    value: str = field(repr=False)
    file: Path


_Options = Mapping[str, _OptionValue]


@dataclass(frozen=True, slots=True)
class _Sections:
    """All sections of a kind, `user` or `region`, by name."""

    kind: str
    cloud: str
    named: Mapping[str, _Options]

    def header(self, name: str) -> str:
        return f"[{self.kind} {name}]"


@dataclass(frozen=True, slots=True)
class _Configuration:
    files: tuple[Path, ...]
    general: _Options
    users: _Sections
    regions: _Sections


def euca2ools_source(choice: str, patterns: Iterable[Path], *, cloud: str) -> Source:
    """Return the settings for a choice written as for `--region`: `USER@REGION`, `REGION` or `USER@`.

    Raises `Halted`, or `NotPermitted` for a file that may not be read.
    """
    configuration = _read(patterns, cloud)
    user, _, region = choice.rpartition("@") if not choice.endswith("@") else (choice[:-1], "@", "")
    region = region or _value(configuration.general.get("default-region"))
    if region:
        _must_exist(configuration.regions, region, configuration.files)
    user = user or _default_user(configuration, region)
    if user:
        _must_exist(configuration.users, user, configuration.files)
    chosen = dict(_options(configuration.users, user, USER_OPTIONS)) | dict(
        _options(configuration.regions, region, REGION_OPTIONS)
    )
    values = {setting: _placed(setting, one) for setting, one in chosen.items()}
    if region:
        values["region"] = _value(_lookup(configuration.regions, region, "name")) or region.rpartition(":")[2]
    secrets = {one.file for setting, one in chosen.items() if setting == "secret_key"}
    spelled = _spelled(configuration.users, user, USER_OPTIONS) | _spelled(
        configuration.regions, region, REGION_OPTIONS
    )
    remarks = tuple(_remarks(configuration, region))
    remedies = _remedies(configuration.users, user, USER_OPTIONS) | _remedies(
        configuration.regions, region, REGION_OPTIONS
    )
    return Source(f"euca2ools ({choice})", values, spelled, tuple(secrets), remarks, remedies)


def _default_user(configuration: _Configuration, region: str) -> str:
    named = (_lookup(configuration.regions, region, option) for option in USER_OF_A_REGION if region)
    return next((found.value for found in named if found), _value(configuration.general.get("default-user")))


def _value(found: _OptionValue | None) -> str:
    return found.value if found else ""


def _options(
    sections: _Sections, name: str, options: Mapping[str, str]
) -> Iterator[tuple[str, _OptionValue]]:
    for setting, option in options.items():
        if name and (found := _lookup(sections, name, option)) and found.value:
            yield setting, found


def _spelled(sections: _Sections, name: str, options: Mapping[str, str]) -> dict[str, str]:
    """Return the file's name for each setting; `name` is empty if nothing names the section."""
    where = f"under {sections.header(name)}" if name else f"for no {sections.kind} is named"
    return {setting: f"{option}, {where}" for setting, option in options.items()}


def _remedies(sections: _Sections, name: str, options: Mapping[str, str]) -> dict[str, str]:
    if not name:
        return {}
    header = sections.header(name)
    return {
        setting: f"Write {option} under {header} of euca2ools' files" for setting, option in options.items()
    }


def _placed(setting: str, found: _OptionValue) -> str:
    if setting not in PATHS:
        return found.value
    return str(found.file.parent / at_home(Path(os.path.expandvars(found.value))))


def _remarks(configuration: _Configuration, region: str) -> Iterator[Remark]:
    verify = _lookup(configuration.regions, region, "verify-ssl") if region else None
    if verify and verify.value.lower() in FALSE:
        yield Remark(
            f"{verify.file} says verify-ssl = {verify.value}, and TLS certificates are verified all the same",
            "If the cloud's is signed by an authority of its own, name that with ca_bundle.",
        )


# --- sections by name -------------------------------------------------------------------------------------


def _must_exist(sections: _Sections, name: str, files: tuple[Path, ...]) -> None:
    if any(one in sections.named for one in _candidates(sections, name) if one.strip("*:")):
        return
    looked = ", ".join(map(str, files)) or "no file, for there is none"
    real = [one for one in sections.named if "*" not in one]
    raise Halted(
        f"cloud {sections.cloud}: euca2ools has no section {sections.header(name)}{did_you_mean(name, real)}",
        f"looked in {looked}",
        f"Correct euca2ools under [cloud.{sections.cloud}], or name the ini file in euca2ools_files.",
    )


def _lookup(sections: _Sections, name: str, option: str, seen: tuple[str, ...] = ()) -> _OptionValue | None:
    for one in _candidates(sections, name):
        if found := sections.named.get(one, {}).get(option):
            return _followed(sections, found, option, (*seen, f"{one} {option}"))
    return None


def _followed(
    sections: _Sections, found: _OptionValue, option: str, seen: tuple[str, ...]
) -> _OptionValue | None:
    """Resolve `use SECTION` and `use SECTION OPTION`; any other value is returned as it is."""
    match found.value.split():
        case ["use", name]:
            pass
        case ["use", name, option]:
            pass
        case _:
            return found
    if f"{name} {option}" in seen:
        why = f"{option} of {sections.header(name)} refers to itself"
        raise Halted(f"{found.file} (euca2ools of cloud {sections.cloud})", why, "Write its value there.")
    return _lookup(sections, name, option, seen)


def _candidates(sections: _Sections, name: str) -> Iterator[str]:
    """List the sections that may describe a name, the nearest first."""
    parts = name.split(":")
    for kept in product((True, False), repeat=len(parts)):
        one = ":".join(part if keep else "*" for part, keep in zip(parts, kept, strict=True))
        if one != "*":
            yield one
    if longer := _longer(sections, name):
        yield from _candidates(sections, longer)
    else:
        yield "*"


def _longer(sections: _Sections, name: str) -> str | None:
    """Find the only section whose name ends with these groups: `aws:us-east-1` for `us-east-1`."""
    ending = [one for one in sections.named if one.endswith(f":{name}")]
    fewest = min((one.count(":") for one in ending), default=0)
    nearest = [one for one in ending if one.count(":") == fewest]
    if len(nearest) > 1:
        raise Halted(
            f"cloud {sections.cloud}: euca2ools' {name} is not one region or user",
            f"it may be {' or '.join(nearest)}",
            f"Write the whole name in euca2ools under [cloud.{sections.cloud}].",
        )
    return nearest[0] if nearest else None


# --- files ------------------------------------------------------------------------------------------------


def _read(patterns: Iterable[Path], cloud: str) -> _Configuration:
    files = tuple(file for pattern in patterns for file in _matching(at_home(pattern)))
    general: dict[str, _OptionValue] = {}
    named: dict[str, dict[str, dict[str, _OptionValue]]] = {"user": {}, "region": {}}
    for file in files:
        for header, options in _tables(file, cloud):
            section_options = {option: _OptionValue(value.strip(), file) for option, value in options}
            match header.split():
                case ["global"]:
                    general |= section_options
                case ["user" | "region" as kind, name]:
                    named[kind].setdefault(name, {}).update(section_options)
    users, regions = (_Sections(kind, cloud, named[kind]) for kind in ("user", "region"))
    return _Configuration(files, general, users, regions)


def _matching(pattern: Path) -> list[Path]:
    """List the file, or the files that match if its name is a shell pattern."""
    # Not pattern.is_file(), which raises where a folder above is closed.
    is_a_file = os.path.isfile(pattern)  # noqa: PTH113
    return [pattern] if is_a_file else sorted(pattern.parent.glob(pattern.name))


def _tables(file: Path, cloud: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    parser = ConfigParser(strict=False, inline_comment_prefixes=(";",))
    what = f"{file} (euca2ools of cloud {cloud})"
    try:
        parser.read_string(read_small_text(file, encoding="utf-8-sig", errors="replace"))
        yield from [(header, parser.items(header)) for header in parser.sections()]
    except PermissionError as error:
        raise cannot_read(file, what=what) from error
    except OSError as error:
        hint = f"Correct euca2ools_files under [cloud.{cloud}]."
        raise Halted(what, f"cannot read it: {error.strerror}", hint) from error
    except Error as error:
        # Its own words might show a secret.
        raise Halted(what, f"it is no ini file{_place(error)}", "Correct it there.") from None


def _place(error: Error) -> str:
    lines = getattr(error, "errors", ()) or [(getattr(error, "lineno", None), "")]
    section = getattr(error, "section", "")
    if lines[0][0]:
        return f": line {lines[0][0]} cannot be understood"
    return f": {getattr(error, 'option', 'an option')} under [{section}] has a % without a meaning"
