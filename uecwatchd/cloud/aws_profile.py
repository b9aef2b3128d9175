"""Who we are by a profile of the AWS tools, or by the environment: found out as boto3 does it.

Looked at only when the configuration asks for it, and then once: the clients get plain keys and stay deaf.
Keys that are lent for a while, of a role or a login, therefore run out under way; the cloud's refusal closes
its gate, and the gate's next probe asks the profile again.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import botocore.session
from botocore.exceptions import BotoCoreError, ClientError, ProfileNotFound

from uecwatchd.cloud.source import Source, at_home
from uecwatchd.errors import Halted, UecError

# In place of a profile's name: what the AWS tools take where no profile is named.
ENVIRONMENT = "environment"

# What botocore calls the way to keys in AWS_* variables, which come before those of any file.
FROM_ENVIRONMENT = "env"

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


def profile_source(name: str, *, cloud: str) -> Source:
    """Raises `Halted`. May ask the service that lends a role's keys."""
    session = botocore.session.Session(profile=None if name == ENVIRONMENT else name)
    try:
        values = dict(_values(session))
    except (BotoCoreError, ClientError) as error:
        raise _unusable(error, name, cloud) from error
    called = "the AWS environment" if name == ENVIRONMENT else f"the AWS profile {name}"
    return Source(called, values, SPELLED, _files(session))


def _values(session: botocore.session.Session) -> Iterator[tuple[str, str]]:
    said = {
        **_keys(session),
        "region": session.get_config_variable("region"),
        "ca_bundle": session.get_config_variable("ca_bundle"),
        **{f"{service}_url": _endpoint(session, service) for service in ("ec2", "s3")},
    }
    yield from ((setting, str(value)) for setting, value in said.items() if value)


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
    """The address of a service where it is not Amazon's, from the places that boto3 looks for it."""
    scoped = session.get_scoped_config()
    of_service = session.full_config.get("services", {}).get(scoped.get("services"), {}).get(service, {})
    said = (
        os.environ.get(f"AWS_ENDPOINT_URL_{service.upper()}"),
        os.environ.get("AWS_ENDPOINT_URL"),
        of_service.get("endpoint_url"),
        scoped.get("endpoint_url"),
    )
    return next((url for url in said if url), None)


def _files(session: botocore.session.Session) -> tuple[Path, ...]:
    credentials = session.get_credentials()
    if credentials is not None and credentials.method == FROM_ENVIRONMENT:
        return ()
    named = at_home(Path(session.get_config_variable("credentials_file")))
    return (named,) if os.path.isfile(named) else ()  # noqa: PTH113 (that of a Path raises)


def _unusable(error: Exception, name: str, cloud: str) -> UecError:
    if isinstance(error, ProfileNotFound):
        hint = "They are looked for in ~/.aws of the service's user, or where $AWS_CONFIG_FILE and"
        hint += " $AWS_SHARED_CREDENTIALS_FILE say."
        what = f"cloud {cloud}, AWS profile {name}: there is no such profile"
        return Halted(what, "the AWS tools' files have none of that name", hint)
    why = " ".join(str(error).split()).rstrip(".")
    return Halted(
        f"cloud {cloud}, AWS profile {name}: it gives no keys",
        why,
        "Try: aws sts get-caller-identity, as the service's user.",
    )
