"""Profiles and environment of the AWS tools: looked at when they are asked for, and only then."""

import os
from pathlib import Path
from typing import Any

import pytest

from uecwatchd.cloud.aws_profile import profile_source
from uecwatchd.cloud.credentials import gather
from uecwatchd.errors import Halted
from uecwatchd.settings import CloudSettings

CREDENTIALS = """\
[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key = default-secret
[lab]
aws_access_key_id = AKIALAB
aws_secret_access_key = lab-secret
aws_session_token = lab-token
[half]
aws_access_key_id = AKIAHALF
"""
CONFIG = """\
[default]
region = us-east-1
[profile lab]
region = eu-west-1
services = euca
[services euca]
ec2 =
  endpoint_url = http://127.0.0.1:8773/services/compute
s3 =
  endpoint_url = http://127.0.0.1:8773/services/objectstorage
[profile empty]
region = eu-west-1
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with AWS files in it; and nobody asks the network who this machine is."""
    for name, text in {"credentials": CREDENTIALS, "config": CONFIG}.items():
        (tmp_path / name).write_text(text)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


def test_a_profile_says_keys_token_region_and_addresses(home: Path) -> None:
    said = profile_source("lab", cloud="lab")
    assert said.values == {
        "access_key": "AKIALAB",
        "secret_key": "lab-secret",
        "session_token": "lab-token",
        "region": "eu-west-1",
        "ec2_url": "http://127.0.0.1:8773/services/compute",
        "s3_url": "http://127.0.0.1:8773/services/objectstorage",
    }
    assert said.files == (home / "credentials",)
    assert "lab-secret" not in repr(said)


def test_a_named_profile_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-secret")
    assert profile_source("lab", cloud="lab").values["access_key"] == "AKIALAB"
    assert profile_source("default", cloud="lab").values["access_key"] == "AKIADEFAULT"
    assert profile_source("environment", cloud="lab").values["access_key"] == "AKIAENV"


def test_the_environment_is_all_that_the_aws_tools_take_without_a_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert profile_source("environment", cloud="lab").values["access_key"] == "AKIADEFAULT"
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9/own")
    said = profile_source("environment", cloud="lab").values
    assert (said["access_key"], said["s3_url"]) == ("AKIALAB", "http://127.0.0.1:9/own")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param(
            "nonesuch", ("AWS profile nonesuch", "there is no such profile", "~/.aws"), id="missing"
        ),
        pytest.param("half", ("AWS profile half", "gives no keys"), id="half a pair"),
    ],
)
def test_a_profile_that_gives_nothing_halts(name: str, words: tuple[str, ...]) -> None:
    with pytest.raises(Halted) as caught:
        profile_source(name, cloud="lab")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def settings(folder: Path, **more: Any) -> CloudSettings:
    return CloudSettings(
        name="lab",
        account="123456789012",
        user_cert=folder / "user-cert.pem",
        user_key=folder / "user-pk.pem",
        **more,
    )


def test_a_region_of_a_profile_is_address_enough(home: Path, user: Any) -> None:
    user.write(home, "user")
    account = gather(settings(home, profile="default"))
    assert (account.ec2_url, account.s3_url, account.region) == (None, None, "us-east-1")
    lent = gather(settings(home, profile="lab"))
    assert (lent.session_token, lent.ec2_url) == ("lab-token", "http://127.0.0.1:8773/services/compute")


def test_nothing_of_it_is_looked_at_unasked(home: Path, user: Any) -> None:
    user.write(home, "user")
    with pytest.raises(Halted, match="access_key is not set and there is no eucarc"):
        gather(settings(home, region="eu-west-1"))


def test_what_a_profile_lacks_is_said_in_its_own_words(home: Path, user: Any) -> None:
    user.write(home, "user")
    with pytest.raises(Halted, match="the AWS profile empty does not set aws_access_key_id"):
        gather(settings(home, profile="empty"))
    with pytest.raises(Halted, match="the AWS profile lab holds nothing of the kind"):
        gather(CloudSettings(name="lab", profile="lab", account="123456789012"))


def test_keys_of_the_environment_are_in_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert profile_source("environment", cloud="lab").files
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert profile_source("environment", cloud="lab").files == ()
