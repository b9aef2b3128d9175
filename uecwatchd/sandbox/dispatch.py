"""The counter: takes a request, finds out for which half it is, and hands out the answer or the refusal."""

import sqlite3
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote, urlsplit

from werkzeug.exceptions import ClientDisconnected
from werkzeug.wrappers import Request, Response

from uecwatchd.sandbox.backend import Realm
from uecwatchd.sandbox.ec2 import actions as ec2
from uecwatchd.sandbox.errors import Refused
from uecwatchd.sandbox.http.connection import Severed
from uecwatchd.sandbox.http.fault_injection import Spoiled, lose_answer, spoil_etag, spoil_upload
from uecwatchd.sandbox.http.replay import Signatures
from uecwatchd.sandbox.http.responses import XML, write_ec2_refusal, write_s3_error
from uecwatchd.sandbox.http.signature import Unproven, Wire, read_pairs, v2_signature
from uecwatchd.sandbox.rules.s3 import S3Rules
from uecwatchd.sandbox.s3 import operations as s3

Failure = Refused | ClientDisconnected | OSError | sqlite3.Error
FAILURES = (Refused, ClientDisconnected, OSError, sqlite3.Error)


@dataclass(frozen=True, slots=True)
class Seen:
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
class Asked:
    """One request on its way to its answer."""

    request: Request
    wire: Wire
    id: str


@dataclass(frozen=True, slots=True)
class Given:
    """One answer on its way out. `server` is who gives it, as the header says; `fault` is what spoiled it."""

    response: Response
    server: str
    action: str = ""
    refused: Refused | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Front:
    """`page` is what a browser sees at the root; `record` is told of each request once it has its answer;
    `pause` waits so many seconds, or until the cloud stops."""

    realm: Realm
    signatures: Signatures
    page: Callable[[], str]
    record: Callable[[Seen], None]
    pause: Callable[[float], object]

    def answer(self, request: Request) -> Response:
        """Raises `Severed` where a fault wants it."""
        asked = Asked(request, read_wire(request), str(uuid.uuid4()))
        method, path = asked.wire.method, asked.wire.path
        try:
            given = self._give(asked)
        except Severed as cut:
            self.record(Seen(method, path, cut.action, cut.status, "", asked.id, fault=cut.fault))
            raise
        response, refused = given.response, given.refused
        response.date = self.realm.clock()
        if given.server:
            response.headers["Server"] = given.server
        code, message = (refused.code, refused.message) if refused else ("", "")
        seen = Seen(method, path, given.action, response.status_code, code, asked.id, message, given.fault)
        self.record(seen)
        return response

    def _give(self, asked: Asked) -> Given:
        faults, rules, line = self.realm.faults, self.realm.rules, self.realm.rules.line
        self.pause(faults.value("slow"))
        # These two stand for what lies before the service, or for its absence: nobody there knows who asks,
        # so they are struck by whatever comes, and no signature is remembered.
        if faults.strikes("away"):
            raise Severed("away")
        if faults.strikes("down"):
            busy = Response("Service Unavailable\n", status=503)
            return Given(busy, "", refused=Refused("ServiceUnavailable", "It is down"), fault="down")
        path, root = unquote(asked.wire.path), asked.wire.path == "/"
        under = rules.s3.find_path(path)
        if under == "" and not _is_for(asked.wire, rules.s3.names):
            under = None
        elsewhere = root and not _is_for(asked.wire, rules.ec2.names)
        if (
            ec2.serves(rules.ec2, path)
            and not elsewhere
            and (under is None or not root or _is_query(asked.wire))
        ):
            return self._ec2(asked)
        if root and asked.wire.method in ("GET", "HEAD") and "authorization" not in asked.wire.headers:
            return Given(Response(self.page(), mimetype="text/html"), "")
        if under is None:
            nowhere = line.nowhere
            nothing = Response(nowhere.body, status=nowhere.status, content_type=nowhere.content_type)
            return Given(nothing, line.ec2_server, refused=Refused("NotFound", "Nothing is here"))
        return self._s3(asked, path.removeprefix(under).removeprefix("/"))

    def _ec2(self, asked: Asked) -> Given:
        rules, wire, action = self.realm.rules, asked.wire, ""
        try:
            body = _read_form(asked.request, wire)
            parameters = ec2.read_parameters(wire.query, body)
            action = parameters.get("Action", "")
            ec2.authenticate(self.realm, wire, parameters, body)
            if rules.ec2.replay_refused:
                self._use_up(wire, parameters)
            answer = ec2.answer(self.realm, wire, parameters, request_id=asked.id)
        except FAILURES as error:
            refused = _as_refused(error)
            written = write_ec2_refusal(refused, rules.ec2.errors, request_id=asked.id)
            response = Response(written.body, status=written.status, content_type=written.content_type)
            return Given(response, rules.line.ec2_server, action, refused)
        lose_answer(self.realm.faults, action)
        return Given(Response(answer, content_type=XML), rules.line.ec2_server, action)

    def _s3(self, asked: Asked, rest: str) -> Given:
        rules, wire, faults = self.realm.rules, asked.wire, self.realm.faults
        bucket, _, key = (rest.replace("+", " ") if rules.s3.plus_is_space else rest).partition("/")
        action, refused = s3.operation(wire.method, bucket, key, wire.query), None
        try:
            _refuse_chunked(wire)
            proof = s3.authenticate(self.realm, wire)
            if rules.s3.replay_refused:
                self._use_up(wire, {})
            spoil_upload(faults, action, asked.request)
            response = s3.answer(self.realm, asked.request, wire, proof, bucket=bucket, key=key)
            fault = spoil_etag(faults, action, response)
        except FAILURES as error:
            refused = _as_refused(error)
            response = _refuse_s3(refused, rules.s3, resource=f"/{rest}", request_id=asked.id)
            fault = refused.fault if isinstance(refused, Spoiled) else ""
        response.headers["x-amz-request-id"] = asked.id
        return Given(response, rules.line.s3_server, action, refused, fault)

    def _use_up(self, wire: Wire, parameters: Mapping[str, str]) -> None:
        """By a request whose sender is known, whatever becomes of it: who was answered with 500 and sends the
        same again is refused."""
        if signature := v2_signature(wire, parameters):
            self.signatures.use_up(signature, now=self.realm.clock())

    def turn_away(self, method: str, path: str, status: HTTPStatus, message: str) -> None:
        """Records what the connection refused by itself."""
        code = status.phrase.replace(" ", "").replace("-", "")
        self.record(Seen(method, path, "", int(status), code, str(uuid.uuid4()), message))


