"""From a request to its answer: finds the half of the cloud that serves it, and records both."""

import sqlite3
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote

from werkzeug.exceptions import ClientDisconnected
from werkzeug.wrappers import Request, Response

from uecwatchd.sandbox.backend import Backend
from uecwatchd.sandbox.ec2 import actions as ec2
from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.http.connection import ConnectionDropped
from uecwatchd.sandbox.http.fault_injection import InjectedError, drop_answer, fail_request, falsify_etag
from uecwatchd.sandbox.http.head import RequestHead, read_head, read_pairs
from uecwatchd.sandbox.http.replay import ReplayCache
from uecwatchd.sandbox.http.responses import XML, write_ec2_refusal, write_s3_error
from uecwatchd.sandbox.http.signature import Unauthenticated, v2_signature
from uecwatchd.sandbox.rules.s3 import S3Rules
from uecwatchd.sandbox.s3 import operations as s3
from uecwatchd.sandbox.ssm import operations as ssm

Failure = ApiError | ClientDisconnected | OSError | sqlite3.Error
FAILURES = (ApiError, ClientDisconnected, OSError, sqlite3.Error)


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One request and its answer.

    `path` is as sent, without its query; like `method` it is empty if it could not be read. `action` is the
    EC2 action or the S3 operation, or empty; `status` is 0 if there was no answer. `code` and `message` are
    the refusal's and may say more than the answer; both are empty on success. `fault` is the fault
    that struck, or empty.
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
    """One request before it is answered."""

    request: Request
    head: RequestHead
    id: str


