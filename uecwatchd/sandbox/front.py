"""The counter: takes a request, finds out for which half it is, and hands out the answer or the refusal."""

import sqlite3
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from werkzeug.exceptions import ClientDisconnected
from werkzeug.wrappers import Request, Response

from uecwatchd.sandbox import ec2, s3
from uecwatchd.sandbox.realm import Realm
from uecwatchd.sandbox.refusal import Refused
from uecwatchd.sandbox.reply import write_ec2_error, write_s3_error
from uecwatchd.sandbox.signature import Wire

XML = "text/xml; charset=utf-8"

Failure = Refused | ClientDisconnected | OSError | sqlite3.Error
FAILURES = (Refused, ClientDisconnected, OSError, sqlite3.Error)


@dataclass(frozen=True, slots=True)
class Seen:
    """One request and its answer. `path` is as sent, without its query; `action` is the EC2 action or the S3
    operation, empty if there is no such thing; `code` is the error's, empty on success."""

    method: str
    path: str
    action: str
    status: int
    code: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Front:
    """`page` is what a browser sees at the root; `record` is told of each request once it has its answer."""

    realm: Realm
    page: Callable[[], str]
    record: Callable[[Seen], None]

    def answer(self, request: Request) -> Response:
        wire, request_id = read_wire(request), str(uuid.uuid4())
        path = unquote(wire.path)
        if path.rstrip("/") == self.realm.rules.ec2.path:
            action, response, code = self._ec2(request, wire, request_id)
        elif f"{path}/".startswith(f"{self.realm.rules.s3.path}/"):
            action, response, code = self._s3(request, wire, request_id)
        else:
            action, response, code = "", *self._elsewhere(wire)
        response.date = self.realm.clock()
        self.record(Seen(wire.method, wire.path, action, response.status_code, code, request_id))
        return response

    def _ec2(self, request: Request, wire: Wire, request_id: str) -> tuple[str, Response, str]:
        action = ""
        try:
            body = _read_form(request, wire)
            parameters = ec2.read_parameters(wire.query, body)
            action = parameters.get("Action", "")
            answer = ec2.answer(self.realm, wire, parameters, body, request_id=request_id)
            return action, Response(answer, content_type=XML), ""
        except FAILURES as error:
            refused = _as_refused(error)
            text = write_ec2_error(refused.code, refused.message, request_id=request_id)
            return action, Response(text, status=refused.status, content_type=XML), refused.code

    def _s3(self, request: Request, wire: Wire, request_id: str) -> tuple[str, Response, str]:
        rest = unquote(wire.path).removeprefix(self.realm.rules.s3.path).removeprefix("/")
        bucket, _, key = rest.partition("/")
        code = ""
        try:
            _refuse_chunked(wire)
            response = s3.answer(self.realm, request, wire, bucket=bucket, key=key)
        except FAILURES as error:
            refused = _as_refused(error)
            code = refused.code
            text = write_s3_error(code, refused.message, resource=f"/{rest}", request_id=request_id)
            response = Response(text, status=refused.status, mimetype="application/xml")
        response.headers["x-amz-request-id"] = request_id
        return s3.operation(wire.method, bucket, key, wire.query), response, code

    def _elsewhere(self, wire: Wire) -> tuple[Response, str]:
        if wire.path == "/" and wire.method in ("GET", "HEAD"):
            return Response(self.page(), mimetype="text/html"), ""
        return Response("Nothing is here. Look at / for what is.\n", status=404), "NotFound"


def read_wire(request: Request) -> Wire:
    """The request's head as sent; a path may come with the host before it."""
    target: str = request.environ["RAW_URI"]
    if not target.startswith("/"):
        parts = urlsplit(target)
        target = f"{parts.path or '/'}?{parts.query}"
    path, _, query = target.partition("?")
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Wire(request.method, path, query, headers)


def _refuse_chunked(wire: Wire) -> None:
    if "transfer-encoding" in wire.headers:
        raise Refused("MissingContentLength", "You must provide the Content-Length HTTP header")


def _read_form(request: Request, wire: Wire) -> bytes:
    if wire.method not in ("GET", "POST"):
        raise Refused("MethodNotAllowed", f"{wire.method} is not a method of this service")
    _refuse_chunked(wire)
    if (request.content_length or 0) > ec2.BODY_LIMIT:
        raise Refused("RequestEntityTooLarge", f"The request's body is larger than {ec2.BODY_LIMIT} bytes")
    return request.get_data()


def _as_refused(error: Failure) -> Refused:
    """A client that goes away, and a disk under the cloud that is full or broken, get an answer as well."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, ClientDisconnected):
        return Refused("IncompleteBody", "Fewer bytes came than Content-Length said")
    return Refused("InternalError", f"The cloud's own disk: {error}")
