"""Wishes for a setup: from an eucarc, the options, and questions on a terminal."""

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from uecwatchd.clouds.credentials.eucarc import eucarc_source
from uecwatchd.clouds.credentials.source import PATHS
from uecwatchd.config.records import cloud_name
from uecwatchd.errors import Halted
from uecwatchd.system.small_files import read_small

# Settings that go into the configuration file, and those that are credentials; files become their content.
OPEN = ("ec2_url", "s3_url", "region", "account", "dialect")
SECRET = ("access_key", "secret_key")
FILES = tuple(sorted(PATHS))

# What is asked on a terminal, in this order, and if an answer is needed.
QUESTIONS: Mapping[str, str] = {
    "ec2_url": "Address of EC2, such as http://192.0.2.1:8773/services/Eucalyptus",
    "s3_url": "Address of S3, such as http://192.0.2.1:8773/services/Walrus",
    "account": "Account number of 12 digits (empty if the cloud gives none)",
    "access_key": "Access key",
    "secret_key": "Secret key (it is not shown)",
    "user_cert": "File with your certificate, such as euca2-cert.pem",
    "user_key": "File with your private key, such as euca2-pk.pem",
    "cloud_cert": "File with the certificate of the cloud (empty if it offers it for download)",
}
EUCARC = "File eucarc that came with the credentials of your cloud (empty to answer single questions)"


@dataclass(frozen=True, slots=True)
class SetupRequest:
    """Wishes for a setup. `settings` are for the configuration file, `credentials` by setting."""

    cloud: str = "default"
    settings: Mapping[str, str] = field(default_factory=dict)
    credentials: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    members: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()

    @property
    def has_cloud(self) -> bool:
        return bool(self.settings or self.credentials)


Ask = Callable[[str, bool], str]


def requested(arguments: argparse.Namespace, *, ask: Ask | None) -> SetupRequest:
    """Return what the command line asks for; what it leaves open is asked with `ask`, if there is one.

    `ask` gets a question, and if the answer is secret. Options have priority over the eucarc. Raises Halted.
    """
    try:
        cloud = cloud_name(arguments.cloud)
    except ValueError as error:
        raise Halted(f"--cloud {arguments.cloud}", str(error), "Use another name.") from None
    given = _of_options(arguments)
    eucarc = arguments.eucarc
    if not eucarc and not given and ask:
        answer = ask(EUCARC, False)  # noqa: FBT003 (a question has no other words for it)
        eucarc = Path(answer).expanduser() if answer else None
        given = {} if eucarc else _asked(ask)
    values = {**(_of_eucarc(eucarc, cloud) if eucarc else {}), **given}
    return SetupRequest(
        cloud,
        {key: values[key] for key in OPEN if values.get(key)},
        {key: _content(key, values[key]) for key in (*SECRET, *FILES) if values.get(key)},
        tuple(arguments.member),
        tuple(arguments.operator),
    )


def _of_options(arguments: argparse.Namespace) -> dict[str, str]:
    given = {key: getattr(arguments, key) for key in (*OPEN, "access_key", *FILES)}
    values = {key: str(value) for key, value in given.items() if value}
    if arguments.secret_key_file:
        values["secret_key"] = _secret(arguments.secret_key_file)
    return values


def _secret(file: str) -> str:
    """Read a secret from a file, or from standard input: on a command line everybody could see it."""
    if file == "-":
        return sys.stdin.readline().strip()
    return _read(Path(file)).decode("utf-8", "replace").strip()


def _of_eucarc(path: Path, cloud: str) -> Mapping[str, str]:
    source = eucarc_source(path.absolute(), cloud=cloud, home=Path.home())
    if "session_token" in source.values:
        why = "its keys are temporary, and would end while the service runs"
        raise Halted(str(path), why, "Use the lasting keys of the account.")
    return source.values


def _asked(ask: Ask) -> dict[str, str]:
    return {key: ask(text, key == "secret_key").strip() for key, text in QUESTIONS.items()}


def _content(key: str, value: str) -> bytes:
    return _read(Path(value)) if key in FILES else value.encode()


def _read(path: Path) -> bytes:
    try:
        return read_small(path)
    except OSError as error:
        raise Halted(str(path), f"cannot read it: {error.strerror}", "Correct the path.") from error
