"""The counter: takes a request, finds out for which half it is, and hands out the answer or the refusal."""

import sqlite3
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote, urlsplit

from werkzeug.exceptions import ClientDisconnected
from werkzeug.wrappers import Request, Response

from uecwatchd.sandbox.backend import Backend
from uecwatchd.sandbox.ec2 import actions as ec2
from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.http.connection import ConnectionDropped
from uecwatchd.sandbox.http.fault_injection import InjectedError, drop_answer, fail_upload, falsify_etag
from uecwatchd.sandbox.http.replay import ReplayCache
from uecwatchd.sandbox.http.responses import XML, write_ec2_refusal, write_s3_error
from uecwatchd.sandbox.http.signature import RequestHead, Unauthenticated, read_pairs, v2_signature
from uecwatchd.sandbox.rules.s3 import S3Rules
from uecwatchd.sandbox.s3 import operations as s3

Failure = ApiError | ClientDisconnected | OSError | sqlite3.Error
FAILURES = (ApiError, ClientDisconnected, OSError, sqlite3.Error)


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One request and its answer.

    `path` is as sent, without its query; like `method` it is empty if it could not be read. `action` is the
    EC2 action or the S3 operation, empty if there is no such thing; `status` is 0 if there was no answer.
    `code` and `message` are the refusal's and may say more than the client was told; both are empty on
    success. `fault` is what spoiled the answer, if anything did.
    """

    method: str
    path: str
    action: str
    status: int
    code: str
    request_id: str
    message: str = ""
    fault: str = ""


@dataclass(frozen=True, slots=True)
class IncomingRequest:
    """One request on its way to its answer."""

    request: Request
    head: RequestHead
    id: str


@dataclass(frozen=True, slots=True)
class OutgoingResponse:
    """One answer on its way out. `server` is who gives it, as the header says; `fault` is what spoiled it."""

    response: Response
    server: str
    action: str = ""
    refused: ApiError | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """`page` is what a browser sees at the root; `record` is told of each request once it has its answer;
    `pause` waits so many seconds, or until the cloud stops."""

    backend: Backend
    signatures: ReplayCache
    page: Callable[[], str]
    record: Callable[[RecordedRequest], None]
    pause: Callable[[float], object]

    def answer(self, request: Request) -> Response:
        """Raises `ConnectionDropped` where a fault wants it."""
        asked = IncomingRequest(request, read_head(request), str(uuid.uuid4()))
        method, path = asked.head.method, asked.head.path
        try:
            given = self._give(asked)
        except ConnectionDropped as cut:
            self.record(RecordedRequest(method, path, cut.action, cut.status, "", asked.id, fault=cut.fault))
            raise
        response, refused = given.response, given.refused
        response.date = self.backend.clock()
        if given.server:
            response.headers["Server"] = given.server
        code, message = (refused.code, refused.message) if refused else ("", "")
        seen = RecordedRequest(
            method, path, given.action, response.status_code, code, asked.id, message, given.fault
        )
        self.record(seen)
        return response

    def _give(self, asked: IncomingRequest) -> OutgoingResponse:
        faults, rules, http = self.backend.faults, self.backend.rules, self.backend.rules.http
        self.pause(faults.value("slow"))
        # These two stand for what lies before the service, or for its absence: nobody there knows who asks,
        # so they are struck by whatever comes, and no signature is remembered.
        if faults.strikes("away"):
            raise ConnectionDropped("away")
        if faults.strikes("down"):
            busy = Response("Service Unavailable\n", status=503)
            return OutgoingResponse(
                busy, "", refused=ApiError("ServiceUnavailable", "It is down"), fault="down"
            )
        path, root = unquote(asked.head.path), asked.head.path == "/"
        under = rules.s3.find_path(path)
        if under == "" and not _is_for(asked.head, rules.s3.names):
            under = None
        elsewhere = root and not _is_for(asked.head, rules.ec2.names)
        if (
            ec2.serves(rules.ec2, path)
            and not elsewhere
            and (under is None or not root or _is_query(asked.head))
        ):
            return self._ec2(asked)
        if root and asked.head.method in ("GET", "HEAD") and "authorization" not in asked.head.headers:
            return OutgoingResponse(Response(self.page(), mimetype="text/html"), "")
        if under is None:
            unknown_path = http.unknown_path
            nothing = Response(
                unknown_path.body, status=unknown_path.status, content_type=unknown_path.content_type
            )
            return OutgoingResponse(nothing, http.ec2_server, refused=ApiError("NotFound", "Nothing is here"))
        return self._s3(asked, path.removeprefix(under).removeprefix("/"))

    def _ec2(self, asked: IncomingRequest) -> OutgoingResponse:
        rules, head, action = self.backend.rules, asked.head, ""
        try:
            body = _read_form(asked.request, head)
            parameters = ec2.read_parameters(head.query, body)
            action = parameters.get("Action", "")
            ec2.authenticate(self.backend, head, parameters, body)
            if rules.ec2.replay_refused:
                self._remember_signature(head, parameters)
            answer = ec2.answer(self.backend, head, parameters, request_id=asked.id)
        except FAILURES as error:
            refused = _as_refused(error)
            written = write_ec2_refusal(refused, rules.ec2.errors, request_id=asked.id)
            response = Response(written.body, status=written.status, content_type=written.content_type)
            return OutgoingResponse(response, rules.http.ec2_server, action, refused)
        drop_answer(self.backend.faults, action)
        return OutgoingResponse(Response(answer, content_type=XML), rules.http.ec2_server, action)

    def _s3(self, asked: IncomingRequest, rest: str) -> OutgoingResponse:
        rules, head, faults = self.backend.rules, asked.head, self.backend.faults
        bucket, _, key = (rest.replace("+", " ") if rules.s3.plus_is_space else rest).partition("/")
        action, refused = s3.operation(head.method, bucket, key, head.query), None
        try:
            _refuse_chunked(head)
            signature = s3.authenticate(self.backend, head)
            if rules.s3.replay_refused:
                self._remember_signature(head, {})
            fail_upload(faults, action, asked.request)
            response = s3.answer(self.backend, asked.request, head, signature, bucket=bucket, key=key)
            fault = falsify_etag(faults, action, response)
        except FAILURES as error:
            refused = _as_refused(error)
            response = _refuse_s3(refused, rules.s3, resource=f"/{rest}", request_id=asked.id)
            fault = refused.fault if isinstance(refused, InjectedError) else ""
        response.headers["x-amz-request-id"] = asked.id
        return OutgoingResponse(response, rules.http.s3_server, action, refused, fault)

    def _remember_signature(self, head: RequestHead, parameters: Mapping[str, str]) -> None:
        """By a request whose sender is known, whatever becomes of it: who was answered with 500 and sends the
        same again is refused."""
        if signature := v2_signature(head, parameters):
            self.signatures.remember(signature, now=self.backend.clock())

    def record_rejected(self, method: str, path: str, status: HTTPStatus, message: str) -> None:
        """Records what the connection refused by itself."""
        code = status.phrase.replace(" ", "").replace("-", "")
        self.record(RecordedRequest(method, path, "", int(status), code, str(uuid.uuid4()), message))


def read_head(request: Request) -> RequestHead:
    """The request's head as sent; a path may come with the host before it."""
    target: str = request.environ["RAW_URI"]
    if not target.startswith("/"):
        parts = urlsplit(target)
        target = f"{parts.path or '/'}?{parts.query}"
    path, _, query = target.partition("?")
    headers = {name.lower(): value for name, value in request.headers.items()}
    return RequestHead(request.method, path, query, headers)


