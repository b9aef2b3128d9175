"""DescribeInstances, GetConsoleOutput, TerminateInstances.

Without machines an instance goes through its states as it is looked at, and has a recorded console. With
machines the console is the machine's own.
"""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import groupby

from uecwatchd.sandbox.backend import Backend
from uecwatchd.sandbox.ec2.parameters import Action, Parameters, matches, read_filters, read_list, required
from uecwatchd.sandbox.ec2.recorded_consoles import recorded_console
from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.http.responses import Payload, Value
from uecwatchd.sandbox.state.instances import STATE_CODES, Instance, InstanceState, after_look, in_state
from uecwatchd.sandbox.state.registry import Tag

LIVING: tuple[InstanceState, ...] = ("pending", "running")
# A real cloud keeps the end of a console.
CONSOLE_BYTES = 64 * 1024
NO_ADDRESS = "0.0.0.0"  # noqa: S104  # how Eucalyptus writes that there is none


def describe(backend: Backend, parameters: Parameters) -> Payload:
    """Answer DescribeInstances, then bring the instances of the answer one step forward."""
    _follow_machines(backend)
    wanted, filters = read_list(parameters, "InstanceId"), read_filters(parameters)
    tags = backend.registry.tags()
    found = _find(backend, wanted) if wanted else list(backend.registry.instances())
    found = [one for one in found if matches(_facts(one, tags), filters)]
    ordered = sorted(found, key=lambda one: one.reservation)
    groups = groupby(ordered, key=lambda one: one.reservation)
    payload = {"reservationSet": {"item": tuple(reservation(backend, group) for _, group in groups)}}
    look = partial(after_look, stays=backend.faults.strikes("boot-stays"))
    for one in found:
        backend.registry.change_instance(one.id, look)
    return payload


def _follow_machines(backend: Backend) -> None:
    """Bring the instances with a machine into its state."""
    for one in backend.registry.instances():
        if one.script != "machine" or one.state not in LIVING:
            continue
        if backend.machines is None or backend.machines.has_ended(one.id):
            backend.registry.change_instance(one.id, _ended)
        elif one.state == "pending" and backend.machines.is_begun(one.id):
            backend.registry.change_instance(one.id, lambda found: in_state(found, "running"))


def _ended(instance: Instance) -> Instance:
    return replace(in_state(instance, "terminated"), reason="Client.InstanceInitiatedShutdown")


def _find(backend: Backend, wanted: Iterable[str]) -> list[Instance]:
    known = {instance.id: instance for instance in backend.registry.instances()}
    for instance_id in wanted:
        if instance_id not in known:
            raise ApiError("InvalidInstanceID.NotFound", f"The instance id {instance_id} does not exist")
    return [known[instance_id] for instance_id in wanted]


def _facts(instance: Instance, tags: Iterable[Tag]) -> Mapping[str, str]:
    """Return the values that filters compare with."""
    facts = {
        "instance-id": instance.id,
        "reservation-id": instance.reservation,
        "image-id": instance.image,
        "instance-type": instance.type,
        "instance-state-name": instance.state,
        "key-name": instance.key_name,
        "client-token": instance.token,
    }
    return facts | {f"tag:{tag.key}": tag.value for tag in tags if tag.resource == instance.id}


def reservation(backend: Backend, instances: Iterable[Instance]) -> Payload:
    """Return the element of a reservation with these instances."""
    together = tuple(instances)
    return {
        "reservationId": together[0].reservation,
        "ownerId": backend.identity.account,
        "instancesSet": {"item": tuple(_item(backend, instance) for instance in together)},
    }


def _item(backend: Backend, instance: Instance) -> dict[str, Value]:
    living = instance.state in LIVING
    mine = [tag for tag in backend.registry.tags() if tag.resource == instance.id]
    item: dict[str, Value] = {
        "instanceId": instance.id,
        "imageId": instance.image,
        "instanceState": _state(instance.state),
        "instanceType": instance.type,
        "keyName": instance.key_name or None,
        "kernelId": instance.kernel or None,
        "ramdiskId": instance.ramdisk or None,
        "launchTime": instance.started.replace("+00:00", "Z"),
        "rootDeviceType": "instance-store",
        "dnsName": (living and instance.address) or NO_ADDRESS,
        "ipAddress": (living and instance.address) or None,
        "clientToken": (backend.rules.ec2.token_listed and instance.token) or None,
        "tagSet": {"item": tuple({"key": tag.key, "value": tag.value} for tag in mine)} if mine else None,
    }
    if instance.reason:
        item["reason"] = instance.reason
        item["stateReason"] = {"code": instance.reason, "message": f"{instance.reason}: it has ended"}
    return item


def _state(name: InstanceState) -> Mapping[str, Value]:
    return {"code": STATE_CODES[name], "name": name}


def console_output(backend: Backend, parameters: Parameters) -> Payload:
    named = parameters.get("InstanceId") or required(parameters, "InstanceId.1")
    (instance,) = _find(backend, [named])
    if backend.rules.ec2.console_of_running and instance.state != "running":
        raise ApiError("IncorrectInstanceState", f"Instance {named} is not in a running state.")
    if instance.script == "machine":
        console = backend.machines.console(named) if backend.machines else b""
    else:
        console = recorded_console(instance).encode()
        backend.registry.change_instance(named, lambda one: replace(one, reads=one.reads + 1))
    output = base64.b64encode(console[-CONSOLE_BYTES:]).decode()
    return {"instanceId": named, "timestamp": instance.started.replace("+00:00", "Z"), "output": output}


def terminate(backend: Backend, parameters: Parameters) -> Payload:
    required(parameters, "InstanceId.1")
    changes: list[Value] = []
    for instance in _find(backend, read_list(parameters, "InstanceId")):
        if instance.state in LIVING:
            backend.registry.change_instance(instance.id, lambda one: in_state(one, "shutting-down"))
            if backend.machines and instance.script == "machine":
                backend.machines.stop(instance.id)
        (now,) = _find(backend, [instance.id])
        before, after = _state(instance.state), _state(now.state)
        changes.append({"instanceId": instance.id, "currentState": after, "previousState": before})
    return {"instancesSet": {"item": tuple(changes)}}


ACTIONS: Mapping[str, Action] = {
    "DescribeInstances": describe,
    "GetConsoleOutput": console_output,
    "TerminateInstances": terminate,
}
