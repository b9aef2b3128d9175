"""The S3 and EC2 clients of one cloud: boto3, adapted to servers older than itself.

What is changed, and why:

- It knows only what we tell it: no ~/.aws, no AWS_* environment, no metadata service, and no proxy but the
  one that the environment names for this very address.
- Answers of somebody between us and the cloud are distinguished from the cloud's.
- No checksum trailers: Eucalyptus, Ceph and Swift refuse them. No validation of EC2 parameters: boto3
  insists on names that the first generation refuses.
- A V2 signature covers the path as it is in the URL, service path included. botocore signs less, which
  Eucalyptus up to 3.2 refuses for objects and every version for buckets.
- Nobody sends us elsewhere but Amazon, to a bucket's region.
- Bodies go without `Expect: 100-continue`: some servers never answer it.
- Answers that are not XML, or nearly, are read for what they say.
- A signature is sent once where a second one like it is taken for a replay.
- No client token is made up for a request that has none: the first generation refuses to see one.
- The console of an instance is asked for as the first generations bound it: `InstanceId.1`.
- Every answer has a maximum size and a deadline.
- Nothing is tried again but a request that was never answered, once: what a 5xx means is for our own table
  to say, since several permanent failures come as one.
"""

import functools
import re
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
from botocore.exceptions import ConnectionClosedError
from botocore.handlers import (
    add_expect_header,
    generate_idempotent_uuid,
    set_list_objects_encoding_type_url,
)

from uecwatchd.clouds.credentials.account import DEFAULT_REGION, Account
from uecwatchd.clouds.dialects import MIB, Dialect
from uecwatchd.clouds.errors.foreign_answers import refuse_foreign_answers
from uecwatchd.clouds.errors.response_repair import RepairingParsers, repair_response
from uecwatchd.clouds.exchange_limits import CONNECT_SECONDS, BoundedSession, allow_seconds
from uecwatchd.clouds.host_alias import alias_url, restore_host
from uecwatchd.clouds.proxy import HTTPS_EVERYWHERE, is_loopback, name_proxy, proxies_for
from uecwatchd.clouds.signature_reuse import UniqueSignatures
from uecwatchd.clouds.single_flight import SingleFlight
from uecwatchd.system.signals import NEVER, Stop

# S3 answers a part as soon as it has it on disk; a minute is a very slow disk.
S3_READ_SECONDS = 60

# A V2 signature holds the time in seconds, and Eucalyptus 3 refuses one that it has seen: a request is sent
# again in another second.
RESEND_AFTER_SECONDS = 1.0

# One for all clients of this process, since it is the server that remembers: which of them asked, it cannot
# tell. What is recognised by one client is asked by the next one within the same second.
_SENT = UniqueSignatures()

# Requests that may be sent twice without harm. RegisterImage would give two ids: if its answer is lost,
# the location is looked up instead.
RESENDABLE = re.compile(r"(Put|Get|Head|List|Describe|Delete|Modify)\w*|Create(Bucket|Tags)")

# With these dots it is called before botocore's own listeners: one of them takes a bare `&` in an answer of
# S3 for a broken connection.
BEFORE_PARSING = "before-parse.*.*"

# From the first byte that is sent to the last that comes, beside what the bytes themselves take. Many times
# what a server under load needs, and no longer: a probe, or a set, waits for that long.
S3_SECONDS = 180
EC2_SECONDS = 300
# Some clouds read the whole bundle before they answer RegisterImage: 30 GiB at some 35 MB/s. Who stops
# listening sooner does not find the image on the list yet either, and would register it a second time.
REGISTER_SECONDS = 900

# Of one answer. From S3 nothing longer comes than a part, of 10 MiB, or a thousand names of a kilobyte each
# in a list. EC2 says a thousand bytes of an image: a list of sixty thousand.
S3_ANSWER_BYTES = 16 * MIB
EC2_ANSWER_BYTES = 64 * MIB

