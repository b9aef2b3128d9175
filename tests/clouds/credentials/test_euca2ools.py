"""The files of euca2ools, read by its own rules, and what is wrong with them in sentences."""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from uecwatchd.clouds.credentials.account import gather
from uecwatchd.clouds.credentials.euca2ools import euca2ools_source
from uecwatchd.clouds.credentials.source import Source
from uecwatchd.config.records import CloudSettings
from uecwatchd.errors import Halted, NotPermitted

SECRET = "vrwAGfda90vFDASFEO4498qADFAeef"

LAB = f"""\
; written by euare-useraddkey -w
[user admin]
key-id = AKIAADMIN
secret-key = {SECRET}
account-id = 0001-0000-0001
certificate = user-cert.pem
private-key = user-pk.pem

[user other]
key-id = AKIAOTHER
secret-key = other

[region lab.example.com]
ec2-url = http://10.1.1.1:8773/services/compute/
s3-url = http://10.1.1.1:8773/services/objectstorage/
iam-url = http://10.1.1.1:8773/services/Euare/
certificate = cloud-cert.pem ; the cloud's own
user = admin
s3-force-sigv4 = false
"""

AWS = """\
[region aws:*]
certificate = /usr/share/euca2ools/certs/cert-ec2.pem
verify-ssl = true
user = aws:admin
s3-url = use aws:us-east-1

[region aws:us-east-1]
ec2-url = https://ec2.us-east-1.amazonaws.com/
s3-url = https://s3.amazonaws.com/

[region aws:us-gov-west-1]
certificate = /usr/share/euca2ools/certs/cert-ec2-gov.pem
ec2-url = https://ec2.us-gov-west-1.amazonaws.com/

[user aws:*]
account-id = 123456789012

[user aws:admin]
key-id = AKIAAWS
"""


def source(folder: Path, choice: str, **files: str) -> Source:
    for name, text in files.items():
        (folder / f"{name}.ini").write_text(text)
    return euca2ools_source(choice, (folder / "*.ini",), cloud="lab")


def complaint(folder: Path, choice: str, **files: str) -> str:
    with pytest.raises(Halted) as caught:
        source(folder, choice, **files)
    return str(caught.value)


@pytest.mark.parametrize(
    ("choice", "key"),
    [
        pytest.param("lab.example.com", "AKIAADMIN", id="a region and its own user"),
        pytest.param("@lab.example.com", "AKIAADMIN", id="no user before the sign"),
        pytest.param("admin@lab.example.com", "AKIAADMIN", id="user and region"),
        pytest.param("other@lab.example.com", "AKIAOTHER", id="another user"),
    ],
)
def test_user_and_region_are_chosen_in_the_words_of_euca2ools(tmp_path: Path, choice: str, key: str) -> None:
    said = source(tmp_path, choice, lab=LAB).values
    assert said["access_key"] == key
    assert said["ec2_url"] == "http://10.1.1.1:8773/services/compute/"
    assert said["cloud_cert"] == str(tmp_path / "cloud-cert.pem")


@pytest.mark.parametrize("choice", ["admin@", "@", ""])
def test_the_default_region_is_that_of_the_global_section(tmp_path: Path, choice: str) -> None:
    said = source(tmp_path, choice, lab=LAB, main="[global]\ndefault-region = lab.example.com\n").values
    assert said["access_key"] == "AKIAADMIN"
    assert said["s3_url"] == "http://10.1.1.1:8773/services/objectstorage/"


@pytest.mark.parametrize("name", ["user", "default-user"])
def test_the_user_of_a_region_is_found_under_both_names_it_ever_had(tmp_path: Path, name: str) -> None:
    text = LAB.replace("user = admin", f"{name} = other")
    assert source(tmp_path, "lab.example.com", lab=text).values["access_key"] == "AKIAOTHER"


