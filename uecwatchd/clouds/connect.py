"""The connection to a cloud: our account, its dialect, the certificate for bundles, the clients."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus

from botocore.exceptions import ClientError

from uecwatchd.clouds.client import Cloud, make_cloud
from uecwatchd.clouds.credentials.account import Account, gather, numbered, sealing_certificate
from uecwatchd.clouds.credentials.certificate import fetch_certificate, is_of_another
from uecwatchd.clouds.detect import DetectedDialect, address_of, detect_dialect
from uecwatchd.clouds.dialects import DIALECTS, Dialect
from uecwatchd.clouds.errors.translate import status_of
from uecwatchd.config.records import CloudSettings
from uecwatchd.errors import Halted, Rejected, UecError, Unforeseen
from uecwatchd.system.internal_errors import internal_error
from uecwatchd.system.signals import NEVER, Stop
from uecwatchd.types import DetectedCloud


def connect(
    settings: CloudSettings, *, uploads: int, before: Mapping[str, DetectedCloud], stop: Stop = NEVER
) -> Cloud:
    """Return a cloud, ready to be asked. Raises what `gather` raises, and the errors of the cloud's answers.

    `before` has the dialects found earlier, by cloud: the same address is not asked for them again.
    """
    account = gather(settings)
    known = before.get(settings.name)
    if settings.dialect in DIALECTS or known is None or known.address != address_of(account):
        return connect_as(account, detected(settings, account, stop=stop), uploads=uploads, stop=stop)
    found = DetectedDialect(DIALECTS[known.dialect], "it was so before")
    return connect_as(account, found, uploads=uploads, stop=stop)


# What the keys are refused with, before it is known who refuses them.
REFUSED = frozenset((HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN))


def detected(settings: CloudSettings, account: Account, *, stop: Stop = NEVER) -> DetectedDialect:
    """Return the configured dialect, or the one that the cloud turns out to speak. Never raises Rejected."""
    if named := DIALECTS.get(settings.dialect):
        return DetectedDialect(named, "the configuration says so")
    with translated_troubles(settings.name):
        try:
            return detect_dialect(account, stop=stop)
        except Halted as error:
            refused = isinstance(error.__cause__, ClientError) and status_of(error.__cause__) in REFUSED
            if refused and _is_ipv6(account):
                raise _unsignable(account, f"{error.why}; UEC and Eucalyptus up to 3.4 take") from error
            raise


def connect_as(account: Account, found: DetectedDialect, *, uploads: int, stop: Stop = NEVER) -> Cloud:
    """Return a cloud of a known dialect. Never raises Rejected."""
    with translated_troubles(account.cloud):
        if found.dialect.ec2_signature == "v2" and _is_ipv6(account):
            raise _unsignable(account, f"{found.dialect.versions} takes")
        account = _sealing(numbered(account, found.dialect), found.dialect, stop)
        return make_cloud(account, found.dialect, uploads=uploads, stop=stop)


@contextmanager
def translated_troubles(cloud: str) -> Iterator[None]:
    """Turn refusals into `Halted`: no set is at fault before any set is looked at.

    Raises Unforeseen for an exception that is not ours.
    """
    try:
        yield
    except Rejected as error:
        raise Halted(error.what, error.why, error.hint, request_id=error.request_id) from error.__cause__
    except UecError:
        raise
    except Exception as fault:
        raise unforeseen(cloud, fault) from fault


def unforeseen(cloud: str, fault: Exception) -> Unforeseen:
    words = internal_error(cloud, fault)
    return Unforeseen(
        f"cloud {cloud}, on the way in",
        f"asking it fails in a way that uecwatchd does not foresee ({words.why})",
        "It is asked again by itself, like a cloud that is away. Please report it, with the journal's lines"
        " about it.",
        trace=words.trace,
    )


def _is_ipv6(account: Account) -> bool:
    return "[" in (account.ec2_url or "")


def _unsignable(account: Account, who_takes: str) -> Halted:
    """Make the error for an IPv6 address, which no signature would fit.

    Those servers read the text after the first colon of a host as its port.
    """
    return Halted(
        f"cloud {account.cloud}: it cannot be asked at {account.ec2_url}",
        f"{who_takes} no signature for a host that is written as an IPv6 address",
        "Write a name in ec2_url and s3_url; a line in /etc/hosts is enough to have one.",
    )


def _sealing(account: Account, dialect: Dialect, stop: Stop) -> Account:
    """Ensure that bundles are sealed for this cloud's own certificate, if it gives one. Raises Halted."""
    if account.cloud_cert is None and dialect.offers_certificate:
        return replace(account, cloud_cert=fetch_certificate(account, stop=stop))
    if dialect.offers_certificate and is_of_another(account, stop=stop):
        raise Halted(
            f"cloud {account.cloud}: the cloud certificate is another cloud's",
            "what is sealed for it, this cloud could not open",
            "Correct cloud_cert, or take it out of configuration and eucarc: this cloud gives its own.",
        )
    sealing_certificate(account)  # without it, every set would fail of it
    return account
