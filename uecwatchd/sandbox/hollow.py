"""CopyImage, ImportImage, ImportSnapshot: answered with success and without an id, and nothing is done."""

from collections.abc import Mapping

from uecwatchd.sandbox.ec2_actions import HOLLOW
from uecwatchd.sandbox.parameters import Action, Parameters
from uecwatchd.sandbox.realm import Realm
from uecwatchd.sandbox.reply import Payload


def do_nothing(realm: Realm, parameters: Parameters) -> Payload:
    del realm, parameters
    return {}


ACTIONS: Mapping[str, Action] = dict.fromkeys(HOLLOW, do_nothing)
