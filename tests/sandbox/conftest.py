"""Bundles made with nothing but the standard library and `cryptography`, and a cloud to send them to.

Nothing here comes from the package's modules that make bundles: a third implementation judges the cloud.
"""

import base64
import gzip
import hashlib
import hmac
import http.client
import io
import itertools
import random
import socket
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from functools import cache
from typing import Any, ClassVar, NamedTuple
from urllib.parse import quote, urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from uecwatchd.sandbox.server import Sandbox

BUCKET = "images"
KEY, IV = bytes(range(16)), bytes(range(16, 32))
PLAIN_PARTS = 16 * 1024  # small, so that a small image has several

QUIET = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
ONCE: dict[str, Any] = {"retries": {"total_max_attempts": 1}}


class Refusal(NamedTuple):
    code: str
    message: str
    status: int


@dataclass(frozen=True)
class Clients:
    """boto3 clients of one cloud, as a user would make them by hand."""

    cloud: Sandbox

    def s3(self, *, version: str = "s3v4", full_path: bool = True, **keys: str) -> Any:
        """`full_path` signs version 2 over the path of the URL, service path included."""
        config = Config(signature_version=version, s3={"addressing_style": "path"}, **QUIET, **ONCE)
        client = boto3.client(
            "s3", endpoint_url=self.cloud.s3_url, config=config, **self._credentials(**keys)
        )
        if version == "s3" and full_path:
            client.meta.events.register("before-sign.s3", _sign_whole_path)
        return client

    def ec2(self, *, version: str = "v4", **keys: str) -> Any:
        config = Config(signature_version=version, parameter_validation=False, **ONCE)
        return boto3.client(
            "ec2", endpoint_url=self.cloud.ec2_url, config=config, **self._credentials(**keys)
        )

    def _credentials(self, *, access_key: str = "", secret_key: str = "") -> dict[str, str]:
        return {
            "aws_access_key_id": access_key or self.cloud.identity.access_key,
            "aws_secret_access_key": secret_key or self.cloud.identity.secret_key,
            "region_name": "us-east-1",
        }


def _sign_whole_path(request: Any, **_: Any) -> None:
    request.auth_path = urlsplit(request.url).path


# Requests by hand.


class Raw(NamedTuple):
    """One answer as it came over the wire; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Hand:
    """Makes requests that no client library would, or the very same one twice."""

    cloud: Sandbox

    def sign_s3(
        self, method: str, path: str, *, service: str = "", headers: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """The headers of a version 2 request for a bucket and key, signed with the service path before it."""
        named = {"Date": formatdate(usegmt=True), **(headers or {})}
        amz = sorted(
            f"{name.lower()}:{value}\n" for name, value in named.items() if name.startswith("x-amz-")
        )
        whole = f"{service or urlsplit(self.cloud.s3_url).path.rstrip('/')}{path}"
        text = f"{method}\n{named.get('Content-MD5', '')}\n\n{named['Date']}\n{''.join(amz)}{whole}"
        identity = self.cloud.identity
        digest = hmac.digest(identity.secret_key.encode(), text.encode(), hashlib.sha1)
        return {**named, "Authorization": f"AWS {identity.access_key}:{base64.b64encode(digest).decode()}"}

    def sign_ec2(self, action: str, **parameters: str) -> str:
        """A version 2 query, signed, for GET."""
        where = urlsplit(self.cloud.ec2_url)
        known = {
            "Action": action,
            "Version": "2016-11-15",
            "AWSAccessKeyId": self.cloud.identity.access_key,
            "SignatureVersion": "2",
            "SignatureMethod": "HmacSHA256",
            "Timestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            **parameters,
        }
        query = "&".join(f"{quote(n, safe='')}={quote(v, safe='-_.~')}" for n, v in sorted(known.items()))
        text = f"GET\n{where.netloc}\n{where.path}\n{query}"
        digest = hmac.digest(self.cloud.identity.secret_key.encode(), text.encode(), hashlib.sha256)
        return f"{where.path}?{query}&Signature={quote(base64.b64encode(digest), safe='')}"

    def ask(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Raw:
        """On a connection of its own. A Content-Length in the headers may promise more than is sent."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.cloud.port, timeout=10)) as connection:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            return read_raw(connection.getresponse())

    def send(self, head: str, rest: bytes = b"") -> Raw:
        """A head that `http.client` would not write: its lines, without the empty one."""
        with socket.create_connection(("127.0.0.1", self.cloud.port), timeout=10) as connection:
            connection.sendall(f"{head}\r\nHost: 127.0.0.1\r\n\r\n".encode() + rest)
            response = http.client.HTTPResponse(connection)
            response.begin()
            with response:
                return read_raw(response)