@dataclass(frozen=True, slots=True)
class OutgoingResponse:
    """One answer before it is sent. `server` is its Server header; `fault` the fault that struck."""

    response: Response
    server: str
    action: str = ""
    refused: ApiError | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Router:
    """Router of each request to the half of the cloud that serves it; it records the answer too.

    `page` makes the page for browsers at the root. `record` receives each request once it has its answer.
    `pause` waits so many seconds, or until the cloud stops.
    """

    backend: Backend
    signatures: ReplayCache
    page: Callable[[], str]
    record: Callable[[RecordedRequest], None]
    pause: Callable[[float], object]

    def answer(self, request: Request) -> Response:
        """Answer one request and record it. Raises `ConnectionDropped`: when a fault wants no answer."""
        incoming = IncomingRequest(request, read_head(request), str(uuid.uuid4()))
        try:
            outgoing = self._strike() or self._route(incoming)
        except ConnectionDropped as dropped:
            self._record(incoming, dropped.action, dropped.status, fault=dropped.fault)
            raise
        response = outgoing.response
        response.date = self.backend.clock()
        if outgoing.server:
            response.headers["Server"] = outgoing.server
        self._record(incoming, outgoing.action, response.status_code, outgoing.refused, fault=outgoing.fault)
        return response

    def _record(
        self,
        incoming: IncomingRequest,
        action: str,
        status: int,
        refused: ApiError | None = None,
        *,
        fault: str,
    ) -> None:
        code, message = (refused.code, refused.message) if refused else ("", "")
        method, path = incoming.head.method, incoming.head.path
        self.record(RecordedRequest(method, path, action, status, code, incoming.id, message, fault))

    def _strike(self) -> OutgoingResponse | None:
        """Delay or refuse a request as a machine in front of the service would, or an absent service.

        Such a machine does not know the sender: any request is struck, and no signature is remembered.
        """
        faults = self.backend.faults
        self.pause(faults.value("slow"))
        if faults.strikes("away"):
            raise ConnectionDropped("away")
        if faults.strikes("down"):
            busy = Response("Service Unavailable\n", status=503)
            refused = ApiError("ServiceUnavailable", "It is down")
            return OutgoingResponse(busy, "", refused=refused, fault="down")
        return None

    def _route(self, incoming: IncomingRequest) -> OutgoingResponse:
        """Find the half of the cloud that serves the request, by path, host and parameters."""
        rules, head = self.backend.rules, incoming.head
        path, is_root = unquote(head.path), head.path == "/"
        if rules.parameters and is_root and ssm.action_of(head):
            return self._ssm(incoming)
        s3_path = rules.s3.find_path(path)
        if s3_path == "" and not _is_for(head, rules.s3.names):
            s3_path = None
        is_ec2 = ec2.serves(rules.ec2, path) and (not is_root or _is_for(head, rules.ec2.names))
        if is_ec2 and (s3_path is None or not is_root or _is_query(head)):
            return self._ec2(incoming)
        if is_root and head.method in ("GET", "HEAD") and "authorization" not in head.headers:
            return OutgoingResponse(Response(self.page(), mimetype="text/html"), "")
        if s3_path is None:
            unknown = rules.http.unknown_path
            response = Response(unknown.body, status=unknown.status, content_type=unknown.content_type)
            refused = ApiError("NotFound", "Nothing is here")
            return OutgoingResponse(response, rules.http.ec2_server, refused=refused)
        return self._s3(incoming, path.removeprefix(s3_path).removeprefix("/"))

    def _ec2(self, incoming: IncomingRequest) -> OutgoingResponse:
        rules, head, action = self.backend.rules, incoming.head, ""
        try:
            body = _read_form(incoming.request, head)
            parameters = ec2.read_parameters(head.query, body)
            action = parameters.get("Action", "")
            ec2.authenticate(self.backend, head, parameters, body)
            if rules.ec2.replay_refused:
                self._remember_signature(head, parameters)
            answer = ec2.answer(self.backend, head, parameters, request_id=incoming.id)
        except FAILURES as error:
            refused = _as_refused(error)
            written = write_ec2_refusal(refused, rules.ec2.errors, request_id=incoming.id)
            response = Response(written.body, status=written.status, content_type=written.content_type)
            return OutgoingResponse(response, rules.http.ec2_server, action, refused)
        drop_answer(self.backend.faults, action)
        return OutgoingResponse(Response(answer, content_type=XML), rules.http.ec2_server, action)

    def _ssm(self, incoming: IncomingRequest) -> OutgoingResponse:
        action, refused = ssm.action_of(incoming.head), None
        try:
            body = _read_form(incoming.request, incoming.head)
            ssm.authenticate(self.backend, incoming.head, body)
            response = ssm.answer(self.backend, action, body)
        except FAILURES as error:
            refused = _as_refused(error)
            response = ssm.refuse(refused)
        return OutgoingResponse(response, self.backend.rules.http.ec2_server, action, refused)

    def _s3(self, incoming: IncomingRequest, rest: str) -> OutgoingResponse:
        rules, head, faults = self.backend.rules, incoming.head, self.backend.faults
        bucket, _, key = (rest.replace("+", " ") if rules.s3.plus_is_space else rest).partition("/")
        action, refused = s3.operation(head.method, bucket, key, head.query), None
        try:
            _refuse_chunked(head)
            signature = s3.authenticate(self.backend, head)
            if rules.s3.replay_refused:
                self._remember_signature(head, {})
            fail_request(faults, action, incoming.request)
            response = s3.answer(self.backend, incoming.request, head, signature, bucket=bucket, key=key)
            fault = falsify_etag(faults, action, response)
        except FAILURES as error:
            refused = _as_refused(error)
            response = _refuse_s3(refused, rules.s3, resource=f"/{rest}", request_id=incoming.id)
            fault = refused.fault if isinstance(refused, InjectedError) else ""
        response.headers["x-amz-request-id"] = incoming.id
        return OutgoingResponse(response, rules.http.s3_server, action, refused, fault)

    def _remember_signature(self, head: RequestHead, parameters: Mapping[str, str]) -> None:
        """Remember the version 2 signature of a request whose sender is known, whatever its answer is.

        A client that was answered with 500 and sends the same bytes again is therefore refused.
        """
        if signature := v2_signature(head, parameters):
            self.signatures.remember(signature, now=self.backend.clock())

    def record_rejected(self, method: str, path: str, status: HTTPStatus, message: str) -> None:
        """Record a request that the connection refused by itself."""
        code = status.phrase.replace(" ", "").replace("-", "")
        self.record(RecordedRequest(method, path, "", int(status), code, str(uuid.uuid4()), message))


def _is_query(head: RequestHead) -> bool:
    """Tell if a request to a shared root is for EC2: S3 has no POST and no Action there."""
    return head.method == "POST" or any(name == "Action" for name, _ in read_pairs(head.query))


def _is_for(head: RequestHead, names: frozenset[str]) -> bool:
    """Tell from the Host header if a request at a root is for the half with these names."""
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
    if rules.auth_failure_empty and isinstance(refused, Unauthenticated):
        return Response(status=500)
    text = write_s3_error(refused, resource=resource, request_id=request_id)
    return Response(text, status=refused.status, mimetype="application/xml")


def _as_refused(error: Failure) -> ApiError:
    """Turn a client that went away, or a full or broken disk under the cloud, into an error answer."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ClientDisconnected):
        return ApiError("IncompleteBody", "Fewer bytes came than Content-Length said")
    return ApiError("InternalError", f"The cloud's own disk: {error}")
