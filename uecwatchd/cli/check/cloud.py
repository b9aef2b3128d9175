"""Checks of one cloud: our account, its generation, whether EC2 and S3 accept us, and the bucket."""

from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from uecwatchd.cli.check.bucket import examine_bucket
from uecwatchd.cli.check.capabilities import facts
from uecwatchd.cli.check.clock import S3_WINDOW, date_of, examine_clock
from uecwatchd.cli.check.credentials import UsableCredentials, examine_credentials
from uecwatchd.cli.check.finding import Finding, bad
from uecwatchd.cli.check.launch import examine_launch
from uecwatchd.cli.check.source import examine_sources
from uecwatchd.clouds.client import Cloud, is_insecure, make_cloud
from uecwatchd.clouds.connect import connect_as, detected
from uecwatchd.clouds.credentials.account import Account, sealed_with
from uecwatchd.clouds.credentials.certificate import fingerprint
from uecwatchd.clouds.detect import DetectedDialect
from uecwatchd.clouds.dialects import ACCOUNT_NUMBER, EUCA5, UEC, ClockTolerance
from uecwatchd.clouds.errors.translate import translated
from uecwatchd.clouds.images import parse_images
from uecwatchd.config.records import CloudSettings
from uecwatchd.errors import Halted, UecError
from uecwatchd.system.signals import Stop
from uecwatchd.types import BucketPlace

Clock = Callable[[], datetime]


def examine_cloud(
    settings: CloudSettings,
    *,
    bucket: str | None,
    sources: Collection[BucketPlace] = (),
    clock: Clock,
    stop: Stop,
    sealed: Mapping[str, int],
) -> Iterator[Finding]:
    """Check one cloud.

    `bucket` is the default bucket, None if its name is wrong; spool folders are filled from `sources`.
    `sealed` is how many images this host has registered with each pair of certificates.
    """
    credentials = yield from examine_credentials(settings, clock())
    if credentials is None:
        return
    yield from _insecure(credentials.account)
    found = yield from _detect(settings, credentials.account, clock, stop)
    if found is None:
        return
    yield Finding(
        "ok",
        f"cloud {settings.name}: {found.dialect.versions} (dialect {found.dialect.name}), for {found.why}",
    )
    yield Finding("ok", f"cloud {settings.name}: {facts(found.dialect)}")
    if found.dialect.kernels_by_administrators:
        what = "only administrators may register kernels and ramdisks; the first one shows if we are one"
        yield Finding("ok", f"cloud {settings.name}: {what}")
    cloud = yield from _cloud(credentials, found, stop, sealed)
    ours = yield from _check_halves(cloud, clock)
    if ours is not None and bucket is not None:
        yield from examine_bucket(cloud, bucket, ours)
    if ours is not None:
        yield from examine_sources(cloud, sources)
    if settings.test:
        yield from examine_launch(cloud, settings)


def _insecure(account: Account) -> Iterator[Finding]:
    bare = [url for url in (account.ec2_url, account.s3_url) if url and is_insecure(url)]
    if bare:
        yield Finding(
            "warning",
            f"cloud {account.cloud}: no TLS for {' and '.join(bare)}: others on the network can read"
            " the names of images and change answers; bundles are encrypted, and keys are not sent",
            "Use https:// where the cloud has it, with ca_bundle for an authority of its own.",
        )


def _detect(
    settings: CloudSettings, account: Account, clock: Clock, stop: Stop
) -> Generator[Finding, None, DetectedDialect | None]:
    try:
        return detected(settings, account, stop=stop)
    except UecError as error:
        # The clock may be the reason, so it is compared with the strictest window.
        if theirs := _date_in(error):
            yield from examine_clock(
                account.cloud, "the cloud", ours=clock(), theirs=theirs, window=UEC.window
            )
        yield _undetected(account, error, clock, stop)
        return None


def _undetected(account: Account, error: UecError, clock: Clock, stop: Stop) -> Finding:
    """Return the finding for a cloud that was not detected.

    A cloud is detected by its S3 first: if its EC2 accepts us, only S3 refuses us.
    """
    if not isinstance(error, Halted):
        return bad(error, account.cloud)
    for dialect in (EUCA5, UEC):
        cloud = make_cloud(account, dialect, uploads=1, stop=stop)
        if not _ask(cloud, "listing its images", partial(_own_images, cloud), clock).error:
            return _of_s3(cloud, error, alone=True)
    return bad(error, account.cloud)


def _own_images(cloud: Cloud) -> dict[str, Any]:
    answer: dict[str, Any] = cloud.ec2.describe_images(Owners=["self"])
    return {**answer, "Images": parse_images(cloud, answer)}


def _date_in(error: UecError) -> datetime | None:
    return date_of(error.__cause__.response) if isinstance(error.__cause__, ClientError) else None


# --- the certificate that bundles are encrypted for -------------------------------------------------------


