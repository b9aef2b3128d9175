"""A bucket as drop folder, as its user sees it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.host import Host, cloud_host
from uecwatchd.clouds.client import Cloud, make_cloud
from uecwatchd.clouds.credentials.account import gather
from uecwatchd.clouds.dialects import DIALECTS
from uecwatchd.clouds.objects import ensure_bucket, fetch_object, list_objects, put_object, remove_object
from uecwatchd.config.load import load

BUCKET, PREFIX = "drop", "images/"
POLICY = """
[spool.policy."{folder}"]
source = "s3://{bucket}/{prefix}"
"""


@dataclass(frozen=True)
class DropBucket:
    """The bucket that fills the spool folder of a host."""

    host: Host
    cloud: Cloud

    def put(self, name: str, data: bytes) -> None:
        put_object(self.cloud, BUCKET, PREFIX + name, data)

    def remove(self, name: str) -> None:
        remove_object(self.cloud, BUCKET, PREFIX + name)

    def names(self) -> list[str]:
        return [one.key.removeprefix(PREFIX) for one in list_objects(self.cloud, BUCKET, PREFIX)]

    def read(self, name: str) -> bytes:
        return b"".join(fetch_object(self.cloud, BUCKET, PREFIX + name))


@contextmanager
def bucket_host(folder: Path, dialect: str) -> Iterator[DropBucket]:
    """Run an embedded cloud with a bucket, and make a build host whose spool folder is filled from it."""
    with cloud_host(folder, dialect) as host:
        policy = POLICY.format(folder=host.spool, bucket=BUCKET, prefix=PREFIX)
        host.configure(host.config.read_text() + policy)
        account = gather(load(host.config, environ={}).clouds["default"])
        cloud = make_cloud(account, DIALECTS[dialect], uploads=1)
        ensure_bucket(cloud, BUCKET)
        yield DropBucket(host, cloud)
