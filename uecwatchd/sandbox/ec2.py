"""The EC2 half: one Query API request, from its parameters to its answer."""

from collections.abc import Mapping
from urllib.parse import unquote_plus

from uecwatchd.sandbox import images, instances, tags
from uecwatchd.sandbox.parameters import Action, Parameters, refuse_unknown, required
from uecwatchd.sandbox.realm import Realm
from uecwatchd.sandbox.refusal import Refused
from uecwatchd.sandbox.reply import write_ec2
from uecwatchd.sandbox.signature import Wire, check_ec2, read_pairs

# The largest thing a request may carry is 16 KiB of user data.
BODY_LIMIT = 64 * 1024

ACTIONS: Mapping[str, Action] = {**images.ACTIONS, **tags.ACTIONS, **instances.ACTIONS}


def read_parameters(query: str, body: bytes) -> Parameters:
    """Those of the URL and of the form together. A form writes a space as a plus, a URL need not."""
    form = (item.partition("=") for item in body.decode("utf-8", "replace").split("&") if item)
    pairs = [*read_pairs(query), *((unquote_plus(name), unquote_plus(value)) for name, _, value in form)]
    if len(dict(pairs)) != len(pairs):
        raise Refused("InvalidParameterCombination", "A parameter occurs twice")
    return dict(pairs)


def answer(realm: Realm, wire: Wire, parameters: Parameters, body: bytes, *, request_id: str) -> bytes:
    """The answer's XML. Raises `Refused`."""
    check_ec2(wire, parameters, body, secrets=realm.secrets, now=realm.clock(), rules=realm.rules.ec2)
    name = required(parameters, "Action")
    required(parameters, "Version")
    if name not in ACTIONS:
        raise Refused("InvalidAction", f"The action {name} is not valid for this web service")
    refuse_unknown(parameters, ACTIONS[name].known)
    return write_ec2(name, ACTIONS[name].run(realm, parameters), request_id=request_id)
