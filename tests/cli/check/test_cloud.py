"""`check` of a cloud: its dialect, both halves, the clocks, the bucket."""

import re
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.check.conftest import Hands
from tests.support.cloud_keys import with_keys
from uecwatchd.cli.check.bucket import KEY_PREFIX
from uecwatchd.cli.check.examine import examine
from uecwatchd.cli.check.finding import Finding, exit_code
from uecwatchd.clouds.credentials.account import gather, sealed_with
from uecwatchd.config.records import CloudSettings, Settings, SpoolSettings, StateSettings
from uecwatchd.ledger.records import BundleRecord
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.sandbox.server import Sandbox
from uecwatchd.types import ContentDigest

Check = Callable[..., list[Finding]]
Of = Callable[[list[Finding], str], list[str]]
Bad = Callable[[list[Finding]], str]
MakeBucket = Callable[[Sandbox, str], None]


def test_a_good_host_has_one_line_for_each_check(check: Check, of: Of) -> None:
    findings = check()
    assert {finding.level for finding in findings} == {"ok"}
    assert exit_code(findings) == 0
    found = "\n".join(of(findings, "ok"))
    host = ("configuration: ", "spool folder: ", "state directory: ", "(dialect sandbox)", "EC2 V4, S3 V4; ")
    cloud = (
        "EC2 knows us (images of ours: 0)",
        "S3 knows us (",
        "bucket uec-images does not exist, and is created",
    )
    assert [piece for piece in host + cloud if piece not in found] == []


def test_a_check_creates_nothing(check: Check, box: Sandbox, tmp_path: Path) -> None:
    check()
    assert not box.calls("CreateBucket")
    assert not (tmp_path / "state").exists()


def test_a_detected_generation_is_reported_with_the_reason(check: Check, of: Of) -> None:
    (named,) = [one for one in of(check(), "ok") if "(dialect " in one]
    assert "for the configuration says so" in named
    (found,) = [one for one in of(check(dialect="auto"), "ok") if "(dialect " in one]
    assert "for the configuration says so" not in found


def test_a_missing_key_does_not_keep_the_cloud_from_being_asked(
    check: Check, own_eucarc: Callable[..., Path], of: Of, the_bad: Bad
) -> None:
    eucarc = own_eucarc()
    (eucarc.parent / "euca2-admin-pk.pem").unlink()
    findings = check(eucarc=eucarc)
    assert "euca2-admin-pk.pem (the user's private key): there is no such file" in the_bad(findings)
    assert sum("knows us" in one for one in of(findings, "ok")) == 2


def test_a_cloud_certificate_that_nothing_names_and_no_cloud_gives_is_reported(
    check: Check, own_eucarc: Callable[..., Path], of: Of, the_bad: Bad
) -> None:
    eucarc = own_eucarc(lambda text: text.replace("export EUCALYPTUS_CERT=", "echo not "))
    findings = check(eucarc=eucarc)
    assert "it has no cloud certificate" in the_bad(findings)
    assert sum("knows us" in one for one in of(findings, "ok")) == 2


def test_a_secret_that_is_wrong_for_both_halves_is_reported_for_both(check: Check, of: Of) -> None:
    findings = check('secret_key = "not the secret"')
    found = of(findings, "bad")
    assert len(found) == 2
    assert all("the secret key is not that of the access key" in one for one in found)
    assert not any("S3 alone" in one for one in found)
    assert exit_code(findings) == 78


def test_a_secret_that_is_wrong_for_s3_alone_is_reported_as_such(
    check: Check, tmp_path: Path, the_bad: Bad
) -> None:
    with Sandbox(tmp_path / "other") as other:
        found = the_bad(check(f's3_url = "{other.s3_url}"'))
    assert "only S3 refuses us" in found
    assert f"EC2 takes the same keys: see that s3_url ({other.s3_url}) is of this cloud" in found


@pytest.mark.parametrize(
    ("minutes", "level", "words"),
    [
        pytest.param(
            -10, "bad", r"(599|60.) s ahead of that of EC2, which refuses more than 20 s", id="ahead"
        ),
        pytest.param(10, "warning", r"(599|60.) s behind that of S3, which allows 900 s", id="behind"),
        pytest.param(
            20, "bad", r"(1199|120.) s behind that of S3, which refuses more than 900 s", id="far behind"
        ),
    ],
)
def test_a_clock_that_is_off_is_reported_with_the_figure(
    check: Check, hands: Hands, of: Of, minutes: int, level: str, words: str
) -> None:
    hands.shift = timedelta(minutes=minutes)
    findings = check()
    found = of(findings, level)
    assert any(re.search(words, one) for one in found), found
    assert exit_code(findings) == (78 if level == "bad" else 0)


def test_the_rights_on_our_bucket_are_shown_by_an_object_that_is_gone_again(
    check: Check, box: Sandbox, make_bucket: MakeBucket, of: Of
) -> None:
    make_bucket(box, "ours")
    found = "\n".join(of(check(bucket="ours"), "ok"))
    assert "bucket ours is ours, and takes and deletes objects, with the ACL aws-exec-read" in found
    puts = [seen.path.rpartition("/")[2] for seen in box.calls("PutObject")]
    assert puts
    assert all(key.startswith(KEY_PREFIX) for key in puts)
    assert box.objects("ours") == ()