def read_wire(request: Request) -> Wire:
    """The request's head as sent; a path may come with the host before it."""
    target: str = request.environ["RAW_URI"]
    if not target.startswith("/"):
        parts = urlsplit(target)
        target = f"{parts.path or '/'}?{parts.query}"
    path, _, query = target.partition("?")
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Wire(request.method, path, query, headers)


def _is_query(wire: Wire) -> bool:
    """Whether a request to a root that both halves share is for EC2: S3 has no POST there, and no actions."""
    return wire.method == "POST" or any(name == "Action" for name, _ in read_pairs(wire.query))


def _is_for(wire: Wire, names: frozenset[str]) -> bool:
    """Whether a request at a root is for the half with these names, by the host that it names."""
    return not names or wire.headers.get("host", "").partition(".")[0].lower() in names


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


def _refuse_s3(refused: Refused, rules: S3Rules, *, resource: str, request_id: str) -> Response:
    if rules.mute and isinstance(refused, Unproven):
        return Response(status=500)
    text = write_s3_error(refused, resource=resource, request_id=request_id)
    return Response(text, status=refused.status, mimetype="application/xml")


def _as_refused(error: Failure) -> Refused:
    """A client that goes away, and a disk under the cloud that is full or broken, get an answer as well."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, ClientDisconnected):
        return Refused("IncompleteBody", "Fewer bytes came than Content-Length said")
    return Refused("InternalError", f"The cloud's own disk: {error}")
