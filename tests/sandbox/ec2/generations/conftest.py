"""One cloud of each generation, and requests made by hand: nothing here knows what a generation wants.

Objects are put straight into the clouds' stores, since what is tried here is the other half.
"""

import base64
import hashlib
import hmac
import http.client
import itertools
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from uecwatchd.sandbox.server import Sandbox
from uecwatchd.sandbox.state.store import Bucket, S3Object

BUCKET = "images"
FORM = "application/x-www-form-urlencoded"
NOTHING: Mapping[str, str] = {}
# What RegisterImage cannot do without, besides a location.
NAMED = {"euca4", "euca5", "openstack", "aws"}
WHOLE = {"euca4", "euca5"}  # where a machine has to have a kernel and a ramdisk
ONLY_V4 = {"openstack", "aws"}


@dataclass(frozen=True)
class Answer:
    status: int
    type: str
    text: str

    def all(self, tag: str) -> list[str]:
        return re.findall(f"<{tag}>(.*?)</{tag}>", self.text, re.DOTALL)

    def one(self, tag: str) -> str:
        (found,) = self.all(tag)
        return str(found)


@dataclass(frozen=True)
class Shelf:
    """Takes what an S3 client takes, and puts it on the disk."""

    cloud: Sandbox

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, ACL: str) -> None:  # noqa: N803  # boto3's
        store = self.cloud.backend.store
        upload = store.receive([Body])
        store.put(
            S3Object(
                Bucket, Key, upload.path, upload.size, upload.md5, ACL, "", {}, self.cloud.backend.clock()
            )
        )


@dataclass(frozen=True)
class Box:
    """A generation's cloud, and a hand to write requests with."""

    generation: str
    cloud: Sandbox
    forge: Any
    contents: Mapping[str, bytes]
    serial: Iterator[int]
    members: dict[str, str] = field(default_factory=dict)

    def ask(
        self,
        action: str,
        parameters: Mapping[str, str] = NOTHING,
        *,
        version: str = "",
        path: str = "",
        secret: str = "",
        ago: int | None = None,
    ) -> Answer:
        """`ago` is the age in seconds of a request signed by version 2; without it no two are dated alike."""
        sign = SIGNERS[version or ("v4" if self.generation in ONLY_V4 else "v2")]
        address = urlsplit(self.cloud.url)
        target = path or self.cloud.backend.rules.ec2.path
        words = {"Action": action, "Version": "2010-08-31", **parameters}
        body, headers = sign(self, f"{self.cloud.url}{target}", words, secret, ago)
        connection = http.client.HTTPConnection(str(address.hostname), int(address.port or 0), timeout=10)
        try:
            connection.request("POST", target, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers["Content-Type"], response.read().decode())
        finally:
            connection.close()

    def register(self, location: str, **parameters: str) -> Answer:
        name = {"Name": f"image-{next(self.serial)}"} if self.generation in NAMED else {}
        return self.ask("RegisterImage", {"ImageLocation": location, **name, **parameters})

    def member(self, type_: str) -> str:
        """The id of a kernel or ramdisk, registered when it is first asked for."""
        if type_ not in self.members:
            location = self.forge.bundle(self.contents[type_], type=type_)
            self.members[type_] = self.register(location).one("imageId")
        return self.members[type_]

    def bundle(self, content: str = "partition", **edits: Any) -> str:
        """Of a machine with what its generation wants it to have."""
        if self.generation in WHOLE:
            edits = {"kernel": self.member("kernel"), "ramdisk": self.member("ramdisk"), **edits}
        return str(self.forge.bundle(self.contents[content], **edits))

    def machine(self, **edits: Any) -> str:
        return self.register(self.bundle(**edits)).one("imageId")

    def image(self, image_id: str) -> str:
        """The item that describes it, from a list of all."""
        items = self.ask("DescribeImages", {"Owner.1": "self"}).text.split("<imageId>")
        (found,) = [item for item in items if item.startswith(f"{image_id}<")]
        return found

    def read_list(self) -> list[str]:
        return self.ask("DescribeImages", {"Owner.1": "self"}).all("imageId")


def encode(words: Mapping[str, str]) -> str:
    return "&".join(f"{quote(n, safe='-_.~')}={quote(v, safe='-_.~')}" for n, v in sorted(words.items()))


def sign_v2(
    box: Box, url: str, words: Mapping[str, str], secret: str, ago: int | None
) -> tuple[str, dict[str, str]]:
    at = datetime.now(UTC) - timedelta(seconds=ago or 0)
    fraction = f".{next(box.serial):06}" if ago is None else ""
    words = {
        **words,
        "AWSAccessKeyId": box.cloud.identity.access_key,
        "SignatureVersion": "2",
        "SignatureMethod": "HmacSHA256",
        "Timestamp": f"{at:%Y-%m-%dT%H:%M:%S}{fraction}Z",
    }
    address = urlsplit(url)
    text = "\n".join(("POST", address.netloc, address.path, encode(words)))
    digest = hmac.digest((secret or box.cloud.identity.secret_key).encode(), text.encode(), hashlib.sha256)
    body = encode({**words, "Signature": base64.b64encode(digest).decode()})
    return body, {"Host": address.netloc, "Content-Type": FORM}


def sign_v4(
    box: Box, url: str, words: Mapping[str, str], secret: str, ago: int | None
) -> tuple[str, dict[str, str]]:
    """Dated now: nobody takes two requests alike for a replay here."""
    del ago
    identity = box.cloud.identity
    headers = {"Content-Type": FORM}
    request = AWSRequest(method="POST", url=url, data=encode(words).encode(), headers=headers)
    credentials = Credentials(identity.access_key, secret or identity.secret_key)
    SigV4Auth(credentials, "ec2", "us-east-1").add_auth(request)  # type: ignore[no-untyped-call]
    return encode(words), dict(request.headers.items())


Sign = Callable[[Box, str, Mapping[str, str], str, int | None], tuple[str, dict[str, str]]]

SIGNERS: Mapping[str, Sign] = {
    "v2": sign_v2,
    "v4": sign_v4,
}

MakeBox = Callable[..., Box]


@pytest.fixture(scope="session")
def make_box(
    cloud: Sandbox, forge: Any, contents: Mapping[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeBox]:
    """Starts a cloud over a folder that knows its keys already: making them is most of a start."""
    with ExitStack() as stack:

        def make(generation: str, **options: Any) -> Box:
            folder = tmp_path_factory.mktemp(generation)
            for path in (*cloud.folder.glob("*.pem"), cloud.folder / "identity.json"):
                shutil.copy2(path, folder / Path(path.name))
            running = stack.enter_context(Sandbox(folder, dialect=generation, **options))
            bucket = Bucket(BUCKET, running.identity.account, "private", running.backend.clock())
            running.backend.store.add_bucket(bucket, quota=1)
            own = replace(forge, cloud=running, s3=Shelf(running))
            return Box(generation, running, own, contents, itertools.count())

        yield make


@pytest.fixture(scope="session")
def boxes(make_box: MakeBox) -> Callable[[str], Box]:
    """One cloud for all tests of a generation, started when it is first asked for."""
    started: dict[str, Box] = {}

    def find(generation: str) -> Box:
        return started.setdefault(generation, started.get(generation) or make_box(generation))

    return find