def read_raw(response: http.client.HTTPResponse) -> Raw:
    return Raw(
        response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    )


# What images begin with, as far as a cloud can tell.


def noise(size: int, *, seed: int = 1) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(size)  # noqa: S311  # nobody's secret


def partition(size: int = 64 * 1024) -> bytes:
    """Has no boot sector, as a file system does."""
    return bytes(1024) + noise(size - 1024)


def disk(size: int = 64 * 1024) -> bytes:
    data = bytearray(noise(size))
    data[510:512] = b"\x55\xaa"
    return bytes(data)


def bzimage(size: int = 20_068) -> bytes:
    data = bytearray(noise(size, seed=2))
    data[510:518] = b"\x55\xaa\xeb\x66HdrS"
    return bytes(data)


def cpio(size: int = 9_000) -> bytes:
    return b"070701" + noise(size, seed=3)


# The bundle.


def make_tar(name: str, content: bytes, *, format: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def pad(data: bytes) -> bytes:
    count = 16 - len(data) % 16
    return data + bytes([count]) * count


def encrypt(data: bytes) -> bytes:
    whole = len(data) - len(data) % 16
    encryptor = Cipher(algorithms.AES(KEY), modes.CBC(IV)).encryptor()
    return encryptor.update(data[:whole]) + encryptor.finalize() + data[whole:]


def cut(name: str, data: bytes) -> list[tuple[str, bytes]]:
    starts = range(0, len(data), PLAIN_PARTS)
    return [(f"{name}.part.{n}", data[start : start + PLAIN_PARTS]) for n, start in enumerate(starts)]


def seal(text: str, key: RSAPrivateKey) -> str:
    return key.public_key().encrypt(text.encode(), PKCS1v15()).hex()


def sign(text: str, key: RSAPrivateKey) -> str:
    return key.sign(text.encode(), PKCS1v15(), hashes.SHA1()).hex()


def render(fields: Mapping[str, Any]) -> str:
    """The two signed elements."""
    f = fields
    ids = "".join(f"<{n}_id>{f[n]}</{n}_id>" for n in ("kernel", "ramdisk") if f[n])
    parts = "".join(
        f"<part index='{n}'><filename>{name}</filename><digest algorithm='SHA1'>{sha1}</digest></part>"
        for n, (name, sha1) in enumerate(f["parts"])
    )
    return (
        f"<machine_configuration><architecture>{f['architecture']}</architecture>{f['mapping']}{ids}"
        "</machine_configuration>"
        f"<image><name>{f['name']}</name><user>{f['user']}</user><type>{f['type']}</type>"
        f"<digest algorithm='SHA1'>{f['digest']}</digest><size>{f['size']}</size>"
        f"<bundled_size>{f['bundled_size']}</bundled_size>"
        f"<ec2_encrypted_key algorithm='AES-128-CBC'>{f['ec2_key']}</ec2_encrypted_key>"
        f"<user_encrypted_key algorithm='AES-128-CBC'>{f['user_key']}</user_encrypted_key>"
        f"<ec2_encrypted_iv>{f['ec2_iv']}</ec2_encrypted_iv>"
        f"<user_encrypted_iv>{f['user_iv']}</user_encrypted_iv>"
        f"<parts count='{len(f['parts'])}'>{parts}</parts></image>"
    )


def wrap(signed: str, signature: str) -> str:
    return (
        '<?xml version="1.0"?><manifest><version>2007-10-10</version>'
        "<bundler><name>by-hand</name><version>1</version><release>0</release></bundler>"
        f"{signed}<signature>{signature}</signature></manifest>"
    )


Edit = Callable[[Any], Any]


@dataclass(frozen=True)
class Forge:
    """Makes bundles, right or wrong in one place.

    `edits` change what a stage has made before the next stage sees it: tar, gzip, padded, cipher (bytes);
    parts (list of name and bytes); fields (the manifest's values); xml (text of the signed elements);
    signature (hex); manifest (text); objects (key and bytes). What follows a changed stage is right for the
    change, so that exactly one thing is wrong.
    """

    cloud: Sandbox
    s3: Any
    serial: Iterator[int]

    tar: ClassVar = staticmethod(make_tar)
    pad: ClassVar = staticmethod(pad)
    seal: ClassVar = staticmethod(seal)
    sign: ClassVar = staticmethod(sign)

    def bundle(
        self,
        content: bytes,
        *,
        type: str = "machine",
        kernel: str | None = None,
        ramdisk: str | None = None,
        prefix: str = "image",
        **edits: Edit,
    ) -> str:
        """Uploads it, and says where: `bucket/key`."""
        name = f"{prefix}-{next(self.serial)}"
        objects = self.make(name, content, type=type, kernel=kernel, ramdisk=ramdisk, edits=edits)
        for key, data in objects.items():
            self.s3.put_object(Bucket=BUCKET, Key=key, Body=data, ACL="aws-exec-read")
        return f"{BUCKET}/{name}.manifest.xml"

    def make(
        self,
        name: str,
        content: bytes,
        *,
        type: str,
        kernel: str | None,
        ramdisk: str | None,
        edits: Mapping[str, Edit],
    ) -> dict[str, bytes]:
        def edited(stage: str, made: Any) -> Any:
            return edits.get(stage, lambda same: same)(made)

        tar = edited("tar", make_tar(name, content))
        zipped = edited("gzip", gzip.compress(tar, 1, mtime=0))
        padded = edited("padded", pad(zipped))
        cipher = edited("cipher", encrypt(padded))
        parts = edited("parts", cut(name, cipher))
        identity = self.cloud.identity
        fields = {
            "name": name,
            "user": identity.account,
            "type": type,
            "architecture": "x86_64",
            "mapping": "",
            "kernel": "true" if type == "kernel" else kernel,
            "ramdisk": "true" if type == "ramdisk" else ramdisk,
            "digest": hashlib.sha1(tar).hexdigest(),
            "size": len(content),
            "bundled_size": sum(len(data) for _, data in parts),
            "ec2_key": seal(KEY.hex(), identity.cloud_key),
            "ec2_iv": seal(IV.hex(), identity.cloud_key),
            "user_key": seal(KEY.hex(), identity.user_key),
            "user_iv": seal(IV.hex(), identity.user_key),
            "parts": [(part, hashlib.sha1(data).hexdigest()) for part, data in parts],
        }
        signed = edited("xml", render(edited("fields", fields)))
        signature = edited("signature", sign(signed, identity.user_key))
        manifest = edited("manifest", wrap(signed, signature))
        objects = {f"{name}.manifest.xml": manifest.encode(), **dict(parts)}
        return dict(edited("objects", objects))


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """One cloud for all tests that do not mind each other's images."""
    with Sandbox(tmp_path_factory.mktemp("cloud")) as running:
        Clients(running).s3().create_bucket(Bucket=BUCKET)
        yield running


@pytest.fixture(scope="session")
def clients(cloud: Sandbox) -> Clients:
    return Clients(cloud)


@pytest.fixture(scope="session")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Sandbox]]:
    """One cloud of each generation, for tests that do not mind each other's; without buckets."""
    with ExitStack() as running:

        @cache
        def start(generation: str) -> Sandbox:
            folder = tmp_path_factory.mktemp(generation)
            return running.enter_context(Sandbox(folder, dialect=generation))

        yield start


