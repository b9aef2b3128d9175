"""RunInstances, DescribeInstances, GetConsoleOutput, TerminateInstances.

No machine is started. RunInstances checks what a node finds out before it boots: that manifest and parts of
the image, its kernel and its ramdisk are still those that were registered.
"""

import base64
import re
from collections.abc import Iterable, Mapping
from itertools import groupby

from uecwatchd.sandbox.backend import Backend
from uecwatchd.sandbox.ec2 import bundle_checks, images
from uecwatchd.sandbox.ec2.parameters import Action, Parameters, read_list, required
from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.http.responses import Payload, Value
from uecwatchd.sandbox.state.registry import Instance

STATE_CODES = {"running": 16, "terminated": 48}
MOST_AT_ONCE = 20  # EC2's first quota
COUNT = re.compile(r"[1-9][0-9]?")


def run(backend: Backend, parameters: Parameters) -> Payload:
    image = images.find(backend, required(parameters, "ImageId"))
    if image.type != "machine":
        raise ApiError("InvalidAMIID.Malformed", f"{image.id} is a {image.type}, not a machine image")
    if image.state != "available":
        raise ApiError("InvalidAMIID.Unavailable", f"The image id {image.id} is {image.state}, not available")
    count = _read_count(parameters)
    members = [image] + [images.find(backend, member) for member in (image.kernel, image.ramdisk) if member]
    for member in members:
        sha256 = member.manifest_sha256
        bundle_checks.recheck(
            backend.store, backend.identity, backend.rules.ec2, member.location, manifest_sha256=sha256
        )
    draft = Instance(
        id="",
        reservation="",
        image=image.id,
        kernel=image.kernel,
        ramdisk=image.ramdisk,
        type=parameters.get("InstanceType", "m1.small"),
        key_name=parameters.get("KeyName", ""),
        state="running",
        started=backend.clock().isoformat(timespec="milliseconds"),
        console="".join(f"{member.id} {member.location}: verified\n" for member in members)
        + "This is a test cloud: it boots nothing.\n",
    )
    return _reservation(backend, backend.registry.add_instances(draft, count=count))


def _read_count(parameters: Parameters) -> int:
    least, most = required(parameters, "MinCount"), required(parameters, "MaxCount")
    if not COUNT.fullmatch(least) or not COUNT.fullmatch(most) or not int(least) <= int(most) <= MOST_AT_ONCE:
        raise ApiError("InvalidParameterValue", f"MinCount and MaxCount go from 1 to {MOST_AT_ONCE}")
    return int(most)


def describe(backend: Backend, parameters: Parameters) -> Payload:
    wanted = read_list(parameters, "InstanceId")
    found = _find(backend, wanted) if wanted else backend.registry.instances()
    ordered = sorted(found, key=lambda one: one.reservation)
    groups = groupby(ordered, key=lambda one: one.reservation)
    return {"reservationSet": {"item": tuple(_reservation(backend, group) for _, group in groups)}}


def _find(backend: Backend, wanted: Iterable[str]) -> list[Instance]:
    known = {instance.id: instance for instance in backend.registry.instances()}
    for instance_id in wanted:
        if instance_id not in known:
            raise ApiError("InvalidInstanceID.NotFound", f"The instance id {instance_id} does not exist")
    return [known[instance_id] for instance_id in wanted]


def _reservation(backend: Backend, instances: Iterable[Instance]) -> Payload:
    together = tuple(instances)
    return {
        "reservationId": together[0].reservation,
        "ownerId": backend.identity.account,
        "instancesSet": {"item": tuple(_item(instance) for instance in together)},
    }


def _item(instance: Instance) -> dict[str, Value]:
    return {
        "instanceId": instance.id,
        "imageId": instance.image,
        "instanceState": _state(instance.state),
        "instanceType": instance.type,
        "keyName": instance.key_name or None,
        "kernelId": instance.kernel or None,
        "ramdiskId": instance.ramdisk or None,
        "launchTime": instance.started.replace("+00:00", "Z"),
        "rootDeviceType": "instance-store",
    }


def _state(name: str) -> Mapping[str, Value]:
    return {"code": STATE_CODES[name], "name": name}


def console_output(backend: Backend, parameters: Parameters) -> Payload:
    (instance,) = _find(backend, [required(parameters, "InstanceId")])
    output = base64.b64encode(instance.console.encode()).decode()
    return {"instanceId": instance.id, "timestamp": instance.started.replace("+00:00", "Z"), "output": output}


def terminate(backend: Backend, parameters: Parameters) -> Payload:
    required(parameters, "InstanceId.1")
    changes: list[Value] = []
    for instance in _find(backend, read_list(parameters, "InstanceId")):
        backend.registry.set_instance_state(instance.id, "terminated")
        before, after = _state(instance.state), _state("terminated")
        changes.append({"instanceId": instance.id, "currentState": after, "previousState": before})
    return {"instancesSet": {"item": tuple(changes)}}


ACTIONS: Mapping[str, Action] = {
    "RunInstances": run,
    "DescribeInstances": describe,
    "GetConsoleOutput": console_output,
    "TerminateInstances": terminate,
}