# Over all sets together, for the sake of a small cloud's one front end; more only where a single set is to
# send more at once, since then somebody has asked for it.
MOST_REQUESTS = 16


@dataclass(frozen=True, slots=True)
class Cloud:
    """A cloud that can be asked: our account there, its dialect, and the two clients.

    May be shared by threads.
    """

    name: str
    account: Account
    dialect: Dialect
    s3: Any = field(repr=False)
    ec2: Any = field(repr=False)
    # Buckets that refused a canned ACL, so that only their first object is tried with one. A shortcut:
    # forgetting it costs a request.
    without_acl: set[str] = field(default_factory=set, repr=False, compare=False)
    # The list of our images: long, and wanted by every set.
    own_images: SingleFlight[Any] = field(default_factory=SingleFlight, repr=False, compare=False)
    # Held while a bucket is looked for and made: of two sets that begin together, one makes it.
    bucket_lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)


# A session is not to be used by two threads at a time; its clients are.
_SESSION_LOCK = threading.Lock()


def make_cloud(account: Account, dialect: Dialect, *, uploads: int, stop: Stop = NEVER) -> Cloud:
    """Make the clients; `uploads` is how many requests to S3 one set makes at once. Nothing is sent yet.

    `stop` ends what they ask.
    """
    most = max(MOST_REQUESTS, uploads)
    s3 = make_client("s3", **_client_arguments(account, account.s3_url, _s3_config(dialect, most)))
    _bound(s3, seconds=S3_SECONDS, limit=S3_ANSWER_BYTES, most=most, stop=stop)
    ec2 = make_client("ec2", **_client_arguments(account, account.ec2_url, _ec2_config(dialect)))
    _bound(ec2, seconds=EC2_SECONDS, limit=EC2_ANSWER_BYTES, most=most, stop=stop)
    ec2.meta.events.register("before-send.ec2.RegisterImage", allow_seconds(REGISTER_SECONDS))
    for client, url in ((s3, account.s3_url), (ec2, account.ec2_url)):
        proxy = name_proxy(url or HTTPS_EVERYWHERE)
        refuse_foreign = refuse_foreign_answers(proxy=proxy, regional=dialect.regional)
        client.meta.events.register_first(BEFORE_PARSING, refuse_foreign)
        client.meta.events.register("needs-retry", _resend_unanswered)
        client.meta.events.register(BEFORE_PARSING, repair_response)
        _SENT.listen(client.meta.events, reads=dialect.replay_refused)
        restore_host(client, url)
    _adapt_s3(s3, dialect)
    _adapt_ec2(ec2, dialect)
    return Cloud(account.cloud, account, dialect, s3, ec2)


def make_parameter_client(account: Account, *, stop: Stop = NEVER) -> Any:
    """Make a client of the parameter store beside Amazon's EC2. Nothing is sent yet."""
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=S3_READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": 1},
    )
    client = make_client("ssm", **_client_arguments(account, account.ssm_url, config))
    _bound(client, seconds=S3_SECONDS, limit=S3_ANSWER_BYTES, most=1, stop=stop)
    return client


def _bound(client: Any, **limits: Any) -> None:
    """Send all requests of a client over connections that are bounded in time and size."""
    endpoint = client._endpoint
    endpoint._response_parser_factory = RepairingParsers(endpoint._response_parser_factory)
    endpoint.http_session = BoundedSession(endpoint.http_session, **limits)


def _adapt_s3(s3: Any, dialect: Dialect) -> None:
    s3.meta.events.unregister("before-call.s3", add_expect_header)
    s3.meta.events.register("before-call.s3", functools.partial(_stay_in_region, regional=dialect.regional))
    if dialect.signs_whole_path:
        s3.meta.events.register("before-sign.s3", _sign_own_path)
    if not dialect.unknown_query_keys:
        s3.meta.events.unregister("before-parameter-build.s3.ListObjects", set_list_objects_encoding_type_url)


