"""Our account by a profile of the AWS tools, or by the environment, found as boto3 finds it.

Looked at only when the configuration asks for it, and then once: the clients get plain keys and stay deaf.
Temporary keys, of a role or a login, therefore expire during the work; then the cloud refuses them
and is suspended, and the next probe reads the profile again.

A profile may name a program of anybody's making that prints the keys (`credential_process`). It may be
missing, print what is no JSON, or wait for ever for somebody to type; and the library passes on whatever
comes of that.
"""

import os
from codecs import BOM_UTF8
from collections.abc import Iterator
from configparser import DuplicateOptionError, DuplicateSectionError, MissingSectionHeaderError
from contextlib import suppress
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConfigParseError, ProfileNotFound

from uecwatchd.clouds.credentials.source import Source, at_home
from uecwatchd.errors import Halted, UecError
from uecwatchd.system.text import shell_word

# In place of a profile's name: what the AWS tools take where no profile is named.
ENVIRONMENT = "environment"

# Where the AWS tools keep keys, unless $AWS_SHARED_CREDENTIALS_FILE names another place; keys in the
# environment come before those of any file.
CREDENTIALS_FILE = "~/.aws/credentials"

# For a program that prints keys: some ask another service, and none may hold up the other clouds for longer.
HELPER_SECONDS = 60
# Of coreutils. It ends the program with all that it has started, and says so.
TIMED = "timeout --verbose --kill-after=5"
OUT_OF_TIME = "timeout: sending signal"

# For the service that lends the keys of a role or a login.
LENDER = Config(connect_timeout=10, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 2})

SPELLED = {
    "access_key": "aws_access_key_id",
    "secret_key": "aws_secret_access_key",
    "session_token": "aws_session_token",
    "account": "aws_account_id",
    "region": "region",
    "ec2_url": "endpoint_url for ec2",
    "s3_url": "endpoint_url for s3",
    "ca_bundle": "ca_bundle",
}


def profile_source(name: str, *, cloud: str, helper_seconds: int = HELPER_SECONDS) -> Source:
    """Return the settings of a profile.

    May ask the service that lends a role's keys, and run the program that prints them. Raises `Halted`.
    """
    try:
        session = _session(None if name == ENVIRONMENT else name, helper_seconds)
        values, files = dict(_values(session)), profile_files(name)
    except Exception as error:  # whatever comes of a program or a file that it names
        raise _unusable(error, name, cloud) from error
    called = "the AWS environment" if name == ENVIRONMENT else f"the AWS profile {name}"
    return Source(called, values, SPELLED, files)


def profile_files(name: str) -> tuple[Path, ...]:
    """List the files in which a profile's keys may stand. Reads none of them and runs nothing."""
    if name == ENVIRONMENT and os.environ.get("AWS_ACCESS_KEY_ID"):
        return ()
    named = at_home(Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or CREDENTIALS_FILE))
    return (named,) if os.path.isfile(named) else ()  # noqa: PTH113 (that of a Path raises)


def _session(profile: str | None, helper_seconds: int) -> botocore.session.Session:
    session = botocore.session.Session(profile=profile)
    session.set_default_client_config(LENDER)
    for one in session.full_config.get("profiles", {}).values():
        if helper := one.get("credential_process"):
            one["credential_process"] = f"{TIMED} {helper_seconds} {helper}"
    return session


def _values(session: botocore.session.Session) -> Iterator[tuple[str, str]]:
    found = {
        **_keys(session),
        "region": session.get_config_variable("region"),
        "ca_bundle": session.get_config_variable("ca_bundle"),
        **{f"{service}_url": _endpoint(session, service) for service in ("ec2", "s3")},
    }
    yield from ((setting, str(value)) for setting, value in found.items() if value)


def _keys(session: botocore.session.Session) -> dict[str, str | None]:
    credentials = session.get_credentials()
    if credentials is None:
        return {}
    keys = credentials.get_frozen_credentials()
    return {
        "access_key": keys.access_key,
        "secret_key": keys.secret_key,
        "session_token": keys.token,
        "account": keys.account_id,
    }


def _endpoint(session: botocore.session.Session, service: str) -> str | None:
    """Return the address of a service if it is not Amazon's, from the places where boto3 looks."""
    scoped = session.get_scoped_config()
    services = _table(session.full_config.get("services")).get(scoped.get("services"))
    of_service = _table(_table(services).get(service))
    found = (
        os.environ.get(f"AWS_ENDPOINT_URL_{service.upper()}"),
        os.environ.get("AWS_ENDPOINT_URL"),
        of_service.get("endpoint_url"),
        scoped.get("endpoint_url"),
    )
    return next((url for url in found if url), None)


def _table(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _unusable(error: Exception, name: str, cloud: str) -> UecError:
    what = f"cloud {cloud}, AWS profile {name}"
    if isinstance(error, ProfileNotFound):
        hint = "They are looked for in ~/.aws of the service's user, or where $AWS_CONFIG_FILE and"
        hint += " $AWS_SHARED_CREDENTIALS_FILE say."
        return Halted(
            f"{what}: there is no such profile", "the AWS tools' files have none of that name", hint
        )
    if isinstance(error, ConfigParseError):
        # One line that is wrong makes the whole file unreadable, and the library only names the file.
        path, cause = error.kwargs["path"], error.kwargs["error"]
        return Halted(f"{what}: {path} cannot be read", _place(cause, Path(path)), "Correct it there.")
    option = "" if name == ENVIRONMENT else f" --profile {shell_word(name)}"
    hint = f"Correct it; as the service's user, `aws configure list{option}` says whether it gives keys."
    return Halted(f"{what}: it gives no keys", _why(error), hint)


def _why(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".:")
    if OUT_OF_TIME in text:
        return "its credential_process was not through in time, and was ended: nobody is there to answer it"
    if isinstance(error, JSONDecodeError):
        return "what its credential_process, or a file that it names, gives is not JSON"
    if isinstance(error, OSError):
        return f"{error.filename or 'something that it names'}: {error.strerror or text}"
    if isinstance(error, BotoCoreError | ClientError):
        return text
    return f"the AWS library cannot make sense of it ({type(error).__name__}: {text})"


def _place(error: Exception, path: Path) -> str:
    """Return the line of the mistake in an ini file. The words of its parser might show a secret."""
    if isinstance(error, UnicodeDecodeError):
        line = error.object[: error.start].count(b"\n") + 1
        return f"line {line} is not UTF-8"
    lines = getattr(error, "errors", ()) or [(getattr(error, "lineno", None), "")]
    if lines[0][0] is None:
        return "one of the indented lines cannot be understood"
    where = f"line {lines[0][0]}"
    match error:
        case DuplicateSectionError(section=section):
            return f"{where} begins [{section}] for a second time"
        case DuplicateOptionError(section=section, option=option):
            return f"{where} gives {option} of [{section}] for a second time"
        case MissingSectionHeaderError():
            return f"{where} stands before any [section]{_marked(path)}"
    return f"{where} cannot be understood"


def _marked(path: Path) -> str:
    with suppress(OSError), path.open("rb") as file:
        if file.read(len(BOM_UTF8)) == BOM_UTF8:
            return ", for the file begins with a byte order mark"
    return ""
