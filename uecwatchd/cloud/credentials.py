"""Who we are on a cloud: gathered from the configuration and the eucarc, and checked before any work is done.

A value in the configuration goes before the same value in the eucarc.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.x509 import Certificate

from uecwatchd.bundle.keys import fits, load_certificate, load_private_key, public_key
from uecwatchd.cloud.dialect import DIALECTS
from uecwatchd.cloud.eucarc import read_eucarc
from uecwatchd.errors import Halted, NotPermitted
from uecwatchd.settings import CloudSettings

# Where the eucarc of any generation keeps what a setting is about; the first that is set counts.
EUCARC_VARIABLES: Mapping[str, tuple[str, ...]] = {
    "ec2_url": ("EC2_URL",),
    "s3_url": ("S3_URL",),
    "access_key": ("EC2_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY"),
    "secret_key": ("EC2_SECRET_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY"),
    "account": ("EC2_ACCOUNT_NUMBER", "EC2_USER_ID"),
    "user_cert": ("EC2_CERT",),
    "user_key": ("EC2_PRIVATE_KEY",),
    "cloud_cert": ("EUCALYPTUS_CERT",),
}

_ACCOUNT_NUMBER = re.compile(r"[0-9]{12}")


@dataclass(frozen=True, slots=True)
class Account:
    """One user of one cloud, complete: everything is there, readable, and fits together.

    A URL is None only where the cloud has known addresses per region. `account` is 12 digits.
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
    cloud_cert: Certificate
    ca_bundle: Path | None


@dataclass(frozen=True, slots=True)
class _Sources:
    """Both places a value may come from. `variables` are those of the eucarc, with secrets."""

    cloud: str
    settings: CloudSettings
    variables: Mapping[str, str] = field(repr=False)


def gather(settings: CloudSettings) -> Account:
    """Raises `Halted` (`NotPermitted` for a file we may not read), naming the file and the setting."""
    sources = _Sources(settings.name, settings, _eucarc(settings))
    needs_urls = not DIALECTS[settings.dialect].regional
    user_cert, user_key = _pair(sources)
    cloud_cert = _cloud_certificate(sources, user_cert)
    return Account(
        cloud=settings.name,
        ec2_url=_url(sources, "ec2_url", needed=needs_urls),
        s3_url=_url(sources, "s3_url", needed=needs_urls),
        region=settings.region,
        access_key=_needed(sources, "access_key", "access key"),
        secret_key=_needed(sources, "secret_key", "secret key"),
        account=_account_number(sources),
        user_cert=user_cert,
        user_key=user_key,
        cloud_cert=cloud_cert,
        ca_bundle=_ca_bundle(settings),
    )


def _cloud_certificate(sources: _Sources, user_cert: Certificate) -> Certificate:
    """Bundles sealed for the user twice would be refused one by one, and their droppers blamed for it."""
    path = _file(sources, "cloud_cert", "cloud certificate")
    certificate = load_certificate(path, whose="the cloud's certificate")
    if public_key(certificate).public_numbers() == public_key(user_cert).public_numbers():
        raise Halted(
            f"cloud {sources.cloud}: {path} (cloud_cert)",
            "it is the user's certificate, not the cloud's",
            "Set cloud_cert to the cloud's own, cloud-cert.pem beside most eucarcs.",
        )
    return certificate


def _eucarc(settings: CloudSettings) -> Mapping[str, str]:
    if settings.eucarc is None:
        return {}
    path = settings.eucarc.resolve()  # the files named in it lie beside it, not beside a link to it
    return read_eucarc(_text(path, settings.name), folder=path.parent)


def _text(path: Path, cloud: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except PermissionError as error:
        hint = f"Let our group read it: chgrp uecwatchd {path} && chmod g+r {path}"
        raise NotPermitted(f"{path} (eucarc of cloud {cloud})", "cannot read it", hint) from error
    except OSError as error:
        hint = f"Correct eucarc under [cloud.{cloud}], or put the file there."
        raise Halted(
            f"{path} (eucarc of cloud {cloud})", f"cannot read it: {error.strerror}", hint
        ) from error


def _found(sources: _Sources, setting: str) -> str | None:
    """The value of a setting as text, wherever it is written."""
    value = getattr(sources.settings, setting)
    if value is not None:
        return value.get_secret_value() if setting == "secret_key" else str(value)
    names = EUCARC_VARIABLES[setting]
    return next((sources.variables[name] for name in names if sources.variables.get(name)), None)


def _needed(sources: _Sources, setting: str, noun: str) -> str:
    value = _found(sources, setting)
    if value:
        return value
    cloud, eucarc, variable = sources.cloud, sources.settings.eucarc, EUCARC_VARIABLES[setting][0]
    where = f"and {eucarc} does not set {variable}" if eucarc else "and there is no eucarc"
    raise Halted(
        f"cloud {cloud}",
        f"it has no {noun}: {setting} is not set {where}",
        f"Set {setting} under [cloud.{cloud}], or eucarc to the file that came with the cloud's credentials.",
    )


def _url(sources: _Sources, setting: str, *, needed: bool) -> str | None:
    if not needed and _found(sources, setting) is None:
        return None
    url = _needed(sources, setting, "address for S3" if setting == "s3_url" else "address for EC2").rstrip(
        "/"
    )
    if _is_address(url):
        return url
    raise Halted(
        f"cloud {sources.cloud}",
        f"{setting} is not an address like http://HOST:PORT/PATH",
        f"Correct it under [cloud.{sources.cloud}] or in the eucarc, with no user or password in it.",
    )


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return False


def _account_number(sources: _Sources) -> str:
    number = _needed(sources, "account", "account number").replace("-", "").strip()
    if _ACCOUNT_NUMBER.fullmatch(number):
        return number
    raise Halted(
        f"cloud {sources.cloud}",
        f"its account number is {number}, and that is not one of 12 digits",
        f"Set account under [cloud.{sources.cloud}] to the number of 12 digits that the cloud shows.",
    )


def _file(sources: _Sources, setting: str, noun: str) -> Path:
    path = Path(_needed(sources, setting, noun))
    return (
        path if path.is_absolute() or not sources.settings.eucarc else sources.settings.eucarc.parent / path
    )


def _pair(sources: _Sources) -> tuple[Certificate, RSAPrivateKey]:
    cert_path = _file(sources, "user_cert", "user certificate")
    key_path = _file(sources, "user_key", "user's private key")
    certificate = load_certificate(cert_path, whose="the user's certificate")
    key = load_private_key(key_path, whose="the user's private key")
    if fits(key, certificate):
        return certificate, key
    raise Halted(
        f"{key_path} (user_key of cloud {sources.cloud})",
        f"it is not the key of the certificate {cert_path} (user_cert)",
        "Use the two files that came in one set of credentials.",
    )


def _ca_bundle(settings: CloudSettings) -> Path | None:
    if settings.ca_bundle is None or settings.ca_bundle.is_file():
        return settings.ca_bundle
    raise Halted(
        f"{settings.ca_bundle} (ca_bundle of cloud {settings.name})",
        "there is no such file",
        "Correct ca_bundle, or remove it to trust the public authorities.",
    )
