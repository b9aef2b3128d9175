"""Each piece of a user's credentials, missing or wrong: the error names the file and the setting."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from uecwatchd.bundle.keys import is_key_pair
from uecwatchd.clouds.credentials.account import bundle_user, gather, numbered, sealing_certificate
from uecwatchd.clouds.dialects import AWS, EUCA3, EUCA4, EUCA5, OPENSTACK, UEC, Dialect
from uecwatchd.config.records import CloudSettings
from uecwatchd.errors import Halted, NotPermitted

SECRET = "HIBmGPfQ0oGzkTEBMGyBnDM4lVNYi8ZrLTMsg"

EUCARC = f"""\
EUCA_KEY_DIR=$(cd $(dirname ${{BASH_SOURCE:-$0}}); pwd -P)
export S3_URL=http://127.0.0.1:8773/services/Walrus/
export EC2_URL=http://127.0.0.1:8773/services/Eucalyptus
export EC2_PRIVATE_KEY=${{EUCA_KEY_DIR}}/user-pk.pem
export EC2_CERT=${{EUCA_KEY_DIR}}/user-cert.pem
export EUCALYPTUS_CERT=${{EUCA_KEY_DIR}}/cloud-cert.pem
export EC2_ACCESS_KEY='WKy3rMzOWPouVOxK1p3Ar1C2uRBwa2FBXnCw'
export EC2_SECRET_KEY='{SECRET}'
export EC2_USER_ID='0001-0072-9354'
echo WARN: something is not configured
"""


@pytest.fixture
def folder(tmp_path: Path, user: Any, cloud_keys: Any) -> Path:
    """Make the unpacked folder of a cloud's user: eucarc, certificate and key, the cloud's certificate."""
    user.write(tmp_path, "user")
    cloud_keys.write(tmp_path, "cloud")
    (tmp_path / "eucarc").write_text(EUCARC)
    return tmp_path


@pytest.fixture
def settings(folder: Path) -> CloudSettings:
    return CloudSettings(name="default", dialect="uec", eucarc=folder / "eucarc")


def test_an_eucarc_alone_is_a_complete_account(settings: CloudSettings) -> None:
    account = gather(settings)
    assert account.cloud == "default"
    assert account.ec2_url == "http://127.0.0.1:8773/services/Eucalyptus"
    assert account.s3_url == "http://127.0.0.1:8773/services/Walrus"
    assert account.access_key == "WKy3rMzOWPouVOxK1p3Ar1C2uRBwa2FBXnCw"
    assert account.secret_key == SECRET
    assert account.account == "000100729354"
    assert is_key_pair(account.user_key, account.user_cert)
    assert not is_key_pair(account.user_key, account.cloud_cert)


def test_the_settings_alone_are_a_complete_account(folder: Path) -> None:
    account = gather(
        CloudSettings(
            name="default",
            dialect="euca4",
            ec2_url="http://127.0.0.1:8773/services/compute",
            s3_url="http://127.0.0.1:8773/services/objectstorage",
            region="here",
            access_key="AKI",
            secret_key=SecretStr("secret"),
            account="123456789012",
            user_cert=folder / "user-cert.pem",
            user_key=folder / "user-pk.pem",
            cloud_cert=folder / "cloud-cert.pem",
        )
    )
    assert (account.access_key, account.secret_key, account.region) == ("AKI", "secret", "here")


def test_a_setting_overrides_the_eucarc(settings: CloudSettings) -> None:
    account = gather(
        replace(settings, access_key="MINE", secret_key=SecretStr("own"), account="123456789012")
    )
    assert (account.access_key, account.secret_key, account.account) == ("MINE", "own", "123456789012")
    assert account.ec2_url == "http://127.0.0.1:8773/services/Eucalyptus"


def test_the_account_number_of_eucalyptus_4_goes_before_the_user_id(
    settings: CloudSettings, folder: Path
) -> None:
    (folder / "eucarc").write_text(EUCARC + "export EC2_ACCOUNT_NUMBER='999999999999'\n")
    assert gather(settings).account == "999999999999"


# As files of credentials have it: UEC and Eucalyptus 1.6, every OpenStack, a name, a project, nothing.
ODD_NUMBERS = [
    pytest.param("85284638479465098132043786554361028735", "85284638479465098132043786554361028735", id="38"),
    pytest.param("42", "42", id="nova"),
    pytest.param("admin", "admin", id="a word"),
    pytest.param("5f0d3c1e9a7b4c2d8e6f0a1b2c3d4e5f", "5f0d3c1e9a7b4c2d8e6f0a1b2c3d4e5f", id="a project"),
    pytest.param("Ärger & <b>", "000000000000", id="what no manifest should hold"),
    pytest.param("", "000000000000", id="empty"),
    pytest.param(None, "000000000000", id="absent"),
]


@pytest.mark.parametrize(("number", "named"), ODD_NUMBERS)
@pytest.mark.parametrize("dialect", [UEC, EUCA3, OPENSTACK], ids=lambda dialect: dialect.name)
def test_any_account_number_is_valid_if_the_cloud_ignores_it(
    settings: CloudSettings, folder: Path, number: str | None, named: str, dialect: Dialect
) -> None:
    (without("EC2_USER_ID") if number is None else setting("EC2_USER_ID", number))(folder)
    account = numbered(gather(settings), dialect)
    assert bundle_user(account) == named


@pytest.mark.parametrize(("number", "named"), ODD_NUMBERS)
@pytest.mark.parametrize("dialect", [EUCA4, EUCA5, AWS], ids=lambda dialect: dialect.name)
def test_an_account_number_that_the_cloud_compares_has_twelve_digits(
    settings: CloudSettings, folder: Path, number: str | None, named: str, dialect: Dialect
) -> None:
    (without("EC2_USER_ID") if number is None else setting("EC2_USER_ID", number))(folder)
    with pytest.raises(Halted, match=r"account number.*\[cloud\.default\].*12 digits"):
        numbered(gather(settings), dialect)


def test_an_eucarc_behind_a_link_finds_its_own_files(
    settings: CloudSettings, folder: Path, tmp_path: Path
) -> None:
    link = tmp_path / "elsewhere" / "eucarc"
    link.parent.mkdir()
    link.symlink_to(folder / "eucarc")
    assert gather(replace(settings, eucarc=link)).account == "000100729354"


def without(variable: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        lines = [line for line in EUCARC.splitlines(keepends=True) if f"export {variable}=" not in line]
        (folder / "eucarc").write_text("".join(lines))

    return change


def setting(variable: str, value: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "eucarc").write_text(f"{EUCARC}export {variable}='{value}'\n") and None


def gone(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def replaced(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def swapped(folder: Path) -> None:
    (folder / "user-cert.pem").write_bytes((folder / "cloud-cert.pem").read_bytes())


def not_rsa(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        pem, bare = serialization.Encoding.PEM, serialization.NoEncryption()
        (folder / name).write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, bare))

    return change


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        pytest.param(without("S3_URL"), ("s3_url", "S3_URL", "eucarc"), id="no address for S3"),
        pytest.param(without("EC2_URL"), ("ec2_url", "EC2_URL"), id="no address for EC2"),
        pytest.param(setting("S3_URL", "walrus"), ("S3_URL", "http://"), id="S3_URL is no address"),
        pytest.param(
            setting("S3_URL", "http://[::1"), ("S3_URL", "its host"), id="S3_URL is half an address"
        ),
        pytest.param(
            setting("S3_URL", "http://a:b@127.0.0.1/"),
            ("s3_url", "no user or password"),
            id="password in a URL",
        ),
        pytest.param(without("EC2_ACCESS_KEY"), ("access_key", "EC2_ACCESS_KEY"), id="no access key"),
        pytest.param(without("EC2_SECRET_KEY"), ("secret_key", "EC2_SECRET_KEY"), id="no secret key"),
        pytest.param(without("EC2_CERT"), ("user_cert", "EC2_CERT"), id="no user certificate"),
        pytest.param(without("EC2_PRIVATE_KEY"), ("user_key", "EC2_PRIVATE_KEY"), id="no private key"),
        pytest.param(gone("eucarc"), ("eucarc", "No such file", "[cloud.default]"), id="eucarc is not there"),
        pytest.param(
            replaced("eucarc", b"PK\x03\x04\x14"),
            ("eucarc", "sets none", "unpack"),
            id="eucarc is the archive",
        ),
        pytest.param(gone("user-cert.pem"), ("user-cert.pem",), id="user certificate is not there"),
        pytest.param(gone("user-pk.pem"), ("user-pk.pem",), id="private key is not there"),
        pytest.param(gone("cloud-cert.pem"), ("cloud-cert.pem",), id="cloud certificate is not there"),
        pytest.param(swapped, ("user-pk.pem", "user-cert.pem", "user_key"), id="key of another certificate"),
        pytest.param(not_rsa("user-pk.pem"), ("user-pk.pem", "RSA"), id="private key is not RSA"),
    ],
)
def test_a_missing_or_wrong_value_halts_and_is_named(
    settings: CloudSettings, folder: Path, damage: Callable[[Path], None], named: tuple[str, ...]
) -> None:
    damage(folder)
    with pytest.raises(Halted) as caught:
        gather(settings)
    assert all(word in str(caught.value) for word in named), str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_missing_cloud_certificate_halts_only_before_sealing(settings: CloudSettings, folder: Path) -> None:
    without("EUCALYPTUS_CERT")(folder)
    account = gather(settings)
    assert account.cloud_cert is None
    with pytest.raises(Halted, match=r"no cloud certificate.*\[cloud.default\]"):
        sealing_certificate(account)


def test_the_certificate_of_the_user_is_not_used_as_that_of_the_cloud(
    settings: CloudSettings, folder: Path
) -> None:
    (folder / "cloud-cert.pem").write_bytes((folder / "user-cert.pem").read_bytes())
    with pytest.raises(Halted, match=r"cloud-cert\.pem \(cloud_cert\): it is the user's certificate"):
        gather(settings)


def without_urls(folder: Path) -> None:
    text = "".join(line for line in EUCARC.splitlines(keepends=True) if "_URL" not in line)
    (folder / "eucarc").write_text(text)


def test_a_region_with_known_addresses_needs_no_address(settings: CloudSettings, folder: Path) -> None:
    without_urls(folder)
    account = gather(replace(settings, dialect="auto", region="eu-west-1"))
    assert (account.ec2_url, account.s3_url, account.region) == (None, None, "eu-west-1")
    assert gather(replace(settings, region="new", dialect="aws")).region == "new"


@pytest.mark.parametrize("proxy", ["socks5://10.0.0.1:1080", "socks5h://u:s3cret@gate", "http://a b"])
@pytest.mark.parametrize(
    "where", [{"dialect": "auto", "region": "eu-west-1"}, {"dialect": "aws", "region": "new"}]
)
def test_a_region_alone_is_asked_through_a_proxy_that_can_be_used(
    settings: CloudSettings, folder: Path, monkeypatch: pytest.MonkeyPatch, proxy: str, where: dict[str, Any]
) -> None:
    without_urls(folder)
    monkeypatch.setenv("https_proxy", proxy)
    with pytest.raises(Halted, match=r"cannot use the proxy .*\(https_proxy in this"):
        gather(replace(settings, **where))
    monkeypatch.setenv("no_proxy", "amazonaws.com")
    assert gather(replace(settings, **where)).ec2_url is None


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"dialect": "auto"}, id="nothing"),
        pytest.param({"region": "eucalyptus", "dialect": "auto"}, id="a region that only its cloud knows"),
        pytest.param({"region": "eu-west-1", "dialect": "uec"}, id="a cloud that has no regions"),
        pytest.param({"dialect": "aws"}, id="a cloud of regions, and none is named"),
        pytest.param({"region": "eu-west-1", "ec2_url": "http://127.0.0.1:8773/"}, id="half an address"),
    ],
)
def test_without_addresses_a_cloud_is_not_found(
    settings: CloudSettings, folder: Path, more: dict[str, Any]
) -> None:
    without_urls(folder)
    with pytest.raises(Halted, match=r"no address for (EC2|S3): (ec2|s3)_url is not set and .*eucarc"):
        gather(replace(settings, **more))


@pytest.mark.parametrize("variable", ["AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"])
def test_a_token_is_used_only_with_the_secret_from_the_same_place(
    settings: CloudSettings, folder: Path, variable: str
) -> None:
    setting(variable, "lent")(folder)
    assert gather(settings).session_token == "lent"
    own = replace(settings, access_key="MINE", secret_key=SecretStr("own"))
    assert gather(own).session_token is None
    assert "lent" not in repr(gather(settings))


def test_without_an_eucarc_the_missing_setting_is_named(folder: Path) -> None:
    with pytest.raises(Halted, match=r"user_cert is not set and there is no eucarc.*\[cloud.bare\]"):
        gather(CloudSettings(name="bare", dialect="uec"))


def test_a_certificate_that_is_not_rsa_halts(settings: CloudSettings, folder: Path, certified: Any) -> None:
    certificate = certified(ec.generate_private_key(ec.SECP256R1()), "cloud")
    (folder / "cloud-cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    with pytest.raises(Halted, match=r"cloud-cert\.pem.*RSA"):
        gather(settings)


def test_a_missing_ca_bundle_halts(settings: CloudSettings, folder: Path) -> None:
    with pytest.raises(Halted, match=r"nowhere\.pem \(ca_bundle of cloud default\)"):
        gather(replace(settings, ca_bundle=folder / "nowhere.pem"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can show a file that somebody else may not read")
def test_an_unreadable_eucarc_is_reported_as_missing_permission(
    settings: CloudSettings, folder: Path
) -> None:
    (folder / "eucarc").chmod(0o000)
    os.seteuid(65534)
    try:
        with pytest.raises(NotPermitted, match=r"eucarc.*cannot read it"):
            gather(settings)
    finally:
        os.seteuid(0)


def test_no_key_is_in_the_representation_of_an_account(settings: CloudSettings) -> None:
    shown = repr(gather(settings))
    assert SECRET not in shown
    assert "user_key" not in shown


@pytest.mark.parametrize(
    ("damage", "what", "hint"),
    [
        pytest.param(without("S3_URL"), "no address for S3", "Add `export S3_URL=…` to", id="address"),
        pytest.param(
            without("EC2_CERT"), "no user certificate", "Add `export EC2_CERT=…` to", id="certificate"
        ),
        pytest.param(setting("S3_URL", "walrus"), "address for S3 is not one", "Correct it", id="no address"),
    ],
)
def test_the_first_line_of_an_error_says_what_to_do(
    settings: CloudSettings, folder: Path, damage: Callable[[Path], None], what: str, hint: str
) -> None:
    damage(folder)
    with pytest.raises(Halted) as caught:
        gather(settings)
    assert what in caught.value.what
    assert caught.value.hint.startswith(hint)
    assert "[cloud.default]" in caught.value.hint


def test_a_missing_cloud_certificate_is_named_in_the_first_line(
    settings: CloudSettings, folder: Path
) -> None:
    without("EUCALYPTUS_CERT")(folder)
    with pytest.raises(Halted, match="EUCALYPTUS_CERT") as caught:
        sealing_certificate(gather(settings))
    assert caught.value.what == "cloud default: it has no cloud certificate"