@pytest.fixture(scope="session")
def hand() -> Callable[[Sandbox], Hand]:
    return Hand


@pytest.fixture(scope="session")
def make_clients() -> Callable[[Sandbox], Clients]:
    return Clients


@pytest.fixture(scope="session")
def s3(clients: Clients) -> Any:
    return clients.s3()


@pytest.fixture(scope="session")
def ec2(clients: Clients) -> Any:
    return clients.ec2()


@pytest.fixture(scope="session")
def forge(cloud: Sandbox, s3: Any) -> Forge:
    return Forge(cloud, s3, itertools.count())


@pytest.fixture(scope="session")
def make_forge() -> Callable[[Sandbox], Forge]:
    """For a cloud of the test's own, which has no bucket yet."""

    def make(cloud: Sandbox) -> Forge:
        s3 = Clients(cloud).s3()
        s3.create_bucket(Bucket=BUCKET)
        return Forge(cloud, s3, itertools.count())

    return make


@pytest.fixture(scope="session")
def refusal() -> Callable[..., Refusal]:
    """Calls, and gives what the call was refused with."""

    def refused(call: Callable[..., Any], **arguments: Any) -> Refusal:
        with pytest.raises(ClientError) as caught:
            call(**arguments)
        answer = caught.value.response
        status = answer["ResponseMetadata"]["HTTPStatusCode"]
        return Refusal(answer["Error"]["Code"], answer["Error"].get("Message", ""), status)

    return refused


@pytest.fixture(scope="session")
def contents() -> Mapping[str, bytes]:
    """Return beginnings of images that a cloud can distinguish."""
    return {"partition": partition(), "disk": disk(), "kernel": bzimage(), "ramdisk": cpio()}
