"""`check` against every generation of cloud, with none named in the configuration."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.cloud_keys import with_keys
from uecwatchd.cli.check.bucket import KEY_PREFIX
from uecwatchd.cli.check.finding import Finding, exit_code
from uecwatchd.clouds.credentials.account import gather
from uecwatchd.clouds.credentials.certificate import fetch_certificate
from uecwatchd.config.records import CloudSettings
from uecwatchd.errors import Halted
from uecwatchd.sandbox.rules.generations import RULES
from uecwatchd.sandbox.server import Sandbox
from uecwatchd.sandbox.state.registry import RegisteredImage

Check = Callable[..., list[Finding]]
Of = Callable[[list[Finding], str], list[str]]
Bad = Callable[[list[Finding]], str]
MakeBucket = Callable[[Sandbox, str], None]
Playing = Callable[[str], Sandbox]


@pytest.fixture(scope="module")
def playing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playing]:
    """An embedded cloud of a generation, running until the last test here has ended."""
    clouds: dict[str, Sandbox] = {}
    folder = tmp_path_factory.mktemp("generations")
    with ExitStack() as running:

        def play(dialect: str) -> Sandbox:
            if dialect not in clouds:
                clouds[dialect] = running.enter_context(Sandbox(with_keys(folder / dialect), dialect=dialect))
            return clouds[dialect]

        yield play


@pytest.mark.parametrize("dialect", RULES)
def test_every_generation_is_detected_and_has_no_findings(
    playing: Playing, check: Check, make_bucket: MakeBucket, of: Of, dialect: str
) -> None:
    cloud = playing(dialect)
    make_bucket(cloud, "ours")
    findings = check(eucarc=cloud.eucarc, dialect="auto", bucket="ours")
    assert {finding.level for finding in findings} == {"ok"}
    shown = "\n".join(of(findings, "ok"))
    assert f"(dialect {dialect}), for it" in shown
    assert "bucket ours is ours, and takes and deletes objects" in shown
    assert [seen.path.count(KEY_PREFIX) for seen in cloud.calls("DeleteObject")] == [1]
    assert cloud.objects("ours") == ()


@pytest.mark.parametrize("dialect", ["uec", "euca5"])
def test_keys_that_are_wrong_for_s3_alone_are_reported_as_such(
    playing: Playing, check: Check, the_bad: Bad, dialect: str, tmp_path: Path
) -> None:
    """Also where S3 says it with a 500 and no word."""
    with Sandbox(tmp_path / "other", dialect=dialect) as other:
        shown = the_bad(check(f's3_url = "{other.s3_url}"', eucarc=playing(dialect).eucarc, dialect=dialect))
    assert "only S3 refuses us" in shown


@pytest.mark.parametrize("dialect", ["euca4", "euca5"])
def test_a_cloud_that_gives_its_certificate_needs_none_to_be_set(
    playing: Playing, check: Check, of: Of, dialect: str, tmp_path: Path
) -> None:
    cloud = playing(dialect)
    eucarc = tmp_path / "eucarc"
    eucarc.touch(mode=0o600)
    text = cloud.eucarc.read_text().replace("export EUCALYPTUS_CERT=", "echo not ")
    eucarc.write_text(text.replace("$(cd $(dirname ${BASH_SOURCE:-$0}); pwd -P)", str(cloud.folder)))
    findings = check(eucarc=eucarc, dialect="auto")
    assert {finding.level for finding in findings} == {"ok"}
    assert any("it gives its certificate itself" in one for one in of(findings, "ok"))
    account = gather(CloudSettings(name="default", eucarc=eucarc))
    assert account.cloud_cert is None
    assert fetch_certificate(account) == gather(CloudSettings(name="default", eucarc=cloud.eucarc)).cloud_cert


def test_a_cloud_without_a_certificate_is_reported(playing: Playing) -> None:
    account = gather(CloudSettings(name="default", eucarc=playing("euca3").eucarc))
    with pytest.raises(Halted, match="404"):
        fetch_certificate(replace(account, cloud_cert=None))


def test_the_certificate_of_another_cloud_is_reported_where_the_cloud_gives_its_own(
    playing: Playing, check: Check, box: Sandbox, the_bad: Bad
) -> None:
    other = f'cloud_cert = "{box.folder / "cloud-cert.pem"}"'
    findings = check(other, eucarc=playing("euca5").eucarc, dialect="auto")
    assert "the cloud certificate is another cloud's" in the_bad(findings)
    assert exit_code(findings) == 78


def have_an_image(cloud: Sandbox) -> None:
    if cloud.images:
        return
    image = RegisteredImage(
        id="", location="ours/a.manifest.xml", manifest_sha256="", type="machine", architecture="x86_64",
        kernel="", ramdisk="", virtualization="hvm", name="a", description="", size=1, platform="",
        state="available", looks=0, fate="available", reason="", registered="2026-11-22T00:00:00.000Z",
    )  # fmt: skip
    cloud.backend.registry.add_image(image, ids=cloud.backend.rules.ec2.ids, permissions=())


@pytest.mark.parametrize(
    "said", ["", "EC2_USER_ID=42\n", f"EC2_USER_ID='{'85' * 19}'\n", "EC2_USER_ID=admin\n"]
)
def test_an_account_number_that_the_cloud_ignores_is_no_finding_once_there_are_images(
    playing: Playing, check: Check, of: Of, said: str
) -> None:
    cloud = playing("uec")
    have_an_image(cloud)
    eucarc = cloud.folder / "eucarc-as-it-is"
    eucarc.touch(mode=0o600)
    lines = cloud.eucarc.read_text().splitlines(keepends=True)
    eucarc.write_text("".join(line for line in lines if "EC2_USER_ID" not in line) + said)
    assert of(check(eucarc=eucarc, dialect="auto"), "warning") == []


def test_an_account_number_that_our_images_do_not_have_is_reported(
    playing: Playing, check: Check, of: Of
) -> None:
    cloud = playing("euca5")
    have_an_image(cloud)
    (shown,) = of(check('account = "999999999999"', eucarc=cloud.eucarc, dialect="auto"), "bad")
    assert f"our images there belong to {cloud.identity.account}" in shown
    assert of(check(eucarc=cloud.eucarc, dialect="auto"), "warning") == []


def test_a_clock_difference_that_prevents_detection_is_reported_in_seconds(
    playing: Playing, check: Check, of: Of
) -> None:
    cloud = playing("uec")
    cloud.faults.arm("skew", -600)
    try:
        shown = of(check(eucarc=cloud.eucarc, dialect="auto"), "bad")
    finally:
        cloud.faults.clear()
    assert any("s ahead of that of the cloud, which refuses more than 20 s" in one for one in shown), shown
