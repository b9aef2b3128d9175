"""The checks of RegisterImage, from the location to the last byte of the last part.

The cheap ones come first: the manifest's text, its signature and its keys, the presence and sizes of the
parts, and only then the unbundling.
"""

import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from uecwatchd.sandbox.ec2 import image_content
from uecwatchd.sandbox.ec2.manifest import SAFE_NAME, ManifestClaims, invalid, read_claims
from uecwatchd.sandbox.ec2.unbundle import BundleKey, ImageEnds, check_part, unbundle
from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.rules.ec2 import Ec2Rules, Moment
from uecwatchd.sandbox.state.identity import Identity
from uecwatchd.sandbox.state.store import S3Object, Store

AES_BLOCK = 16
# RSA decryption with a wrong key may give junk instead of an error; junk is never this.
KEY_TEXT = re.compile(rb"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class FetchedBundle:
    """A well-formed manifest and the parts it names, all present with plausible sizes.

    `secret` is None if the cloud's key does not open it and that shows later; `trouble` says why.
    """

    claims: ManifestClaims
    manifest_sha256: str
    parts: tuple[S3Object, ...]
    secret: BundleKey | None
    trouble: str = ""


def read_bundle(
    store: Store, identity: Identity, rules: Ec2Rules, location: str, *, moment: Moment = "register"
) -> FetchedBundle:
    """Check everything but the parts' bytes. `location` is `bucket/key`. Raises `ApiError`."""
    bucket, key = split_location(location, rules)
    data = _read_manifest(store, identity, rules, bucket, key)
    folder, _, file_name = key.rpartition("/")
    claims = read_claims(data, file_name=file_name)
    _check_claims(claims, identity, rules)
    if moment in rules.signature_checked:
        _check_signature(claims, identity.user_key.public_key())
    secret, trouble = _opened(claims, identity, rules)
    prefix = f"{folder}/" if folder and rules.parts_beside else ""
    parts = _find_parts(store, rules, bucket, prefix, claims)
    return FetchedBundle(claims, hashlib.sha256(data).hexdigest(), parts, secret, trouble)


def _opened(claims: ManifestClaims, identity: Identity, rules: Ec2Rules) -> tuple[BundleKey | None, str]:
    try:
        secret = _open_secret(claims.ec2_key, claims.ec2_iv, key=identity.cloud_key, whose="ec2")
    except ApiError as refused:
        if rules.imports_later:
            return None, refused.message
        raise
    if _open_secret(claims.user_key, claims.user_iv, key=identity.user_key, whose="user") != secret:
        raise invalid("The key sealed for the user is not the key sealed for the cloud")
    return secret, ""


def inspect(bundle: FetchedBundle) -> ImageEnds:
    """Unbundle the image and check its content for its role. Raises `ApiError`."""
    claims = bundle.claims
    if bundle.secret is None:
        raise invalid(bundle.trouble)
    image = unbundle(claims, bundle.parts, secret=bundle.secret)
    if why := image_content.reason_unsuitable(claims.type, image.head, image.tail, size=claims.size):
        raise invalid(f"The content of {claims.name} is no {claims.type}: {why}")
    return image


def recheck(
    store: Store, identity: Identity, rules: Ec2Rules, location: str, *, manifest_sha256: str
) -> None:
    """Compare manifest and parts with the registered ones, as a node does before it boots."""
    bundle = read_bundle(store, identity, rules, location, moment="run")
    if bundle.manifest_sha256 != manifest_sha256:
        raise invalid(f"The manifest {location} is not the one that was registered")
    for claim, part in zip(bundle.claims.parts, bundle.parts, strict=True):
        check_part(claim, part.path.read_bytes())


def split_location(location: str, rules: Ec2Rules) -> tuple[str, str]:
    """Split a location into bucket and key. The first servers want exactly one slash."""
    bucket, *names = location.split("/")
    safe = all(SAFE_NAME.fullmatch(name) for name in (bucket, *names))
    deep = len(names) > 1 and not rules.manifest_prefix
    if len(location) > rules.location_length or not names or deep or not safe:
        raise ApiError(
            "InvalidParameterValue", f"Invalid image location: {location[: rules.location_length]}"
        )
    return bucket, "/".join(names)


def _read_manifest(store: Store, identity: Identity, rules: Ec2Rules, bucket: str, key: str) -> bytes:
    try:
        owner = store.bucket(bucket).owner
        if owner != identity.account:
            raise ApiError(
                "AuthFailure", "Image registration failed: you must own the bucket containing the image"
            )
        stored, file = store.open(bucket, key)
    except ApiError as refused:
        if refused.code in ("NoSuchBucket", "NoSuchKey"):
            raise invalid(f"Failed to read manifest file: {bucket}/{key}: {refused.message}") from refused
        raise
    with file:
        if not _is_readable(stored, rules):
            raise invalid(f"Failed to read manifest file: {bucket}/{key}: aws-exec-read may not read it")
        if rules.manifest_size is not None and stored.size > rules.manifest_size:
            raise invalid(f"The manifest has {stored.size} bytes, more than {rules.manifest_size}")
        return file.read()


def _is_readable(stored: S3Object, rules: Ec2Rules) -> bool:
    """Tell if the cloud may read the object: its fetching account does not own the bucket."""
    return not rules.reader_acls or stored.acl in rules.reader_acls


def _check_claims(claims: ManifestClaims, identity: Identity, rules: Ec2Rules) -> None:
    if rules.image_size is not None and claims.size > rules.image_size:
        raise invalid(
            f"Cannot register image of size {claims.size}: it exceeds the maximum of {rules.image_size}"
        )
    if rules.user_checked and claims.user != identity.account:
        raise invalid(f"The manifest's <user> {claims.user} is not the account that registers it")
    if claims.architecture not in rules.architectures:
        raise invalid(f"The manifest's <architecture> {claims.architecture} is unknown")
    if rules.mapping_refused and claims.mapped:
        raise ApiError("InternalError", "An unknown error has occurred. Please try your request again.")


def _check_signature(claims: ManifestClaims, key: RSAPublicKey) -> None:
    try:
        key.verify(claims.signature, claims.signed, PKCS1v15(), hashes.SHA1())
    except InvalidSignature as error:
        raise invalid("Manifest has invalid signature") from error


def _open_secret(sealed_key: str, sealed_iv: str, *, key: RSAPrivateKey, whose: str) -> BundleKey:
    opened = [
        _unseal(sealed, key=key, what=f"{whose}_encrypted_{n}")
        for n, sealed in (("key", sealed_key), ("iv", sealed_iv))
    ]
    return BundleKey(*opened)


def _unseal(sealed: str, *, key: RSAPrivateKey, what: str) -> bytes:
    """Decrypt a sealed value: 32 hex digits in lower case."""
    try:
        text = key.decrypt(bytes.fromhex(sealed), PKCS1v15())
    except ValueError as error:
        raise invalid(f"<{what}> cannot be decrypted") from error
    if not KEY_TEXT.fullmatch(text):
        raise invalid(f"<{what}> does not hold 32 hex digits")
    return bytes.fromhex(text.decode())


def _find_parts(
    store: Store, rules: Ec2Rules, bucket: str, prefix: str, claims: ManifestClaims
) -> tuple[S3Object, ...]:
    found = []
    for claim in claims.parts:
        stored = store.find(bucket, prefix + claim.filename)
        if stored is None:
            raise invalid(f"Part {claim.filename} is not in bucket {bucket}")
        if not _is_readable(stored, rules):
            raise invalid(f"Part {claim.filename} cannot be read: aws-exec-read may not read it")
        found.append(stored)
    _check_sizes([stored.size for stored in found], claims.bundled_size, limit=rules.part_size)
    return tuple(found)


def _check_sizes(sizes: list[int], bundled_size: int, *, limit: int) -> None:
    if 0 in sizes:
        raise invalid("A part is empty")
    if len(set(sizes[:-1])) > 1 or sizes[-1] > sizes[0]:
        raise invalid("All parts but the last must have one size, and the last none larger")
    if sizes[0] > limit:
        raise invalid(f"A part has {sizes[0]} bytes, more than {limit}")
    if sum(sizes) != bundled_size:
        raise invalid(f"The parts have {sum(sizes)} bytes together, <bundled_size> says {bundled_size}")
    if bundled_size % AES_BLOCK:
        raise invalid(f"The bundle's length is not a multiple of {AES_BLOCK}")