def test_a_missing_key_is_taken_from_wildcard_sections_of_its_group(tmp_path: Path) -> None:
    said = source(tmp_path, "aws:us-gov-west-1", aws=AWS).values
    assert said["cloud_cert"] == "/usr/share/euca2ools/certs/cert-ec2-gov.pem"
    assert said["access_key"] == "AKIAAWS"
    assert said["account"] == "123456789012"
    assert said["region"] == "us-gov-west-1"
    said = source(tmp_path, "aws:us-east-1", aws=AWS).values
    assert said["cloud_cert"] == "/usr/share/euca2ools/certs/cert-ec2.pem"


def test_use_includes_another_section(tmp_path: Path) -> None:
    assert source(tmp_path, "aws:us-gov-west-1", aws=AWS).values["s3_url"] == "https://s3.amazonaws.com/"
    other = "[region a]\nec2-url = use b s3-url\n[region b]\ns3-url = http://127.0.0.1/b\n"
    assert source(tmp_path, "a", other=other).values["ec2_url"] == "http://127.0.0.1/b"


def test_a_circle_of_use_is_reported(tmp_path: Path) -> None:
    loop = "[region a]\nec2-url = use b\n[region b]\nec2-url = use a\n"
    assert "refers to itself" in complaint(tmp_path, "a", loop=loop)


def test_a_section_is_found_by_the_unique_end_of_its_name(tmp_path: Path) -> None:
    assert source(tmp_path, "us-east-1", aws=AWS).values["ec2_url"] == "https://ec2.us-east-1.amazonaws.com/"
    why = complaint(tmp_path, "us-east-1", aws=AWS, more="[region euca:us-east-1]\nec2-url = http://a/\n")
    assert "may be aws:us-east-1 or euca:us-east-1" in why


def test_the_lone_wildcard_comes_last(tmp_path: Path) -> None:
    text = AWS + "[region *]\nec2-url = http://10.0.0.1/\ns3-url = http://10.0.0.1/s3\n"
    said = source(tmp_path, "us-gov-west-1", aws=text).values
    assert said["ec2_url"] == "https://ec2.us-gov-west-1.amazonaws.com/"
    said = source(tmp_path, "b", aws=text, b="[region b]\nuser = aws:admin\n").values
    assert said["ec2_url"] == "http://10.0.0.1/"


def test_the_last_file_overrides_the_others(tmp_path: Path) -> None:
    later = "[user admin]\nkey-id = AKIALATER\n"
    said = source(tmp_path, "lab.example.com", lab=LAB, zz=later)
    assert (said.values["access_key"], said.values["secret_key"]) == ("AKIALATER", SECRET)
    assert said.files == (tmp_path / "lab.ini",)


def test_paths_are_relative_to_the_ini_and_tilde_and_variables_are_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.setenv("KEYS", "/srv/keys")
    text = LAB.replace("= user-cert.pem", "= ~/.euca/c.pem").replace("= user-pk.pem", "= ${KEYS}/k.pem")
    said = source(tmp_path, "lab.example.com", lab=text).values
    assert said["user_cert"] == "/home/alice/.euca/c.pem"
    assert said["user_key"] == "/srv/keys/k.pem"
    assert said["cloud_cert"] == str(tmp_path / "cloud-cert.pem")


def test_disabled_verification_is_ignored_and_reported(tmp_path: Path) -> None:
    off = source(tmp_path, "lab.example.com", lab=LAB + "verify-ssl = false\n")
    (remark,) = off.remarks
    assert "verified all the same" in remark.what
    assert "ca_bundle" in remark.hint
    assert source(tmp_path, "lab.example.com", lab=LAB + "verify-ssl = true\n").remarks == ()


def test_an_invalid_region_name_is_not_used_in_signatures(tmp_path: Path, user: Any, cloud_keys: Any) -> None:
    """boto3 refuses it, and no private cloud cares."""
    user.write(tmp_path, "user")
    cloud_keys.write(tmp_path, "cloud")
    (tmp_path / "lab.ini").write_text(LAB)
    account = gather(
        CloudSettings(name="lab", euca2ools="admin@lab.example.com", euca2ools_files=(tmp_path / "lab.ini",))
    )
    assert account.region is None
    assert account.account == "000100000001"
    assert account.ec2_url == "http://10.1.1.1:8773/services/compute"
    assert account.cloud_cert == cloud_keys.certificate


