"""Detection of a cloud's dialect: found by asking it, with the reason.

The address says most: Eucalyptus' services are below `/services/`, Amazon's hosts bear its name, and every
other EC2 API is OpenStack's. Nova had its own below `/services/` too, as `Cloud` and `Admin`, which no
Eucalyptus has. From 4.0 on, a Eucalyptus with names of its own (`ec2.DOMAIN`, `s3.DOMAIN`) answers at the
root of each as well; it is known by how it refuses a path below `/services/` that it does not have, before it
looks at any signature. Which Eucalyptus it is, three cheap questions tell, from the newest on:

1. a list of our buckets, asked with a V4 signature: S3 knows those from 4.4 on
2. the same at `/services/objectstorage`, asked with V2: the path came with 4.0
3. a list of our images with a filter: taken from 3.3 on, refused with a 412 by 3.0 to 3.2, and with another
   status before

They change nothing. Only an answer that such a server gives counts: a server that is overloaded says nothing
about its age. What each generation answers, read in its own sources (`NioServerHandler` for paths that it
does not have, its bindings for the rest):

| Eucalyptus | 1. V4 list of buckets | 2. /services/objectstorage | 3. a filter |
|---|---|---|---|
| 1.6 | 500, no body | 500, text: `Failure: 500 Internal Server Error` | 500, text: `Failed to bind …` |
| 2.0 | 403 | the same, and the exception's message in a second line | 400, text |
| 3.0 to 3.2 | 403 | 404, XML with that code | 412, text |
| 3.3, 3.4 | 403 | 404, XML with that code | 200 |
| 4.0 to 4.3 | 403 | 200 | - |
| 4.4 to 5.1 | 200 | - | - |

A 2.0 that is still starting says so with 503, whatever it is asked.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from uecwatchd.clouds.client import Cloud, make_cloud
from uecwatchd.clouds.credentials.account import Account
from uecwatchd.clouds.dialects import AWS, EUCA3, EUCA4, EUCA5, OPENSTACK, SANDBOX, UEC, Dialect
from uecwatchd.clouds.errors.translate import translated
from uecwatchd.system.signals import NEVER, Stop

EUCALYPTUS_PATHS = "/services/"
NOVA_PATHS = re.compile(r"/services/(cloud|admin)(/|$)", re.IGNORECASE)
OBJECT_STORAGE = "/services/objectstorage"
SERVER_NAMES: Mapping[str, Dialect] = {"uecwatchd-sandbox": SANDBOX, "AmazonS3": AWS}
# How Eucalyptus says that it does not know a parameter, from its first version to its last.
UNKNOWN_PARAMETER = "bind the following fields"
OWN_FILTER = {"Name": "state", "Values": ["available"]}
# How a server says that it knows no V4 signatures, the first of them without a word; and no such path.
REFUSES_V4 = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN})
WITHOUT_A_WORD = "500: Internal Server Error"
KNOWS_NO_PATH = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED})
# The first two generations fail at such a path, with this line of text at the beginning.
FAILS_AT_PATH = re.compile(r"500: Failure: 500\b")
# Where no service of a Eucalyptus is, and with which code it says so from 3.0 on: nobody else's is like that.
MISSING_PATH = "/services/None"
IS_MISSING_PATH = re.compile("404 Not Found: ")
SERVER_FAILS = HTTPStatus.INTERNAL_SERVER_ERROR
DOING = "finding out its generation"


@dataclass(frozen=True, slots=True)
class DetectedDialect:
    """A dialect, and the fact that revealed it."""

    dialect: Dialect
    why: str


@dataclass(frozen=True, slots=True)
class _Answer:
    """As much of an answer as detection needs.

    `text` is "Code: message", empty on success; `server` names itself.
    """

    status: int
    text: str
    server: str


def detect_dialect(account: Account, *, stop: Stop = NEVER) -> DetectedDialect:
    """Ask the cloud. Raises what its answers mean when they tell nothing: it is away, or does not know us."""
    if found := by_address(account.ec2_url):
        return found
    answer = _asked_as_newest(account, stop)
    if named := SERVER_NAMES.get(answer.server):
        return DetectedDialect(named, f"its answers come from {answer.server}")
    if NOVA_PATHS.match(urlsplit(account.ec2_url or "").path):
        return DetectedDialect(OPENSTACK, "its EC2 is where OpenStack's Nova had it")
    if not (_has_its_paths(account) or _refuses_as_eucalyptus(account, stop)):
        return DetectedDialect(OPENSTACK, "its address is neither Amazon's nor one of a Eucalyptus")
    if not answer.text:
        return DetectedDialect(EUCA5, "its S3 takes V4 signatures, as Eucalyptus does from 4.4 on")
    if _has_object_storage(account, stop):
        return DetectedDialect(EUCA4, f"it has {OBJECT_STORAGE}, as Eucalyptus does from 4.0 on")
    return _oldest(account, stop)


def by_address(ec2_url: str | None) -> DetectedDialect | None:
    """Detect the dialect from the address alone; None if it tells nothing."""
    host = urlsplit(ec2_url or "").hostname or ""
    if not host:
        return DetectedDialect(AWS, "it has a region and no address")
    if host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        return DetectedDialect(AWS, f"its address is {host}")
    return None


def address_of(account: Account) -> str:
    """Return the address that identifies a cloud: a cloud at another address is another cloud."""
    return " ".join(part or "-" for part in (account.ec2_url, account.s3_url, account.region))


def _has_its_paths(account: Account) -> bool:
    urls = (account.ec2_url, account.s3_url)
    return any(urlsplit(url or "").path.startswith(EUCALYPTUS_PATHS) for url in urls)


def _refuses_as_eucalyptus(account: Account, stop: Stop) -> bool:
    account_at_missing_path = replace(account, ec2_url=_beside(account.ec2_url, MISSING_PATH))
    cloud = make_cloud(account_at_missing_path, EUCA5, uploads=1, stop=stop)
    answer = _ask(cloud, cloud.ec2.describe_regions, lambda one: one.status < SERVER_FAILS)
    return IS_MISSING_PATH.match(answer.text) is not None


def _asked_as_newest(account: Account, stop: Stop) -> _Answer:
    cloud = make_cloud(account, EUCA5, uploads=1, stop=stop)
    return _ask(
        cloud,
        cloud.s3.list_buckets,
        lambda answer: answer.status in REFUSES_V4 or answer.text == WITHOUT_A_WORD,
    )


def _has_object_storage(account: Account, stop: Stop) -> bool:
    beside = replace(account, s3_url=_beside(account.s3_url, OBJECT_STORAGE))
    cloud = make_cloud(beside, EUCA4, uploads=1, stop=stop)
    return not _lacks_path(_ask(cloud, cloud.s3.list_buckets, _lacks_path))


def _ask(cloud: Cloud, ask: Callable[[], Any], tells: Callable[[_Answer], bool]) -> _Answer:
    """Return the answer to a question. Raises a refusal unless `tells` says that it is an answer."""
    with translated(cloud, DOING):
        try:
            return _read(ask())
        except ClientError as error:
            answer = _read(error.response)
            if not tells(answer):
                raise
            return answer


def _lacks_path(answer: _Answer) -> bool:
    return answer.status in KNOWS_NO_PATH or FAILS_AT_PATH.match(answer.text) is not None


def _oldest(account: Account, stop: Stop) -> DetectedDialect:
    # Of the two that it may be, the one must not be sent a signature twice.
    cloud = make_cloud(account, replace(UEC, replay_refused=True), uploads=1, stop=stop)
    with translated(cloud, DOING):
        try:
            cloud.ec2.describe_images(Owners=["self"], Filters=[OWN_FILTER])
        except ClientError as error:
            answer = _read(error.response)
            if UNKNOWN_PARAMETER not in answer.text:
                raise
            refuses = f"it refuses a filter with {answer.status}, as Eucalyptus"
            if answer.status == HTTPStatus.PRECONDITION_FAILED:
                return DetectedDialect(EUCA3, f"{refuses} 3.0 to 3.2 do")
            return DetectedDialect(UEC, f"{refuses} before 3.0 does")
    return DetectedDialect(EUCA3, f"it takes filters and has no {OBJECT_STORAGE}, as Eucalyptus 3.3 and 3.4")


def _read(response: Mapping[str, Any]) -> _Answer:
    metadata = response.get("ResponseMetadata", {})
    error = response.get("Error") or {}
    text = f"{error.get('Code', '')}: {error.get('Message', '')}" if error else ""
    return _Answer(metadata["HTTPStatusCode"], text, metadata.get("HTTPHeaders", {}).get("server", ""))


def _beside(url: str | None, path: str) -> str:
    parts = urlsplit(url or "")
    return f"{parts.scheme}://{parts.netloc}{path}"
