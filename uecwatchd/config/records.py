"""The settings as frozen records, with the validation of each value."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, SecretStr

from uecwatchd.config.address import InvalidAddress, hide_password, read_address
from uecwatchd.config.installation import InstallSettings
from uecwatchd.config.retention import RetentionRule
from uecwatchd.config.values import AbsolutePath, BucketAddress, HostName, Integer, Number, Region
from uecwatchd.types import BucketPlace

# Each set means two gigabyte-sized reads at once; each upload means 10 MiB of memory.
MOST_AT_ONCE = 64

# Files of euca2ools, in its order: later files have priority.
EUCA2OOLS_FILES = (
    Path("/etc/euca2ools/euca2ools.ini"),
    Path("/etc/euca2ools/conf.d/*.ini"),
    Path("~/.euca/*.ini"),
)

# A guest that has not come up in a quarter of an hour does not come up; its instance costs money.
MOST_BOOT_SECONDS = 900.0
# EC2 takes 16 KiB of user data, in base64.
MOST_USER_DATA = 16 * 1024 * 3 // 4

SIZE = re.compile(r"([0-9]{1,9})([MGTmgt]?)")
SIZE_UNITS = {"": 0, "M": 20, "G": 30, "T": 40}

DialectName = Literal["auto", "uec", "euca3", "euca4", "euca5", "openstack", "aws", "sandbox"]
Verify = Literal["sizes", "full"]
Members = Literal["separate", "trusted"]
# Keys that can be forbidden in sidecars. All other keys concern only the sidecar's own files.
Closable = Literal["public", "share", "bucket", "on_existing", "clouds", "test", "retention", "install"]
Compression = Literal["fast", "small"]
# What a message can be about: what states show, and what only a request leaves behind. "partly": done on
# some of its clouds, and failed on another. "stale": nothing new for longer than `fresh` allows.
StateOutcome = Literal["done", "partly", "rejected", "deferred", "halted", "recovered", "stale", "withdrawn"]
Outcome = Literal[StateOutcome, "rolled-back", "pruned"]


# --- validation of values ---------------------------------------------------------------------------------


def _as_list(value: object) -> object:
    """Return a list. A single text becomes a list of one; a text of the environment may be JSON."""
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):  # then it is a text, such as the pattern "[ab]*"
        return [value]
    return parsed if isinstance(parsed, list) else [value]


def _as_table(value: object) -> object:
    """Return a table: from the environment it comes as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _as_bytes(value: object) -> object:
    """Return a number of bytes: the units of "500G" and the like are powers of 1024. None for "auto"."""
    if not isinstance(value, str):
        return value
    if value == "auto":
        return None
    found = SIZE.fullmatch(value)
    if found is None:
        raise ValueError('must be "auto", or a size such as "500G" or "2T"')
    return int(found[1]) << SIZE_UNITS[found[2].upper()]


def _program(command: tuple[str, ...]) -> tuple[str, ...]:
    if command and not command[0].startswith("/"):
        raise ValueError("must begin with the absolute path of a program")
    if any("\0" in word for word in command):
        raise ValueError("must not hold a zero byte")
    return command


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line without control characters")
    return text


def _web_address(text: str) -> str:
    if hide_password(text) != text:
        raise ValueError("must not hold a user or a password: say access_key and secret_key")
    try:
        read_address(text)
    except InvalidAddress as error:
        raise ValueError(
            f"must be a web address (http://HOST:PORT/PATH): {error} ({hide_password(text)})"
        ) from error
    return text


def _parameter_name(text: str) -> str:
    if not re.fullmatch(r"/?[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", text.replace("{name}", "name")):
        raise ValueError(
            "is no name for a parameter: use letters, digits, dots, hyphens and slashes, and {name}"
        )
    return text


def cloud_name(text: str) -> str:
    """Check the name of a cloud. Raises ValueError."""
    # Lower case and no double underscore, so that the environment can spell it.
    if not re.fullmatch(r"[a-z0-9]+([_-][a-z0-9]+)*", text):
        raise ValueError("is no name for a cloud: use lower-case letters, digits and hyphens")
    return text


Concurrency = Annotated[Integer, Field(ge=1, le=MOST_AT_ONCE)]
Seconds = Annotated[Number, Field(gt=0, le=86400)]
Command = Annotated[tuple[str, ...], BeforeValidator(_as_list), AfterValidator(_program)]
LaunchWord = Annotated[str, Field(max_length=255), AfterValidator(_printable)]
WebAddress = Annotated[str, AfterValidator(_web_address)]

STRICT = ConfigDict(extra="forbid")


