"""Profiles and environment of the AWS tools: looked at when they are asked for, and only then."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from uecwatchd.clouds.credentials.account import gather
from uecwatchd.clouds.credentials.aws_profile import profile_source
from uecwatchd.config.records import CloudSettings
from uecwatchd.errors import Halted

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


def test_a_named_profile_overrides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-secret")
    assert profile_source("lab", cloud="lab").values["access_key"] == "AKIALAB"
    assert profile_source("default", cloud="lab").values["access_key"] == "AKIADEFAULT"
    assert profile_source("environment", cloud="lab").values["access_key"] == "AKIAENV"


def test_without_a_profile_name_the_aws_environment_is_used(
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
def test_an_empty_profile_halts(name: str, words: tuple[str, ...]) -> None:
    with pytest.raises(Halted) as caught:
        profile_source(name, cloud="lab")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def profile_of(home: Path, lines: str) -> None:
    (home / "config").write_text(f"[profile lent]\nregion = eu-west-1\n{lines}\n")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        pytest.param("credential_process = /nonexistent/keys", "/nonexistent/keys", id="it is missing"),
        pytest.param("credential_process = /bin/echo hello", "is not JSON", id="it prints no JSON"),
        pytest.param("credential_process = /bin/echo []", "'list'", id="it prints a list"),
        pytest.param("credential_process = /bin/echo {}", "Unsupported version", id="it prints an object"),
        pytest.param("credential_process = /bin/false", "custom-process", id="it fails in silence"),
        pytest.param("credential_process = /bin/echo 'a", "No closing quotation", id="its quotes are open"),
        pytest.param(
            "role_arn = arn:aws:iam::1:role/x\nweb_identity_token_file = /nonexistent/token",
            "/nonexistent/token: No such file",
            id="a token's file is missing",
        ),
    ],
)
def test_every_failure_of_a_profile_halts_with_a_sentence(home: Path, lines: str, words: str) -> None:
    profile_of(home, lines)
    with pytest.raises(Halted, match="AWS profile lent: it gives no keys") as caught:
        profile_source("lent", cloud="lab")
    assert words in caught.value.why
    assert "aws configure list --profile lent" in caught.value.hint


@pytest.mark.parametrize(
    "helper",
    [
        pytest.param("/bin/sleep 1000", id="it sleeps"),
        pytest.param('/bin/sh -c "sleep 1000; true"', id="its child sleeps"),
    ],
)
def test_a_credential_program_that_waits_for_input_is_ended(home: Path, helper: str) -> None:
    profile_of(home, f"credential_process = {helper}")
    with pytest.raises(Halted, match="was not through in time"):
        profile_source("lent", cloud="lab", helper_seconds=1)


def test_the_keys_of_a_credential_program_are_used_also_for_a_role(home: Path) -> None:
    said = '{"Version": 1, "AccessKeyId": "AKIALENT", "SecretAccessKey": "s", "SessionToken": "t"}'
    (home / "said").write_text(said)
    profile_of(home, f"credential_process = /bin/cat {home / 'said'}")
    assert profile_source("lent", cloud="lab").values["access_key"] == "AKIALENT"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(CREDENTIALS + "[lab]\n", "line 10 begins [lab] for a second time", id="a section twice"),
        pytest.param(
            CREDENTIALS + "aws_access_key_id = AKIAOTHER\n",
            "line 10 gives aws_access_key_id of [half] for a second time",
            id="an option twice",
        ),
        pytest.param("a = b\n" + CREDENTIALS, "line 1 stands before any [section]", id="no section"),
        pytest.param("\ufeff" + CREDENTIALS, "begins with a byte order mark", id="a mark of Windows"),
        pytest.param(CREDENTIALS + "sEcReT\n", "line 10 cannot be understood", id="half a line"),
        pytest.param(
            CREDENTIALS + "s3 =\n  sEcReT\n", "one of the indented lines", id="half a line of a table"
        ),
        pytest.param(CREDENTIALS + "# caf\udce9\n", "line 10 is not UTF-8", id="another encoding"),
    ],
)
def test_a_malformed_file_is_reported_by_line_without_secrets(home: Path, text: str, words: str) -> None:
    (home / "credentials").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(Halted, match=re.escape(words)) as caught:
        profile_source("lab", cloud="lab")
    assert str(home / "credentials") in caught.value.what
    assert "sEcReT" not in str(caught.value)


@pytest.mark.parametrize("services", ["ec2 = http://127.0.0.1/", "ec2 =", "ec2 =\n  region = a"])
def test_a_malformed_services_section_gives_no_address(home: Path, services: str) -> None:
    profile_of(home, f"services = odd\n[services odd]\n{services}")
    assert "ec2_url" not in profile_source("lent", cloud="lab").values


def settings(folder: Path, **more: Any) -> CloudSettings:
    return CloudSettings(
        name="lab",
        account="123456789012",
        user_cert=folder / "user-cert.pem",
        user_key=folder / "user-pk.pem",
        **more,
    )


def test_a_region_of_a_profile_needs_no_address(home: Path, user: Any) -> None:
    user.write(home, "user")
    account = gather(settings(home, profile="default"))
    assert (account.ec2_url, account.s3_url, account.region) == (None, None, "us-east-1")
    lent = gather(settings(home, profile="lab"))
    assert (lent.session_token, lent.ec2_url) == ("lab-token", "http://127.0.0.1:8773/services/compute")


def test_a_profile_is_read_only_if_it_is_configured(home: Path, user: Any) -> None:
    user.write(home, "user")
    with pytest.raises(Halted, match="access_key is not set and there is no eucarc"):
        gather(settings(home, region="eu-west-1"))


def test_a_missing_key_is_named_as_the_profile_names_it(home: Path, user: Any) -> None:
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