def _cloud(
    credentials: UsableCredentials, found: DetectedDialect, stop: Stop, sealed: Mapping[str, int]
) -> Generator[Finding, None, Cloud]:
    """Return a cloud that can be asked, even if bundles could not be encrypted for it."""
    account = credentials.account
    bare = make_cloud(account, found.dialect, uploads=1, stop=stop)
    if not credentials.sealing:
        return bare
    try:
        cloud = connect_as(account, found, uploads=1, stop=stop)
    except UecError as error:
        yield bad(error, account.cloud)
        return bare
    yield Finding("ok", f"cloud {account.cloud}: {_describe_certificate(account, cloud, sealed)}")
    return cloud


def _describe_certificate(before: Account, cloud: Cloud, sealed: Mapping[str, int]) -> str:
    if before.cloud_cert is None and cloud.account.cloud_cert:
        return f"it gives its certificate itself (SHA-256 {fingerprint(cloud.account.cloud_cert)[:16]}…)"
    if cloud.dialect.offers_certificate:
        return "the cloud certificate is not known to be another cloud's"
    number = sealed.get(sealed_with(cloud.account), 0)
    images = "1 image" if number == 1 else f"{number} images"
    if number and cloud.dialect.opens_bundles:
        return f"the cloud certificate is its own: it has made {images} with it"
    if number:
        return f"{images} registered with this cloud certificate; the first start shows if it is right"
    return "if the cloud certificate is this cloud's is not known before an image is registered"


# --- both halves by a real call ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _TimedAnswer:
    """An answer or its error, and both clocks at that moment."""

    answer: dict[str, Any]
    error: UecError | None
    ours: datetime
    theirs: datetime | None


def _check_halves(cloud: Cloud, clock: Clock) -> Generator[Finding, None, Collection[str] | None]:
    """Check EC2 and S3 with a real call each. Returns the names of our buckets, None if unknown."""
    ec2 = _ask(cloud, "listing its images", partial(_own_images, cloud), clock)
    s3 = _ask(cloud, "listing its buckets", cloud.s3.list_buckets, clock)
    yield from _clock(cloud, "EC2", ec2, cloud.dialect.window)
    yield from _clock(cloud, "S3", s3, S3_WINDOW)
    images, buckets = ec2.answer.get("Images", ()), s3.answer.get("Buckets", [])
    yield (
        bad(ec2.error, cloud.name)
        if ec2.error
        else Finding("ok", f"cloud {cloud.name}: EC2 knows us (images of ours: {len(images)})")
    )
    yield from _owners(cloud, {image.owner for image in images})
    if s3.error:
        yield _of_s3(cloud, s3.error, alone=ec2.error is None)
        return None
    yield Finding("ok", f"cloud {cloud.name}: S3 knows us (buckets of ours: {len(buckets)})")
    return frozenset(str(bucket.get("Name")) for bucket in buckets)


def _ask(cloud: Cloud, doing: str, call: Callable[[], dict[str, Any]], clock: Clock) -> _TimedAnswer:
    try:
        with translated(cloud, doing):
            answer = call()
    except UecError as error:
        return _TimedAnswer({}, error, clock(), _date_in(error))
    return _TimedAnswer(answer, None, clock(), date_of(answer))


def _clock(cloud: Cloud, half: str, timed: _TimedAnswer, window: ClockTolerance) -> Iterator[Finding]:
    if timed.theirs:
        yield from examine_clock(cloud.name, half, ours=timed.ours, theirs=timed.theirs, window=window)


def _of_s3(cloud: Cloud, error: UecError, *, alone: bool) -> Finding:
    finding = bad(error, cloud.name)
    if not alone or not isinstance(error, Halted):
        return finding
    where = f" ({cloud.account.s3_url})" if cloud.account.s3_url else ""
    hint = f"EC2 takes the same keys: see that s3_url{where} is of this cloud, and that they hold for S3 too."
    return replace(finding, what=f"{finding.what}; only S3 refuses us", hint=hint)


def _owners(cloud: Cloud, owners: Collection[str]) -> Iterator[Finding]:
    """Check the account number against the owners of our images.

    The first generation has names there, not numbers, and its credentials have another kind of number; those
    of OpenStack have any.
    """
    numbers = sorted(filter(ACCOUNT_NUMBER.fullmatch, owners))
    comparable = cloud.dialect.account_checked or ACCOUNT_NUMBER.fullmatch(cloud.account.account)
    if numbers and comparable and cloud.account.account not in numbers:
        demanded = cloud.dialect.account_checked
        yield Finding(
            "bad" if demanded else "warning",
            f"cloud {cloud.name}: the account number is {cloud.account.account}, but our images there belong"
            f" to {', '.join(numbers[:3])}",
            "Correct account, or EC2_USER_ID or EC2_ACCOUNT_NUMBER in the eucarc.",
            Halted.exit_code if demanded else 0,
        )
