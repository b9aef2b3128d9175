"""Our account on a cloud: gathered from all places that describe it, and checked before any work.

What the configuration says itself goes before the eucarc, that before euca2ools' files, and those before a
profile of the AWS tools; of the last three, only what the configuration names is looked at.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import Certificate

from uecwatchd.bundle.keys import is_key_pair, load_certificate, load_private_key, public_key
from uecwatchd.clouds.credentials.aws_profile import profile_source
from uecwatchd.clouds.credentials.euca2ools import euca2ools_source
from uecwatchd.clouds.credentials.eucarc import eucarc_source
from uecwatchd.clouds.credentials.source import Source, at_home
from uecwatchd.clouds.dialects import ACCOUNT_NUMBER, DIALECTS, Dialect
from uecwatchd.clouds.proxy import HTTPS_EVERYWHERE, check_proxy
from uecwatchd.config.address import InvalidAddress, hide_password, read_address
from uecwatchd.config.records import CloudSettings, keys_of
from uecwatchd.config.values import REGION
from uecwatchd.errors import Halted
from uecwatchd.system.file_errors import cannot_read
from uecwatchd.system.small_files import read_small

# The manifest must name a user; a generation that compares it with nobody takes any word there.
_ANY_USER = re.compile(r"[0-9A-Za-z]{1,64}")
NOBODY = "0" * 12

# A region with known addresses, eu-west-1, as against a name that a private cloud was given.
_KNOWN_REGION = re.compile(r"[a-z]{2,3}(-[a-z]+)+-[0-9]+")

# Only AWS cares: the other clouds take any region in a V4 signature.
DEFAULT_REGION = "us-east-1"


Pair = tuple[Certificate, RSAPrivateKey]


@dataclass(frozen=True, slots=True)
class Account:
    """One user of one cloud; its files are readable and belong together.

    Both URLs are None where the region alone says where the cloud is. `account` is what the credentials say,
    without hyphens, or empty; `numbered` sees that it is one of 12 digits where the cloud compares it.
    `cloud_cert` is None if nothing names it; some clouds give it to everybody.
    """

    cloud: str
    ec2_url: str | None
    s3_url: str | None
    region: str | None
    access_key: str
    secret_key: str = field(repr=False)
    account: str
    user_cert: Certificate
    user_key: RSAPrivateKey = field(repr=False)
    cloud_cert: Certificate | None
    ca_bundle: Path | None
    session_token: str | None = field(default=None, repr=False)  # of temporary keys
    ssm_url: str | None = None  # of the parameter store
    latest_parameter: str | None = None  # the name of the parameter for the image in use

    def is_same_as(self, other: "Account") -> bool:
        """Tell if two names in the configuration are for one account on one cloud."""
        return self.identity == other.identity

    @property
    def identity(self) -> tuple[str | None, ...]:
        """Cloud and user, whatever name the configuration gives them."""
        return (self.ec2_url, self.region, self.access_key)


@dataclass(frozen=True, slots=True)
class Addresses:
    ec2_url: str | None
    s3_url: str | None
    region: str | None


@dataclass(frozen=True, slots=True)
class Keys:
    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class CredentialSources:
    """All descriptions of one cloud, the strongest first."""

    cloud: str
    settings: CloudSettings
    places: tuple[Source, ...]

    def place_of(self, setting: str) -> Source | None:
        return next((place for place in self.places if place.values.get(setting)), None)

    def value(self, setting: str) -> str | None:
        place = self.place_of(setting)
        return place.values[setting] if place else None


def gather(settings: CloudSettings) -> Account:
    """Gather our account on a cloud from all places that describe it.

    Raises `Halted` (`NotPermitted` for a file we may not read), naming the file and the setting.
    """
    sources = find_sources(settings)
    pair = fitting(sources, certificate=user_certificate(sources), key=user_key(sources))
    seal = cloud_certificate(sources, user=pair[0])
    number, authorities = account_number(sources), ca_bundle(sources)
    return assembled(sources, addresses(sources), access_keys(sources), number, pair, seal, authorities)


def assembled(
    sources: CredentialSources,
    where: Addresses,
    keys: Keys,
    number: str,
    pair: Pair,
    seal: Certificate | None,
    authorities: Path | None,
) -> Account:
    """Make an account of its parts, each as the functions below return it."""
    return Account(
        cloud=sources.cloud,
        ec2_url=where.ec2_url,
        s3_url=where.s3_url,
        region=where.region,
        access_key=keys.access_key,
        secret_key=keys.secret_key,
        account=number,
        user_cert=pair[0],
        user_key=pair[1],
        cloud_cert=seal,
        ca_bundle=authorities,
        session_token=keys.session_token,
        ssm_url=sources.settings.ssm_url,
        latest_parameter=sources.settings.latest_parameter,
    )


def numbered(account: Account, dialect: Dialect) -> Account:
    """Check the account number where this generation compares it with the caller's.

    Elsewhere the credentials of real clouds hold any other word: a number of 38 digits on UEC, 42 in every
    file that nova gave out, nothing on Eucalyptus 1.5. Raises `Halted`.
    """
    if not dialect.account_checked or ACCOUNT_NUMBER.fullmatch(account.account):
        return account
    said = f"its account number {account.account} is not one of 12 digits"
    raise Halted(
        f"cloud {account.cloud}: {said if account.account else 'it has no account number'}",
        "this generation compares the one in a bundle with its own",
        f"Set account under [cloud.{account.cloud}], or EC2_ACCOUNT_NUMBER in its eucarc, to the number of"
        " 12 digits that the cloud shows.",
    )


def bundle_user(account: Account) -> str:
    """Return what a manifest names as its user: the account number, a placeholder if there is none."""
    return account.account if _ANY_USER.fullmatch(account.account) else NOBODY


def sealing_certificate(account: Account) -> Certificate:
    """Return the certificate that bundles are sealed for. Raises `Halted` if none was named or fetched."""
    if account.cloud_cert is not None:
        return account.cloud_cert
    raise Halted(
        f"cloud {account.cloud}: it has no cloud certificate",
        "neither cloud_cert nor an eucarc's EUCALYPTUS_CERT names one",
        f"Set cloud_cert under [cloud.{account.cloud}], or EUCALYPTUS_CERT in its eucarc, to the"
        " cloud-cert.pem that came with its credentials.",
    )


def sealed_with(account: Account) -> str:
    """Return a digest of the key and certificates that manifests are sealed and signed with."""
    key = account.user_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = hashlib.sha256(key)
    for certificate in (account.user_cert, sealing_certificate(account)):
        digest.update(certificate.public_bytes(Encoding.DER))
    digest.update(bundle_user(account).encode())
    return digest.hexdigest()


# --- piece by piece ---------------------------------------------------------------------------------------


def find_sources(settings: CloudSettings) -> CredentialSources:
    """List the sources that describe a cloud.

    Raises `Halted` for a named file or profile that cannot be read.
    """
    return CredentialSources(settings.name, settings, tuple(_places(settings)))


def _places(settings: CloudSettings) -> Iterator[Source]:
    yield configured(settings)
    if settings.eucarc:
        yield eucarc_source(settings.eucarc, cloud=settings.name, home=at_home(Path("~")))
    if settings.euca2ools:
        yield euca2ools_source(settings.euca2ools, settings.euca2ools_files, cloud=settings.name)
    if settings.profile:
        yield profile_source(settings.profile, cloud=settings.name)


def configured(settings: CloudSettings) -> Source:
    """Return the settings that the configuration itself gives for a cloud."""
    settings_given = {key: getattr(settings, key) for key in keys_of("cloud")}
    if settings.secret_key:
        settings_given["secret_key"] = settings.secret_key.get_secret_value()
    values = {key: str(value) for key, value in settings_given.items() if value is not None}
    return Source(f"[cloud.{settings.name}]", values, {})


def addresses(sources: CredentialSources) -> Addresses:
    """Return both URLs, or neither if the region is one with known addresses. Raises `Halted`."""
    region = _region(sources)
    if not (sources.value("ec2_url") or sources.value("s3_url")) and _is_known(
        sources.settings.dialect, region
    ):
        check_proxy(sources.cloud, HTTPS_EVERYWHERE)
        return Addresses(None, None, region)
    return Addresses(_url(sources, "ec2_url", "EC2"), _url(sources, "s3_url", "S3"), region)


def _is_known(dialect: str, region: str | None) -> bool:
    named = DIALECTS.get(dialect)
    return region is not None and (named.regional if named else bool(_KNOWN_REGION.fullmatch(region)))


def _region(sources: CredentialSources) -> str | None:
    """Return the region's name.

    A region of euca2ools may be a mere label; if the name matters to a server, it is a real one.
    """
    region = sources.value("region")
    return region if region and REGION.fullmatch(region) else None


def _url(sources: CredentialSources, setting: str, half: str) -> str:
    url = _needed(sources, setting, f"address for {half}")
    try:
        address = read_address(url)
    except InvalidAddress as error:
        place = sources.place_of(setting)
        where = place.place_of(setting) if place else setting
        raise Halted(
            f"cloud {sources.cloud}: its address for {half} is not one: {hide_password(url)}",
            f"{error} ({where})",
            f"Correct it there, or set {setting} under [cloud.{sources.cloud}], with no user or password"
            " in it; an address looks like http://HOST:8773/PATH.",
        ) from error
    check_proxy(sources.cloud, address)
    return address


def access_keys(sources: CredentialSources) -> Keys:
    """Return the access keys. Raises `Halted`.

    A token belongs to the secret beside it, and to no other.
    """
    access_key = _needed(sources, "access_key", "access key")
    secret_key = _needed(sources, "secret_key", "secret key")
    place = sources.place_of("secret_key")
    return Keys(access_key, secret_key, place.values.get("session_token") if place else None)


def account_number(sources: CredentialSources) -> str:
    """Return it without the hyphens that some show it with; empty if nothing says it."""
    return (sources.value("account") or "").replace("-", "").strip()


def user_certificate(sources: CredentialSources) -> Certificate:
    return load_certificate(_file(sources, "user_cert", "user certificate"), whose="the user's certificate")


def user_key(sources: CredentialSources) -> RSAPrivateKey:
    return load_private_key(_file(sources, "user_key", "user's private key"), whose="the user's private key")


def fitting(sources: CredentialSources, *, certificate: Certificate, key: RSAPrivateKey) -> Pair:
    """Return key and certificate together. Raises `Halted` if they do not belong together."""
    if is_key_pair(key, certificate):
        return certificate, key
    raise Halted(
        f"{sources.value('user_key')} (user_key of cloud {sources.cloud})",
        f"it is not the key of the certificate {sources.value('user_cert')} (user_cert)",
        "Use the two files that came in one set of credentials.",
    )


def cloud_certificate(sources: CredentialSources, *, user: Certificate | None) -> Certificate | None:
    """Return the cloud's certificate, None if nothing names it.

    Raises `Halted` if it is the user's: bundles sealed for the user twice would be refused one by one, and
    their droppers blamed for it.
    """
    path = sources.value("cloud_cert")
    if path is None:
        return None
    certificate = load_certificate(Path(path), whose="the cloud's certificate")
    if user is None or public_key(certificate).public_numbers() != public_key(user).public_numbers():
        return certificate
    raise Halted(
        f"cloud {sources.cloud}: {path} (cloud_cert)",
        "it is the user's certificate, not the cloud's",
        "Set cloud_cert to the cloud's own, cloud-cert.pem beside most eucarcs.",
    )


def ca_bundle(sources: CredentialSources) -> Path | None:
    path = sources.value("ca_bundle")
    if path is None:
        return None
    what = f"{path} (ca_bundle of cloud {sources.cloud})"
    try:
        read_small(Path(path))
        return Path(path)
    except PermissionError as error:
        raise cannot_read(Path(path), what=what) from error
    except OSError as error:
        why = "there is no such file" if isinstance(error, FileNotFoundError) else f"{error.strerror}"
        hint = "Correct ca_bundle, or remove it to trust the public authorities."
        raise Halted(what, why, hint) from error


def _file(sources: CredentialSources, setting: str, noun: str) -> Path:
    return Path(_needed(sources, setting, noun))


def _needed(sources: CredentialSources, setting: str, noun: str) -> str:
    if value := sources.value(setting):
        return value
    where = ", ".join(_silent(place, setting) for place in sources.places[1:]) or "there is no eucarc"
    raise Halted(
        f"cloud {sources.cloud}: it has no {noun}",
        f"{setting} is not set and {where}",
        _remedy(sources, setting),
    )


def _remedy(sources: CredentialSources, setting: str) -> str:
    """Name the place where the setting is looked for first, or the configuration."""
    table = f"under [cloud.{sources.cloud}]"
    if remedy := next(
        (place.remedies[setting] for place in sources.places if setting in place.remedies), None
    ):
        return f"{remedy}, or set {setting} {table}."
    if sources.places[1:]:
        return f"Set {setting} {table}."
    return f"Set {setting} {table}, or eucarc to the file that came with its credentials."


def _silent(place: Source, setting: str) -> str:
    spelled = place.spelled.get(setting)
    if reason := place.reasons.get(setting):
        return f"of {place.name}, {reason}"
    return f"{place.name} does not set {spelled}" if spelled else f"{place.name} holds nothing of the kind"
