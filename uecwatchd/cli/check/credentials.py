"""Checks of our credentials for a cloud, piece by piece."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.x509 import Certificate

from uecwatchd.cli.check.finding import Finding, bad, open_to_all
from uecwatchd.clouds.credentials.account import (
    Account,
    CredentialSources,
    Pair,
    access_keys,
    account_number,
    addresses,
    assembled,
    ca_bundle,
    cloud_certificate,
    find_sources,
    fitting,
    user_certificate,
    user_key,
)
from uecwatchd.config.records import CloudSettings
from uecwatchd.errors import UecError

# Enough time for people to renew a certificate.
EXPIRY_WARNING = timedelta(days=30)

Piece = TypeVar("Piece")


@dataclass(frozen=True, slots=True)
class UsableCredentials:
    """Credentials that are enough to ask the cloud, even if bundles cannot be made with them.

    If the user's certificate or key is wrong, `account` has a made-up pair. `sealing` is False if the
    configured certificate of the cloud is not one.
    """

    account: Account
    sealing: bool


def examine_credentials(
    settings: CloudSettings, now: datetime
) -> Generator[Finding, None, UsableCredentials | None]:
    """Check the credentials. Returns what is needed to ask the cloud, None if that is not enough."""
    try:
        sources = find_sources(settings)
    except UecError as error:
        yield bad(error, settings.name)
        return None
    yield from _places(sources)
    where = yield from _piece(sources, addresses)
    keys = yield from _piece(sources, access_keys)
    number = account_number(sources)
    certificate, pair = yield from _pair(sources, now)
    seal = yield from _piece(sources, partial(cloud_certificate, user=certificate))
    authorities = yield from _piece(sources, ca_bundle)
    if seal:
        yield from _dated(sources, "cloud certificate", "cloud_cert", seal, now)
    named = [f"account {number}"] if number else []
    named += [f"access key {keys.access_key}"] if keys else []
    if named:
        yield Finding("ok", f"cloud {sources.cloud}: {', '.join(named)}")
    if where is None or keys is None or bool(authorities) != bool(sources.value("ca_bundle")):
        return None
    account = assembled(sources, where, keys, number, pair or _made_up(), seal, authorities)
    return UsableCredentials(account, sealing=bool(seal) == bool(sources.value("cloud_cert")))


def _piece(
    sources: CredentialSources, take: Callable[[CredentialSources], Piece]
) -> Generator[Finding, None, Piece | None]:
    try:
        return take(sources)
    except UecError as error:
        yield bad(error, sources.cloud)
        return None


def _places(sources: CredentialSources) -> Iterator[Finding]:
    for place in sources.places[1:]:
        yield Finding("ok", f"cloud {sources.cloud}: credentials of {place.name}")
        for remark in place.remarks:
            yield Finding("warning", f"cloud {sources.cloud}: {remark.what}", remark.hint)
    key = sources.value("user_key")
    secret = [*(file for place in sources.places for file in place.files), *([Path(key)] if key else [])]
    yield from filter(None, map(open_to_all, dict.fromkeys(secret)))


def _pair(
    sources: CredentialSources, now: datetime
) -> Generator[Finding, None, tuple[Certificate | None, Pair | None]]:
    """Check certificate and key.

    Returns the certificate, which may be usable alone, and both if they match.
    """
    certificate = yield from _piece(sources, user_certificate)
    key = yield from _piece(sources, user_key)
    if certificate:
        yield from _dated(sources, "user certificate", "user_cert", certificate, now)
    if not (certificate and key):
        return certificate, None
    pair = yield from _piece(sources, partial(fitting, certificate=certificate, key=key))
    if pair:
        what = f"cloud {sources.cloud}: private key {sources.value('user_key')} is that of the certificate"
        yield Finding("ok", what)
    return certificate, pair


def _dated(
    sources: CredentialSources, noun: str, setting: str, certificate: Certificate, now: datetime
) -> Iterator[Finding]:
    """Check the end of a certificate. A near end is only a warning: these servers do not check it."""
    end = certificate.not_valid_after_utc
    what = f"cloud {sources.cloud}: {noun} {sources.value(setting)}"
    if end >= now + EXPIRY_WARNING:
        yield Finding("ok", f"{what} is good until {end:%Y-%m-%d}")
        return
    verb = "expired" if end < now else "expires"
    yield Finding("warning", f"{what} {verb} on {end:%Y-%m-%d}", "Have it renewed.")


def _made_up() -> Pair:
    """Make a pair that is never used: requests are signed with the secret key, and nothing is bundled."""
    key = generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nobody")])
    day = datetime(2000, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, day, day + timedelta(days=1))
    return builder.sign(key, hashes.SHA256()), key