def _is_query(head: RequestHead) -> bool:
    """Whether a request to a root that both halves share is for EC2: S3 has no POST there, and no actions."""
    return head.method == "POST" or any(name == "Action" for name, _ in read_pairs(head.query))


def _is_for(head: RequestHead, names: frozenset[str]) -> bool:
    """Whether a request at a root is for the half with these names, by the host that it names."""
    return not names or head.headers.get("host", "").partition(".")[0].lower() in names


def _refuse_chunked(head: RequestHead) -> None:
    if "transfer-encoding" in head.headers:
        raise ApiError("MissingContentLength", "You must provide the Content-Length HTTP header")


def _read_form(request: Request, head: RequestHead) -> bytes:
    if head.method not in ("GET", "POST"):
        raise ApiError("MethodNotAllowed", f"{head.method} is not a method of this service")
    _refuse_chunked(head)
    if (request.content_length or 0) > ec2.BODY_LIMIT:
        raise ApiError("RequestEntityTooLarge", f"The request's body is larger than {ec2.BODY_LIMIT} bytes")
    return request.get_data()


def _refuse_s3(refused: ApiError, rules: S3Rules, *, resource: str, request_id: str) -> Response:
    if rules.mute and isinstance(refused, Unauthenticated):
        return Response(status=500)
    text = write_s3_error(refused, resource=resource, request_id=request_id)
    return Response(text, status=refused.status, mimetype="application/xml")


def _as_refused(error: Failure) -> ApiError:
    """A client that goes away, and a disk under the cloud that is full or broken, get an answer as well."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ClientDisconnected):
        return ApiError("IncompleteBody", "Fewer bytes came than Content-Length said")
    return ApiError("InternalError", f"The cloud's own disk: {error}")