def test_the_configuration_overrides_the_eucarc_and_that_overrides_euca2ools(
    tmp_path: Path, user: Any, cloud_keys: Any
) -> None:
    user.write(tmp_path, "user")
    cloud_keys.write(tmp_path, "cloud")
    (tmp_path / "lab.ini").write_text(LAB)
    (tmp_path / "eucarc").write_text("EC2_ACCESS_KEY=FROM-EUCARC\nEC2_SECRET_KEY=from-eucarc\n")
    account = gather(
        CloudSettings(
            name="lab",
            eucarc=tmp_path / "eucarc",
            euca2ools="lab.example.com",
            euca2ools_files=(tmp_path / "lab.ini",),
            secret_key=SecretStr("configured"),
        )
    )
    assert (account.access_key, account.secret_key) == ("FROM-EUCARC", "configured")
    assert account.s3_url == "http://10.1.1.1:8773/services/objectstorage"


@pytest.mark.parametrize(
    ("choice", "files", "words"),
    [
        pytest.param(
            "lab", {"lab": LAB}, ("[region lab]", "did you mean lab.example.com", "lab.ini"), id="typo"
        ),
        pytest.param("bob@lab.example.com", {"lab": LAB}, ("[user bob]", "lab.ini"), id="no such user"),
        pytest.param("lab", {}, ("[region lab]", "there is none", "euca2ools_files"), id="no files"),
        pytest.param("a", {"a": f"secret-key = {SECRET}\n"}, ("a.ini", "line 1"), id="no section"),
        pytest.param("a", {"a": f"[user a]\n{SECRET}\n"}, ("a.ini", "line 2"), id="no value"),
        pytest.param(
            "a", {"a": f"[user a]\nsecret-key = %{SECRET}\n"}, ("secret-key", "[user a]", "%"), id="a bare %"
        ),
    ],
)
def test_mistakes_are_reported_without_secrets(
    tmp_path: Path, choice: str, files: dict[str, str], words: tuple[str, ...]
) -> None:
    why = complaint(tmp_path, choice, **files)
    assert all(word in why for word in words), why
    assert SECRET not in why


def test_an_option_that_is_missing_is_called_as_euca2ools_calls_it(tmp_path: Path) -> None:
    (tmp_path / "lab.ini").write_text(LAB.replace("certificate = user-cert.pem\n", ""))
    settings = CloudSettings(name="lab", euca2ools="lab.example.com", euca2ools_files=(tmp_path / "lab.ini",))
    with pytest.raises(
        Halted, match=r"user_cert is not set and euca2ools .* certificate, under \[user admin\]"
    ):
        gather(settings)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can show a file that somebody else may not read")
@pytest.mark.usefixtures("as_nobody")
def test_an_unreadable_file_is_reported_as_missing_permission(tmp_path: Path) -> None:
    file = tmp_path / "lab.ini"
    os.seteuid(0)
    file.touch(mode=0o600)
    os.seteuid(65534)
    with pytest.raises(NotPermitted, match=r"lab\.ini.*cannot read it"):
        euca2ools_source("lab", (file,), cloud="lab")


TEXT = st.text(st.sampled_from("ab:*@=;%[]\n user region use key-id"), max_size=80)


@settings(max_examples=60, deadline=None)
@given(choice=st.text(st.sampled_from("ab:*@"), max_size=5), text=TEXT)
def test_any_file_content_is_understood_or_halts(choice: str, text: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "any.ini")
        file.write_text(f"[region a:b]\nuser = a\n[user a]\nkey-id = 1\n[region a]\n{text}")
        with contextlib.suppress(Halted):
            euca2ools_source(choice, (file,), cloud="lab")