# --- the records ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FolderPolicy:
    """Keys for one spool folder that replace those under [spool]; None keeps the one under [spool].

    `source` is a bucket that fills the folder, with the keys of `source_cloud`. `shared`: by several hosts.
    """

    __pydantic_config__ = STRICT

    members: Members | None = None
    closed: Annotated[tuple[Closable, ...], BeforeValidator(_as_list)] | None = None
    buckets: Annotated[tuple[str, ...], BeforeValidator(_as_list)] | None = None
    clouds: Annotated[tuple[str, ...], BeforeValidator(_as_list)] | None = None
    retention: RetentionRule | None = None
    source: BucketAddress | None = None
    source_cloud: Annotated[str, AfterValidator(cloud_name)] = "default"
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules for one spool folder: the trust between its members, and the limits of their sidecars.

    `closed` are keys that sidecars must not have. `buckets` are patterns of buckets, and `clouds` the clouds,
    that they may name; empty means any.
    """

    members: Members = "separate"
    closed: tuple[Closable, ...] = ()
    buckets: tuple[str, ...] = ()
    clouds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """Settings under [spool]. `settle`, `scan_every` and `linger` are in seconds."""

    __pydantic_config__ = STRICT

    folders: Annotated[tuple[AbsolutePath, ...], BeforeValidator(_as_list), Field(min_length=1)] = (
        Path("/var/spool/uecwatchd"),
    )
    settle: Annotated[Number, Field(gt=0)] = 5.0
    scan_every: Annotated[Number, Field(gt=0)] = 60.0
    ignore: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = ()
    after: Literal["keep", "archive", "delete"] = "keep"
    removed: Literal["keep", "withdraw"] = "keep"
    linger: Annotated[Integer, Field(ge=0)] = 86400
    members: Members = "separate"
    closed: Annotated[tuple[Closable, ...], BeforeValidator(_as_list)] = ()
    buckets: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = ()
    clouds: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = ()
    policy: Annotated[Mapping[AbsolutePath, FolderPolicy], BeforeValidator(_as_table)] = field(
        default_factory=dict
    )

    def sources_of(self, cloud: str) -> tuple[BucketPlace, ...]:
        """Return the buckets on a cloud that folders are filled from."""
        own = self.policy.values()
        return tuple(one.source for one in own if one.source and one.source_cloud == cloud)

    def policy_of(self, folder: Path) -> Policy:
        """Return the policy of a folder: its own keys, and the general ones for the rest."""
        own = self.policy.get(folder, FolderPolicy())
        special = {key: getattr(own, key) for key in ("members", "closed", "buckets", "clouds")}
        general = {key: getattr(self, key) for key in special}
        return Policy(**{key: general[key] if value is None else value for key, value in special.items()})


@dataclass(frozen=True, slots=True)
class StateSettings:
    """Settings under [state]: the folders of the service itself.

    `work` is for files that are made for sets, None for a folder in `dir`.
    """

    __pydantic_config__ = STRICT

    dir: AbsolutePath = Path("/var/lib/uecwatchd")
    work: AbsolutePath | None = None

    @property
    def work_folder(self) -> Path:
        return self.work or self.dir / "work"


@dataclass(frozen=True, slots=True)
class WorkSettings:
    """Settings under [work]: how much is done at once, and how."""

    __pydantic_config__ = STRICT

    sets: Concurrency = 2
    uploads: Concurrency = 4
    verify: Verify = "sizes"
    compression: Compression = "fast"
    sparse: bool = True
    #: in bytes; None for the defaults of `uecwatchd.images.formats.open`
    max_disk_size: Annotated[Annotated[Integer, Field(ge=1)] | None, BeforeValidator(_as_bytes)] = None


@dataclass(frozen=True, slots=True)
class OutputSettings:
    """Settings under [outputs]: folders for files about all sets. None: no such files."""

    __pydantic_config__ = STRICT

    page: AbsolutePath | None = None
    metrics: AbsolutePath | None = None

    def folders(self) -> Mapping[str, Path]:
        """Return the folders that are set, by the names of their settings."""
        named = {"outputs.page": self.page, "outputs.metrics": self.metrics}
        return {setting: folder for setting, folder in named.items() if folder}


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """Settings under [notify]: how people are told of outcomes, and of which.

    `timeout` is in seconds. `fresh` has patterns of names, each with the hours after which a set is stale.
    """

    __pydantic_config__ = STRICT

    command: Command = ()
    urls: Annotated[tuple[SecretStr, ...], BeforeValidator(_as_list)] = ()
    outcomes: Annotated[tuple[Outcome, ...], BeforeValidator(_as_list)] = get_args(Outcome)
    deferred_after: Annotated[Integer, Field(ge=1)] = 5
    timeout: Seconds = 60.0
    fresh: Annotated[Mapping[str, Annotated[Number, Field(gt=0)]], BeforeValidator(_as_table)] = field(
        default_factory=dict
    )

    @property
    def is_on(self) -> bool:
        return bool(self.command or self.urls)


@dataclass(frozen=True, slots=True)
class HookSettings:
    """Settings under [hooks]: programs that may reject a set. `timeout` is in seconds."""

    __pydantic_config__ = STRICT

    pre: Command = ()
    registered: Command = ()
    timeout: Seconds = 300.0


@dataclass(frozen=True, slots=True)
class CloudSettings:
    """The configuration of one cloud.

    Missing values come from an eucarc, the files of euca2ools, or a profile, in this order. `uploads` and
    `registrations` limit what all hosts do there at once, None: no limit. From `test` on they are about test
    boots: `boot_seconds` is the limit of one, `boot_every` the pause between two looks, `boot_port` the port
    that has to answer, 0 for none.
    """

    __pydantic_config__ = STRICT

    # The name of the table. `_with_names` fills it in under this alias, which no user can write.
    name: Annotated[str, Field(validation_alias="[name]")]
    dialect: DialectName = "auto"
    eucarc: AbsolutePath | None = None
    euca2ools: str | None = None
    euca2ools_files: Annotated[tuple[AbsolutePath, ...], BeforeValidator(_as_list), Field(min_length=1)] = (
        EUCA2OOLS_FILES
    )
    profile: Annotated[str, Field(min_length=1)] | None = None
    ec2_url: WebAddress | None = None
    s3_url: WebAddress | None = None
    ssm_url: WebAddress | None = None
    latest_parameter: Annotated[str, AfterValidator(_parameter_name)] | None = None
    region: Region | None = None
    access_key: str | None = None
    secret_key: SecretStr | None = None
    account: str | None = None
    user_cert: AbsolutePath | None = None
    user_key: AbsolutePath | None = None
    cloud_cert: AbsolutePath | None = None
    ca_bundle: AbsolutePath | None = None
    uploads: Concurrency | None = None
    registrations: Concurrency | None = None
    test: bool = False
    instance_type: LaunchWord = ""
    key_name: LaunchWord = ""
    user_data: Annotated[str, Field(max_length=MOST_USER_DATA)] = ""
    subnet: LaunchWord = ""
    security_groups: Annotated[tuple[LaunchWord, ...], BeforeValidator(_as_list)] = ()
    boot_seconds: Annotated[Number, Field(gt=0, le=MOST_BOOT_SECONDS)] = MOST_BOOT_SECONDS
    boot_every: Annotated[Number, Field(ge=0.1, le=60)] = 5.0
    boot_port: Annotated[Integer, Field(ge=0, le=65535)] = 22


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """Settings under [fleet]: the database of the ledger. None: a file in the state directory.

    `dsn` is a connection string or URI of PostgreSQL, which may name a service of its service file. `host` is
    the name of this host among those with the same database; None: its host name.
    """

    __pydantic_config__ = STRICT

    dsn: Annotated[SecretStr, Field(min_length=1)] | None = None
    password: SecretStr | None = None
    host: HostName | None = None


# By their names in the file.
SECTIONS: Mapping[str, Any] = MappingProxyType(
    {
        "spool": SpoolSettings,
        "state": StateSettings,
        "work": WorkSettings,
        "outputs": OutputSettings,
        "notify": NotifySettings,
        "hooks": HookSettings,
        "install": InstallSettings,
        "retention": RetentionRule,
        "fleet": FleetSettings,
        "cloud": CloudSettings,
    }
)


def keys_of(section: str) -> tuple[str, ...]:
    """Return the settings of a section, as a configuration file spells them."""
    return tuple(one.name for one in fields(SECTIONS[section]) if one.name != "name")


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. `defaults` is the raw table for `read_defaults`; `source` is the configuration file."""

    spool: SpoolSettings = field(default_factory=SpoolSettings)
    state: StateSettings = field(default_factory=StateSettings)
    work: WorkSettings = field(default_factory=WorkSettings)
    outputs: OutputSettings = field(default_factory=OutputSettings)
    notify: NotifySettings = field(default_factory=NotifySettings)
    hooks: HookSettings = field(default_factory=HookSettings)
    install: InstallSettings = field(default_factory=InstallSettings)
    retention: RetentionRule = field(default_factory=RetentionRule)
    defaults: Mapping[str, object] = field(default_factory=dict)
    clouds: Mapping[str, CloudSettings] = field(default_factory=dict)
    fleet: FleetSettings = field(default_factory=FleetSettings)
    source: Path | None = None

    def retention_of(self, folder: Path) -> RetentionRule:
        """Return the rule for the images of a folder, before the wishes of a sidecar."""
        own = self.spool.policy.get(folder, FolderPolicy()).retention
        return own.over(self.retention) if own else self.retention
