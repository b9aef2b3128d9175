"""CopyImage, ImportImage, ImportSnapshot: answered with success and without an id; they do nothing."""

from collections.abc import Mapping

from uecwatchd.sandbox.backend import Backend
from uecwatchd.sandbox.ec2.parameters import Action, Parameters
from uecwatchd.sandbox.http.responses import Payload
from uecwatchd.sandbox.rules.ec2_actions import HOLLOW


def do_nothing(backend: Backend, parameters: Parameters) -> Payload:
    del backend, parameters
    return {}


ACTIONS: Mapping[str, Action] = dict.fromkeys(HOLLOW, do_nothing)
