"""`check` of credentials: each piece is examined for itself, and none hides another."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.host import NOBODY
from uecwatchd.cli.check.credentials import examine_credentials
from uecwatchd.cli.check.finding import Finding, exit_code
from uecwatchd.cli.check.host import examine_configuration
from uecwatchd.config.records import Settings
from uecwatchd.sandbox.server import Sandbox

Configured = Callable[..., Settings]
Of = Callable[[list[Finding], str], list[str]]


@pytest.fixture
def examined(configured: Configured) -> Callable[..., list[Finding]]:
    def run(*lines: str, eucarc: Path | None = None, later: int = 0) -> list[Finding]:
        cloud = configured(*lines, eucarc=eucarc).clouds["default"]
        return list(examine_credentials(cloud, datetime.now(UTC) + timedelta(days=later)))

    return run


Examine = Callable[..., list[Finding]]


def test_good_credentials_have_a_line_for_each(examined: Examine, of: Of) -> None:
    found = examined()
    assert {finding.level for finding in found} == {"ok"}
    pieces = ("credentials of", "eucarc", "user certificate", "private key", "cloud certificate", "account")
    assert all(any(piece in line for line in of(found, "ok")) for piece in pieces)


def test_the_account_number_may_have_hyphens(examined: Examine, box: Sandbox, of: Of) -> None:
    number = box.identity.account
    found = examined(f'account = "{number[:4]}-{number[4:8]}-{number[8:]}"')
    assert f"account {number}, access key" in of(found, "ok")[-1]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text.replace("/Walrus", "/Walrus/"), id="trailing slash"),
        pytest.param(lambda text: f"echo WARN: no S3, not S3_URL=nonsense >&2\n{text}", id="echo line"),
        pytest.param(lambda text: f"alias x='EC2_URL=nonsense'\n{text}", id="alias"),
        pytest.param(lambda text: text.replace("\n", "\r\n"), id="line ends of Windows"),
    ],
)
def test_usual_variations_of_an_eucarc_are_no_findings(
    examined: Examine, own_eucarc: Callable[..., Path], change: Callable[[str], str]
) -> None:
    assert {finding.level for finding in examined(eucarc=own_eucarc(change))} == {"ok"}


def test_an_eucarc_without_s3_url_names_variable_and_setting(
    examined: Examine, own_eucarc: Callable[..., Path], the_bad: Callable[..., str]
) -> None:
    eucarc = own_eucarc(lambda text: text.replace("export S3_URL=", "echo WARN: no S3, not "))
    findings = examined(eucarc=eucarc)
    assert f"s3_url is not set and {eucarc} does not set S3_URL" in the_bad(findings)
    assert exit_code(findings) == 78


@pytest.mark.parametrize(
    ("variable", "line"),
    [
        pytest.param("S3_URL", "account {0.account}, access key {0.access_key}", id="no address"),
        pytest.param("EC2_SECRET_KEY", "account {0.account}", id="no secret key"),
        pytest.param("EC2_USER_ID", "access key {0.access_key}", id="no account number"),
    ],
)
def test_what_is_missing_does_not_hide_account_and_key(
    examined: Examine, box: Sandbox, own_eucarc: Callable[..., Path], of: Of, variable: str, line: str
) -> None:
    eucarc = own_eucarc(lambda text: text.replace(f"export {variable}=", "export NOTHING="))
    assert f"cloud default: {line.format(box.identity)}. " in of(examined(eucarc=eucarc), "ok")


def test_a_key_of_another_certificate_is_reported(
    examined: Examine, box: Sandbox, the_bad: Callable[..., str]
) -> None:
    found = the_bad(examined(f'user_key = "{box.folder / "cloud-pk.pem"}"'))
    assert "it is not the key of the certificate" in found


def test_the_certificate_of_the_user_is_not_accepted_as_that_of_the_cloud(
    examined: Examine, box: Sandbox, the_bad: Callable[..., str]
) -> None:
    found = the_bad(examined(f'cloud_cert = "{box.folder / "euca2-admin-cert.pem"}"'))
    assert "it is the user's certificate, not the cloud's" in found


def test_all_mistakes_in_credentials_are_reported_at_once(
    examined: Examine, own_eucarc: Callable[..., Path], of: Of
) -> None:
    eucarc = own_eucarc()
    (eucarc.parent / "euca2-admin-pk.pem").unlink()
    for name in ("euca2-admin-cert.pem", "cloud-cert.pem"):
        (eucarc.parent / name).write_text("not a certificate\n")
    found = of(examined("access_key = ''", eucarc=eucarc), "bad")
    words = ("euca2-admin-cert.pem", "euca2-admin-pk.pem", "cloud-cert.pem")
    assert all(word in line for word, line in zip(words, found, strict=True)), found


@pytest.mark.parametrize("name", ["eucarc", "euca2-admin-pk.pem"])
def test_a_secret_that_everybody_may_read_is_a_warning_with_the_chmod(
    examined: Examine, own_eucarc: Callable[..., Path], of: Of, name: str
) -> None:
    eucarc = own_eucarc()
    file = eucarc.parent / name
    file.chmod(0o644)
    findings = examined(eucarc=eucarc)
    (found,) = of(findings, "warning")
    assert found.startswith(f"{file}: every user of this machine may read it (mode 0644)")
    assert f"Try: chmod o-rwx {file}" in found
    assert exit_code(findings) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_a_configuration_that_only_root_may_read_is_reported(tmp_path: Path, as_nobody: None, of: Of) -> None:
    config = tmp_path / "uecwatchd.toml"
    os.seteuid(0)
    config.touch(mode=0o600)
    os.seteuid(NOBODY)
    (found,) = list(examine_configuration(Settings(source=config)))
    assert of([found], "bad") == [
        f"{config}: cannot read it. Try: chgrp uecwatchd {config} && chmod 640 {config}"
    ]
    assert found.exit_code == 77


def test_a_configuration_with_a_secret_that_everybody_may_read_is_reported(
    configured: Configured, box: Sandbox, of: Of
) -> None:
    assert of(list(examine_configuration(configured())), "warning") == []
    (found,) = of(list(examine_configuration(configured('secret_key = "s3cret"'))), "warning")
    assert "uecwatchd.toml: every user of this machine may read it" in found
    assert "s3cret" not in found


def test_certificates_near_their_end_are_a_warning(examined: Examine, of: Of) -> None:
    soon, past = of(examined(later=3640), "warning"), of(examined(later=3660), "warning")
    assert ["expires on" in one for one in soon] == [True, True]
    assert ["expired on" in one for one in past] == [True, True]


def test_a_check_that_an_ini_file_disables_is_reported(
    examined: Examine, box: Sandbox, of: Of, tmp_path: Path
) -> None:
    ini = tmp_path / "lab.ini"
    ini.touch(mode=0o600)
    ini.write_text("[region lab]\nverify-ssl = false\n")
    (found,) = of(examined('euca2ools = "lab"', f'euca2ools_files = "{ini}"'), "warning")
    assert "TLS certificates are verified all the same" in found
    assert "ca_bundle" in found


def test_a_missing_eucarc_is_the_only_finding(
    examined: Examine, tmp_path: Path, the_bad: Callable[..., str]
) -> None:
    found = examined(eucarc=tmp_path / "nonesuch")
    assert "nonesuch (eucarc of cloud default): cannot read it" in the_bad(found)
    assert len(found) == 1