def _adapt_ec2(ec2: Any, dialect: Dialect) -> None:
    if dialect.console_by_list:
        ec2.meta.events.register("before-call.ec2.GetConsoleOutput", _name_in_list)
    ec2.meta.events.unregister("before-parameter-build", generate_idempotent_uuid)
    # Eucalyptus requires the platform from 4.0 on, and the library knows only Amazon's parameters.
    service = ec2.meta.service_model
    service.operation_model("RegisterImage").input_shape.members["Platform"] = service.shape_for("String")


def make_client(service: str, **arguments: Any) -> Any:
    """Make a client of "s3", "ec2" or "ssm". It shares with others only the library's parsed models."""
    with _SESSION_LOCK:
        return _session().client(service, **arguments)


@functools.cache
def _session() -> boto3.session.Session:
    """Return the one session for all clouds: reading the models is most of the cost of making a client."""
    # It ignores files and environment: each variable has only its default.
    known = BOTOCORE_DEFAUT_SESSION_VARIABLES.items()
    defaults = {name: (None, None, default, cast) for name, (_, _, default, cast) in known}
    no_file = (None, None, "/dev/null", None)
    sealed = botocore.session.Session(defaults | {"config_file": no_file, "credentials_file": no_file})
    # No moment that a cloud tells is of use to us, and servers tell them in ways of their own, or not at all.
    sealed.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    return boto3.session.Session(botocore_session=sealed)


def _client_arguments(account: Account, url: str | None, config: Config) -> dict[str, Any]:
    return {
        "endpoint_url": alias_url(url) if url else None,
        "region_name": account.region or DEFAULT_REGION,
        "aws_access_key_id": account.access_key,
        "aws_secret_access_key": account.secret_key,
        "aws_session_token": account.session_token,
        "verify": str(account.ca_bundle) if account.ca_bundle else True,
        "config": config.merge(Config(proxies=proxies_for(url or HTTPS_EVERYWHERE))),
    }


def _s3_config(dialect: Dialect, uploads: int) -> Config:
    return Config(
        signature_version=dialect.s3_signature,
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        max_pool_connections=uploads,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=S3_READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": 1},
    )


def _ec2_config(dialect: Dialect) -> Config:
    return Config(
        signature_version=dialect.ec2_signature,
        parameter_validation=False,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=REGISTER_SECONDS,  # each kind of question has an end of its own, mostly sooner
        retries={"mode": "standard", "total_max_attempts": 1},
    )


def is_insecure(url: str | None) -> bool:
    """Tell whether requests to `url` can be read and changed on their way."""
    return url is not None and urlsplit(url).scheme == "http" and not is_loopback(url)


def _stay_in_region(*, params: dict[str, Any], regional: bool, **_: object) -> None:
    """Keep botocore from looking for another region if there is none, or no bucket in the request.

    It would ask for the region of the bucket, be redirected again, and so on for ever.
    """
    redirect = params["context"]["s3_redirect"]
    redirect["redirected"] = not regional or redirect["bucket"] is None


def _sign_own_path(*, request: Any, **_: object) -> None:
    request.auth_path = urlsplit(request.url).path


def _name_in_list(*, params: dict[str, Any], **_: object) -> None:
    """Name the one instance in a list of one, as the clients of the first generations did."""
    params["body"]["InstanceId.1"] = params["body"].pop("InstanceId")


def _resend_unanswered(
    *, attempts: int, caught_exception: Exception | None, response: Any, operation: Any, **_: object
) -> float | None:
    """Return the pause in seconds before the one silent second try; None lets the failure stand.

    A server closes a kept connection after 100 requests, some without a word. A replay was refused unread.
    """
    replayed = response is not None and "replay detected" in str(response[1].get("Error")).lower()
    unanswered = isinstance(caught_exception, ConnectionClosedError) and RESENDABLE.fullmatch(operation.name)
    return RESEND_AFTER_SECONDS if attempts == 1 and (replayed or unanswered) else None
