"""Effects of armed faults on requests and their answers."""

import hashlib

from werkzeug.wrappers import Request, Response

from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.faults import Faults
from uecwatchd.sandbox.http.connection import ConnectionDropped

LOST_ANSWERS = {"RegisterImage": "lost-answer", "RunInstances": "lost-launch"}
REFUSALS = {
    "put-500": "InternalError",
    "put-503": "SlowDown",
    "put-503-every": "SlowDown",
    "delete-500": "InternalError",
    "get-forbidden": "AccessDenied",
}
OF_OBJECTS = {"DeleteObject": "delete-500", "GetObject": "get-forbidden"}
OF_UPLOADS = ("put-500", "put-503", "put-503-every")


class InjectedError(ApiError):
    """An error that is not the client's fault."""

    def __init__(self, fault: str) -> None:
        super().__init__(REFUSALS[fault], "Please try again")
        self.fault = fault


def fail_request(faults: Faults, action: str, request: Request) -> None:
    """Let an armed fault strike a request about an object: the sender is known, and nothing has changed yet.

    Raises `InjectedError` or `ConnectionDropped`: when a fault strikes.
    """
    of_object = OF_OBJECTS.get(action)
    if of_object and faults.strikes(of_object):
        raise InjectedError(of_object)
    if action != "PutObject":
        return
    for name in OF_UPLOADS:
        if faults.strikes_one_in(name) if name.endswith("-every") else faults.strikes(name):
            raise InjectedError(name)
    if faults.strikes("reset-in-body"):
        if half := (request.content_length or 0) // 2:  # to read nothing counts as a body that ended early
            request.stream.read(half)
        raise ConnectionDropped("reset-in-body", action=action)


def falsify_etag(faults: Faults, action: str, response: Response) -> str:
    """Change the ETag of an upload's answer, if that fault strikes, and return the fault's name."""
    if action != "PutObject" or not faults.strikes("wrong-etag"):
        return ""
    wrong = hashlib.md5(response.headers["ETag"].encode(), usedforsecurity=False).hexdigest()
    response.headers["ETag"] = f'"{wrong}"'
    return "wrong-etag"


def drop_answer(faults: Faults, action: str) -> None:
    """Let an armed fault take the answer to an action that is done. Raises `ConnectionDropped`."""
    fault = LOST_ANSWERS.get(action)
    if fault and faults.strikes(fault):
        raise ConnectionDropped(fault, action=action, status=200)
