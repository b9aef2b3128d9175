"""RunInstances: the checks of a node before it boots, and the fate of the instance.

Manifest and parts of the image, its kernel and its ramdisk must still be those that were registered. A token
of the client makes a repeated request one request.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from uecwatchd.sandbox.backend import Backend
from uecwatchd.sandbox.ec2 import boot_files, bundle_checks, images, tags
from uecwatchd.sandbox.ec2.instances import reservation
from uecwatchd.sandbox.ec2.parameters import Action, Parameters, required
from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.http.responses import Payload
from uecwatchd.sandbox.rules.ec2_actions import COMMON
from uecwatchd.sandbox.state.instances import Instance, Script
from uecwatchd.sandbox.state.registry import RegisteredImage

DEFAULT_TYPE = "m1.small"
SHUTDOWN_BEHAVIORS = ("stop", "terminate")
MOST_AT_ONCE = 20  # EC2's first quota
COUNT = re.compile(r"[1-9][0-9]?")
TOKEN_LENGTH = 64
ADDRESS = "127.0.0.1"
# The fate of an instance, by the fault that decides it when it is started.
SCRIPTS: dict[str, Script] = {
    "boot-pending": "pending",
    "boot-silent": "silent",
    "boot-never": "never",
    "boot-panics": "panics",
    "boot-ends": "ends",
}


def run(backend: Backend, parameters: Parameters) -> Payload:
    if backend.faults.strikes("boot-forbidden"):
        raise ApiError("UnauthorizedOperation", "You are not authorized to perform this operation.")
    token, request = parameters.get("ClientToken", ""), _digest(parameters)
    if len(token) > TOKEN_LENGTH or not token.isascii():
        raise ApiError("InvalidParameterValue", f"A client token has {TOKEN_LENGTH} ASCII characters at most")
    if known := [one for one in backend.registry.instances() if token and one.token == token]:
        if known[0].request != request:
            why = "The client token was used before, with other parameters"
            raise ApiError("IdempotentParameterMismatch", why)
        return reservation(backend, known)
    members = _members(backend, required(parameters, "ImageId"))
    count = _read_count(parameters)
    _check_words(backend, parameters)
    for member in members:
        bundle_checks.recheck(
            backend.store,
            backend.identity,
            backend.rules.ec2,
            member.location,
            manifest_sha256=member.manifest_sha256,
        )
    wanted = tags.read_launch_tags(parameters)
    if parameters.get("DryRun") == "true":
        raise ApiError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
    draft = replace(_draft(backend, parameters, members), token=token, request=request)
    started = backend.registry.add_instances(draft, count=count)
    tags.add_launch_tags(backend, wanted, [one.id for one in started])
    for one in started:
        if backend.machines and one.script == "machine":
            backend.machines.start(one.id, partial(boot_files.unbundle_members, backend, members))
    return reservation(backend, started)


def _digest(parameters: Parameters) -> str:
    """Return a digest of a request without its signature."""
    own = sorted((name, value) for name, value in parameters.items() if name not in COMMON)
    return hashlib.sha256(json.dumps(own).encode()).hexdigest()


def _members(backend: Backend, image_id: str) -> Sequence[RegisteredImage]:
    """Return the image and what it boots with. Raises `ApiError` if it cannot be started."""
    image = images.find(backend, image_id)
    if image.type != "machine":
        raise ApiError("InvalidAMIID.Malformed", f"{image.id} is a {image.type}, not a machine image")
    if image.state != "available":
        raise ApiError("InvalidAMIID.Unavailable", f"The image id {image.id} is {image.state}, not available")
    return [image] + [images.find(backend, member) for member in (image.kernel, image.ramdisk) if member]


def _read_count(parameters: Parameters) -> int:
    least, most = required(parameters, "MinCount"), required(parameters, "MaxCount")
    if not COUNT.fullmatch(least) or not COUNT.fullmatch(most) or not int(least) <= int(most) <= MOST_AT_ONCE:
        raise ApiError("InvalidParameterValue", f"MinCount and MaxCount go from 1 to {MOST_AT_ONCE}")
    return int(most)


def _check_words(backend: Backend, parameters: Parameters) -> None:
    rules = backend.rules.ec2
    type_ = parameters.get("InstanceType", DEFAULT_TYPE)
    if type_ not in rules.instance_types:
        raise ApiError("InvalidParameterValue", rules.unknown_type.format(name=type_))
    behavior = parameters.get("InstanceInitiatedShutdownBehavior", "stop")
    if behavior not in SHUTDOWN_BEHAVIORS:
        raise ApiError("InvalidParameterValue", f"InstanceInitiatedShutdownBehavior cannot be {behavior}")
    if backend.faults.strikes("boot-quota"):
        raise ApiError("InstanceLimitExceeded", rules.no_room)


def _draft(backend: Backend, parameters: Parameters, members: Sequence[RegisteredImage]) -> Instance:
    image = members[0]
    struck = next((script for name, script in SCRIPTS.items() if backend.faults.strikes(name)), None)
    return Instance(
        id="",
        reservation="",
        image=image.id,
        kernel=image.kernel,
        ramdisk=image.ramdisk,
        type=parameters.get("InstanceType", DEFAULT_TYPE),
        key_name=parameters.get("KeyName", ""),
        state="pending",
        started=backend.clock().isoformat(timespec="milliseconds"),
        console="".join(f"{member.id} {member.location}: verified\n" for member in members),
        token="",
        request="",
        script=struck or ("machine" if backend.machines else "boots"),
        looks=0,
        reads=0,
        address=ADDRESS if backend.faults.strikes("boot-address") else "",
        reason="",
    )


ACTIONS: dict[str, Action] = {"RunInstances": run}