def test_the_object_is_deleted_even_if_it_did_not_arrive_as_it_was_sent(
    check: Check, box: Sandbox, make_bucket: MakeBucket, the_bad: Bad
) -> None:
    make_bucket(box, "ours")
    box.faults.arm("wrong-etag")
    assert "it has stored other bytes than were sent" in the_bad(check(bucket="ours"))
    assert box.objects("ours") == ()


def test_a_bucket_of_somebody_else_is_reported(check: Check, box: Sandbox, the_bad: Bad) -> None:
    box.grant_bucket_to_other("theirs")
    findings = check(bucket="theirs")
    assert "bucket theirs belongs to another account" in the_bad(findings)
    assert 'bucket = "…"' in the_bad(findings)
    assert exit_code(findings) == 78


def test_a_quota_that_is_reached_is_reported_before_anything_is_uploaded(
    check: Check, tmp_path: Path, make_bucket: MakeBucket, the_bad: Bad
) -> None:
    with Sandbox(with_keys(tmp_path / "full"), dialect="uec") as cloud:
        for number in range(5):
            make_bucket(cloud, f"bucket-{number}")
        found = the_bad(check(eucarc=cloud.eucarc, dialect="uec"))
        assert "we have 5 buckets" in found
        assert "have the quota raised" in found
        assert not cloud.calls("CreateBucket")


def test_an_invalid_bucket_name_is_reported(check: Check, the_bad: Bad) -> None:
    assert "no cloud takes that as a bucket's name" in the_bad(check(bucket="Not A Bucket"))


def test_a_cloud_that_is_away_is_reported_and_ends_with_69(check: Check, of: Of, tmp_path: Path) -> None:
    with Sandbox(with_keys(tmp_path / "gone")) as cloud:
        eucarc = cloud.eucarc
    findings = check(eucarc=eucarc)
    assert len(of(findings, "bad")) == 2
    assert exit_code(findings) == 69


def test_plain_http_to_another_machine_is_an_honest_warning(check: Check, of: Of) -> None:
    """At an address that no packet leaves for."""
    findings = check('ec2_url = "http://0.0.0.1/services/Eucalyptus"', 's3_url = "https://0.0.0.1/"')
    found = next(one for one in of(findings, "warning") if "TLS" in one)
    assert "no TLS for http://0.0.0.1/services/Eucalyptus:" in found
    assert "https://0.0.0.1" not in found


@pytest.mark.parametrize(
    ("dialect", "number", "words"),
    [
        (
            "openstack",
            5,
            "the cloud certificate is its own: it has made 5 images with it",
        ),
        ("openstack", 0, "is not known before an image is registered"),
        (
            "uec",
            1,
            "1 image registered with this cloud certificate; the first start shows",
        ),
        ("euca3", 2, "2 images registered with this cloud certificate"),
    ],
)
def test_the_images_that_were_registered_prove_the_cloud_certificate(
    configured: Callable[..., Settings],
    check: Check,
    tmp_path: Path,
    of: Of,
    dialect: str,
    number: int,
    words: str,
) -> None:
    def registered(identity: str, sealed: str) -> BundleRecord:
        return BundleRecord(
            "default", "b", identity, "machine", ContentDigest("0" * 64), "p", "registered", sealed=sealed
        )

    with Sandbox(with_keys(tmp_path / "other"), dialect=dialect) as cloud:
        settings = configured(eucarc=cloud.eucarc, dialect=dialect)
        sealed = sealed_with(gather(settings.clouds["default"]))
        with closing(open_ledger(settings.state.dir)) as book:
            for one in range(number):
                book.put_bundle(registered(str(one), sealed))
            book.put_bundle(registered("other", "another certificate"))
        assert words in "\n".join(of(check(eucarc=cloud.eucarc, dialect=dialect), "ok"))


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_an_unexpected_error_is_a_finding_and_the_other_clouds_are_checked(
    calls: int, box: Sandbox, tmp_path: Path
) -> None:
    left = [calls]

    def clock() -> datetime:
        left[0] -= 1
        if left[0] == -1:
            raise RuntimeError("no time")
        return datetime.now(UTC)

    clouds = {name: CloudSettings(name=name, eucarc=box.eucarc) for name in ("first", "second")}
    settings = Settings(
        spool=SpoolSettings(folders=(tmp_path,)), state=StateSettings(dir=tmp_path / "state"), clouds=clouds
    )
    findings = list(examine(settings, clock=clock))
    (found,) = [finding for finding in findings if "a fault of uecwatchd itself" in finding.what]
    assert "cloud first" in found.what
    assert "RuntimeError: no time" in found.what
    assert exit_code(findings) == 70
    assert [finding for finding in findings if "cloud second: S3 knows us" in finding.what]
