"""The settings as frozen records, and what each value must be like."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, SecretStr

from uecwatchd.config.address import NoAddress, read_address, shown

# For sets, each is two gigabyte-sized reads at once; for uploads, each is 10 MiB of memory.
MOST_AT_ONCE = 64

# Where euca2ools itself looks, in its order: what comes later counts more.
EUCA2OOLS_FILES = (
    Path("/etc/euca2ools/euca2ools.ini"),
    Path("/etc/euca2ools/conf.d/*.ini"),
    Path("~/.euca/*.ini"),
)

# What botocore takes.
REGION = re.compile(r"(?![0-9]+$)(?!-)[A-Za-z0-9-]{1,63}(?<!-)")

Dialect = Literal["auto", "uec", "euca3", "euca4", "euca5", "openstack", "aws", "sandbox"]
Verify = Literal["sizes", "full"]
Members = Literal["separate", "trusted"]
# What a sidecar may be kept from saying. All else in it is about its own files alone.
Closable = Literal["public", "share", "bucket", "on_existing", "clouds"]
Compression = Literal["fast", "small"]


# --- what values must be like -----------------------------------------------------------------------------


def _not_a_flag(value: object) -> object:
    # Python counts true as 1, and so would pydantic.
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _listed(value: object) -> object:
    """A single text is a list of one; from the environment, a JSON list is a list."""
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):  # then it is a text, such as the pattern "[ab]*"
        return [value]
    return parsed if isinstance(parsed, list) else [value]


def _table(value: object) -> object:
    """From the environment, a table is written as JSON has it."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or "\0" in str(path):
        raise ValueError("must be an absolute path")
    return path


def _web_address(text: str) -> str:
    if shown(text) != text:
        raise ValueError("must not hold a user or a password: say access_key and secret_key")
    try:
        read_address(text)
    except NoAddress as error:
        raise ValueError(f"must be a web address (http://HOST:PORT/PATH): {error} ({shown(text)})") from error
    return text


def _region(text: str) -> str:
    # It becomes a part of host names and of signatures.
    if not re.fullmatch(REGION, text):
        raise ValueError("is no name for a region: use letters, digits and hyphens")
    return text


def cloud_name(text: str) -> str:
    """Raises ValueError for what is none."""
    # Lower case and no double underscore, so that the environment can spell it.
    if not re.fullmatch(r"[a-z0-9]+([_-][a-z0-9]+)*", text):
        raise ValueError("is no name for a cloud: use lower-case letters, digits and hyphens")
    return text


Number = Annotated[float, BeforeValidator(_not_a_flag), Field(allow_inf_nan=False)]
Whole = Annotated[int, BeforeValidator(_not_a_flag)]
AtOnce = Annotated[Whole, Field(ge=1, le=MOST_AT_ONCE)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
Region = Annotated[str, AfterValidator(_region)]

STRICT = ConfigDict(extra="forbid")


# --- the records ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FolderPolicy:
    """What holds in one spool folder in place of the same keys under [spool]; None where those hold."""

    __pydantic_config__ = STRICT

    members: Members | None = None
    closed: Annotated[tuple[Closable, ...], BeforeValidator(_listed)] | None = None
    buckets: Annotated[tuple[str, ...], BeforeValidator(_listed)] | None = None
    clouds: Annotated[tuple[str, ...], BeforeValidator(_listed)] | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """Whether the members of a folder trust each other, and what their sidecars may ask for.

    `closed` are keys that they may not use, `buckets` patterns of the buckets and `clouds` the clouds that
    they may name: any, where these are empty.
    """

    members: Members = "separate"
    closed: tuple[Closable, ...] = ()
    buckets: tuple[str, ...] = ()
    clouds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """`settle`, `scan_every` and `linger` in seconds."""

    __pydantic_config__ = STRICT

    folders: Annotated[tuple[AbsolutePath, ...], BeforeValidator(_listed), Field(min_length=1)] = (
        Path("/var/spool/uecwatchd"),
    )
    settle: Annotated[Number, Field(gt=0)] = 5.0
    scan_every: Annotated[Number, Field(gt=0)] = 60.0
    ignore: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    after: Literal["keep", "archive", "delete"] = "keep"
    linger: Annotated[Whole, Field(ge=0)] = 86400
    members: Members = "separate"
    closed: Annotated[tuple[Closable, ...], BeforeValidator(_listed)] = ()
    buckets: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    clouds: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    policy: Annotated[Mapping[AbsolutePath, FolderPolicy], BeforeValidator(_table)] = field(
        default_factory=dict
    )

    def policy_of(self, folder: Path) -> Policy:
        """What holds in a folder: what is said of it, else what is said of all."""
        own = self.policy.get(folder, FolderPolicy())
        said = {key: getattr(own, key) for key in ("members", "closed", "buckets", "clouds")}
        general = {key: getattr(self, key) for key in said}
        return Policy(**{key: general[key] if value is None else value for key, value in said.items()})


@dataclass(frozen=True, slots=True)
class StateSettings:
    __pydantic_config__ = STRICT

    dir: AbsolutePath = Path("/var/lib/uecwatchd")
    work: AbsolutePath = Path("/var/cache/uecwatchd")


@dataclass(frozen=True, slots=True)
class WorkSettings:
    __pydantic_config__ = STRICT

    sets: AtOnce = 2
    uploads: AtOnce = 4
    verify: Verify = "sizes"
    compression: Compression = "fast"
    sparse: bool = True


@dataclass(frozen=True, slots=True)
class CloudSettings:
    """What the configuration says of one cloud.

    What it leaves open may be said by an eucarc, by euca2ools' files, or by a profile, in this order.
    """

    __pydantic_config__ = STRICT

    # The table's name. Under this alias it is filled in by `_named`, and is no setting a user could write.
    name: Annotated[str, Field(validation_alias="[name]")]
    dialect: Dialect = "auto"
    eucarc: AbsolutePath | None = None
    euca2ools: str | None = None
    euca2ools_files: Annotated[tuple[AbsolutePath, ...], BeforeValidator(_listed), Field(min_length=1)] = (
        EUCA2OOLS_FILES
    )
    profile: Annotated[str, Field(min_length=1)] | None = None
    ec2_url: WebAddress | None = None
    s3_url: WebAddress | None = None
    region: Region | None = None
    access_key: str | None = None
    secret_key: SecretStr | None = None
    account: str | None = None
    user_cert: AbsolutePath | None = None
    user_key: AbsolutePath | None = None
    cloud_cert: AbsolutePath | None = None
    ca_bundle: AbsolutePath | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """`defaults` is the raw table, which `sidecar.read_defaults` checks; `source` the file that was read."""

    spool: SpoolSettings = field(default_factory=SpoolSettings)
    state: StateSettings = field(default_factory=StateSettings)
    work: WorkSettings = field(default_factory=WorkSettings)
    defaults: Mapping[str, object] = field(default_factory=dict)
    clouds: Mapping[str, CloudSettings] = field(default_factory=dict)
    source: Path | None = None
