"""Errors of botocore, turned into ours."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from uecwatchd.clouds.dialects import Dialect
from uecwatchd.clouds.errors.connection import quoted, translate_connection_error
from uecwatchd.clouds.errors.refusals import Refusal, RefusalRow
from uecwatchd.clouds.errors.response_repair import REQUEST_ID_CHARACTERS, REQUEST_ID_HEADER
from uecwatchd.clouds.errors.table import find_row
from uecwatchd.errors import UecError

# The table looks for words in the message; all known ones stand before this.
MESSAGE_CHARACTERS = 4096


class AskedCloud(Protocol):
    """The part of a cloud that the meaning of its errors depends on."""

    @property
    def name(self) -> str: ...
    @property
    def dialect(self) -> Dialect: ...
    @property
    def s3(self) -> Any: ...


@contextmanager
def translated(cloud: AskedCloud, doing: str, *, first: Iterable[RefusalRow] = ()) -> Iterator[None]:
    """Turn every error of botocore into one of ours; `doing` says what was tried ("uploading b/x.part.0").

    `first` are rows that come before the table, because a refusal means something else here.
    """
    what = f"cloud {cloud.name}, {doing}"
    try:
        yield
    except ClientError as error:
        raise _refused(cloud, what, error, first) from error
    except (BotoCoreError, ResponseParserError) as error:
        raise translate_connection_error(what, error) from error


def code_of(error: ClientError) -> str:
    """Return the cloud's code of its refusal, such as NoSuchBucket; the status if the answer had no body."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def request_id_in(metadata: Mapping[str, Any]) -> str:
    """Return the request id in what botocore tells about an answer, empty if there is none."""
    headers = metadata.get("HTTPHeaders", {})
    request_id = metadata.get("RequestId") or headers.get(REQUEST_ID_HEADER)
    return str(request_id or headers.get("x-amzn-requestid", ""))[:REQUEST_ID_CHARACTERS]


def _refused(cloud: AskedCloud, what: str, error: ClientError, first: Iterable[RefusalRow]) -> UecError:
    request_id = request_id_in(error.response["ResponseMetadata"])
    return translate_refusal(
        cloud.dialect.name, what, _read(cloud, error), request_id=request_id, first=first
    )


def translate_refusal(
    dialect: str, what: str, refusal: Refusal, *, request_id: str, first: Iterable[RefusalRow] = ()
) -> UecError:
    """Return our error for a refusal."""
    row = find_row(dialect, refusal, first)
    # A server without codes of its own has the status for one: once is enough.
    answer = f"{refusal.code}: {refusal.message}".removeprefix(f"{refusal.status}: ")
    why = f"{row.why} ({f'{refusal.status} {quoted(answer)}'.strip()})"
    return row.kind(what, why, row.hint, request_id=request_id)


def _read(cloud: AskedCloud, error: ClientError) -> Refusal:
    of_s3 = error.operation_name in cloud.s3.meta.service_model.operation_names
    message = str(error.response.get("Error", {}).get("Message", ""))
    return Refusal("s3" if of_s3 else "ec2", status_of(error), code_of(error), in_one_line(message))


def in_one_line(message: str) -> str:
    return " ".join(message[:MESSAGE_CHARACTERS].split())
