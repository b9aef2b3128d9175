"""The EC2 half: one Query API request, from its parameters to its answer."""

from collections.abc import Mapping
from urllib.parse import unquote, unquote_plus

from uecwatchd.sandbox.backend import Backend
from uecwatchd.sandbox.ec2 import (
    certificates,
    images,
    instances,
    launch,
    registration,
    retirement,
    stubs,
    tags,
)
from uecwatchd.sandbox.ec2.parameters import Action, Parameters, refuse_unknown, required
from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.http.head import RequestHead, read_pairs
from uecwatchd.sandbox.http.responses import EC2_NAMESPACE, EMPYREAN_NAMESPACE, write_ec2
from uecwatchd.sandbox.http.signature import check_ec2
from uecwatchd.sandbox.rules import ec2_actions
from uecwatchd.sandbox.rules.ec2 import Ec2Rules
from uecwatchd.sandbox.rules.ec2_actions import Actions

# The largest thing a request may carry is 16 KiB of user data.
BODY_LIMIT = 64 * 1024

ACTIONS: Mapping[str, Action] = {
    **registration.ACTIONS,
    **images.ACTIONS,
    **tags.ACTIONS,
    **launch.ACTIONS,
    **retirement.ACTIONS,
    **instances.ACTIONS,
    **certificates.ACTIONS,
    **stubs.ACTIONS,
}


def serves(rules: Ec2Rules, path: str) -> bool:
    """Tell if a path, without percent signs, belongs to this half."""
    return bool(_actions(rules, path))


def _actions(rules: Ec2Rules, path: str) -> Actions:
    bare = path.rstrip("/") or "/"
    if bare == rules.certificates_path:
        return ec2_actions.CERTIFICATES
    return rules.actions if bare in rules.paths else {}


def read_parameters(query: str, body: bytes) -> Parameters:
    """Read the parameters of the URL and of the form together.

    A form writes a space as a plus; in a URL a plus is a plus.
    """
    form = (item.partition("=") for item in body.decode("utf-8", "replace").split("&") if item)
    pairs = [*read_pairs(query), *((unquote_plus(name), unquote_plus(value)) for name, _, value in form)]
    if len(dict(pairs)) != len(pairs):
        raise ApiError("InvalidParameterCombination", "A parameter occurs twice")
    return dict(pairs)


def authenticate(backend: Backend, head: RequestHead, parameters: Parameters, body: bytes) -> None:
    """Check who signed the request. Raises `Unauthenticated`."""
    check_ec2(head, parameters, body, secrets=backend.secrets, now=backend.clock(), rules=backend.rules.ec2)


def answer(backend: Backend, head: RequestHead, parameters: Parameters, *, request_id: str) -> bytes:
    """Carry out the action and return the answer's XML. Raises `ApiError`."""
    rules = backend.rules.ec2
    name = required(parameters, "Action")
    required(parameters, "Version")
    actions = _actions(rules, unquote(head.path))
    if name not in actions:
        raise ApiError("InvalidAction", rules.errors.unbound_action.format(name=name))
    refuse_unknown(parameters, actions[name], complaint=rules.errors.unbound_parameter)
    payload = ACTIONS[name](backend, parameters)
    namespace = EC2_NAMESPACE if actions is rules.actions else EMPYREAN_NAMESPACE
    return write_ec2(name, payload, request_id=request_id, namespace=namespace)
