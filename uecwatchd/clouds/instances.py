"""Instances of an image: start one, look at it, read its console, terminate it.

An instance is found again after a crash in the way that its cloud allows: by the token that it was requested
with, where the cloud shows that; by a tag; otherwise by its image, since it was not there before the request.

A console is what some stranger's image has written: any bytes, of which the end is read.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.errors.launch_table import LAUNCH_ROWS
from uecwatchd.clouds.errors.translate import code_of, translated
from uecwatchd.errors import CloudAway
from uecwatchd.system import failpoints

# Of whatever generation.
INSTANCE_ID = re.compile(r"i-([0-9A-Fa-f]{8}|[0-9A-Fa-f]{17})")
PENDING, RUNNING, TERMINATED = "pending", "running", "terminated"
# The tag that holds the token, where instances have tags.
TOKEN_TAG = "uecwatchd-boot"  # noqa: S105 (the name of a tag)
NO_SUCH_INSTANCE = "InvalidInstanceID"
# The answer to a dry run of what would be carried out.
WOULD_SUCCEED = "DryRunOperation"
TERMINATE = "terminate"
INSTANCE_STORE = "instance-store"
# A word of the cloud about an instance, or an address.
WORD_CHARACTERS = 256
# Eucalyptus and Amazon keep 64 KiB of a console. More than that is not looked at.
CONSOLE_CHARACTERS = 256 * 1024
NOT_RUNNING = re.compile(r"not (in a )?running|IncorrectInstanceState|InvalidInstanceID", re.IGNORECASE)
NO_ADDRESSES = frozenset({"", "0.0.0.0"})  # noqa: S104 (how Eucalyptus writes that there is none)


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """One instance to be started. Empty values are left to the cloud.

    `root_device` is that of the image as the cloud lists it.
    """

    image_id: str
    token: str
    instance_type: str = ""
    key_name: str = ""
    user_data: str = ""
    subnet: str = ""
    security_groups: tuple[str, ...] = ()
    root_device: str = ""


@dataclass(frozen=True, slots=True)
class CloudInstance:
    """An instance as the cloud lists it. What the cloud leaves out is empty.

    `addresses` are the public ones; old clouds write them as names. `reason` is the code of the state's
    reason, such as Server.InternalError, with its words.
    """

    id: str
    state: str
    image_id: str
    token: str
    addresses: tuple[str, ...]
    reason: str


def launch_parameters(cloud: Cloud, request: LaunchRequest) -> Mapping[str, object]:
    """Return what RunInstances is sent: only what the dialect takes, and has a value."""
    taken, groups = cloud.dialect.launch_parameters, request.security_groups
    by_id = [name for name in groups if name.startswith("sg-") and "SecurityGroupId" in taken]
    shuts_down = request.root_device != INSTANCE_STORE or not cloud.dialect.shutdown_needs_volume
    tags = [{"Key": key, "Value": value} for key, value in launch_tags(request.token).items()]
    wanted: Mapping[str, tuple[str, object]] = {
        "InstanceType": ("InstanceType", request.instance_type),
        "KeyName": ("KeyName", request.key_name),
        "UserData": ("UserData", request.user_data),
        "SubnetId": ("SubnetId", request.subnet),
        "SecurityGroup": ("SecurityGroups", [name for name in groups if name not in by_id]),
        "SecurityGroupId": ("SecurityGroupIds", by_id),
        "ClientToken": ("ClientToken", request.token),
        "InstanceInitiatedShutdownBehavior": (
            "InstanceInitiatedShutdownBehavior",
            TERMINATE if shuts_down else "",
        ),
        "TagSpecification": ("TagSpecifications", [{"ResourceType": "instance", "Tags": tags}]),
    }
    return {name: value for key, (name, value) in wanted.items() if key in taken and value}


def launch_tags(token: str) -> Mapping[str, str]:
    """Return the tags of an instance that is started for a test."""
    return {TOKEN_TAG: token, "owner": "uecwatchd"}


def launch(cloud: Cloud, request: LaunchRequest) -> CloudInstance:
    """Start one instance.

    After a `CloudAway` nobody knows whether it was carried out: look with `list_instances` for the token.
    Raises as the table of launches says.
    """
    doing = f"starting an instance of {request.image_id}"
    with translated(cloud, doing, first=LAUNCH_ROWS), failpoints.effect("RunInstances"):
        answer = cloud.ec2.run_instances(
            ImageId=request.image_id, MinCount=1, MaxCount=1, **launch_parameters(cloud, request)
        )
    for listed in answer.get("Instances") or ():
        if (instance := _instance(listed)).id:
            return instance
    hint = "It is looked for, and terminated when it appears."
    raise CloudAway(f"cloud {cloud.name}, {doing}", "it answered without an id", hint)


def ask_to_launch(cloud: Cloud, request: LaunchRequest) -> None:
    """Ask a cloud with dry runs if an instance could be started; none is. Raises as `launch` does if not."""
    doing = f"asking if an instance of {request.image_id} could be started"
    with translated(cloud, doing, first=LAUNCH_ROWS):
        try:
            cloud.ec2.run_instances(
                DryRun=True,
                ImageId=request.image_id,
                MinCount=1,
                MaxCount=1,
                **launch_parameters(cloud, request),
            )
        except ClientError as error:
            if code_of(error) != WOULD_SUCCEED:
                raise


def tag_instance(cloud: Cloud, instance_id: str, token: str) -> None:
    """Tag an instance with its token, where instances have tags and did not get them at their launch."""
    if not cloud.dialect.tag_limit or "TagSpecification" in cloud.dialect.launch_parameters:
        return
    tags = [{"Key": key, "Value": value} for key, value in launch_tags(token).items()]
    doing = f"tagging {instance_id}"
    with translated(cloud, doing, first=LAUNCH_ROWS), failpoints.effect("CreateTags of an instance"):
        cloud.ec2.create_tags(Resources=[instance_id], Tags=tags)


def find_instance(cloud: Cloud, instance_id: str) -> CloudInstance | None:
    """Return an instance by its id; None if the cloud does not list it."""
    listed = _asked(cloud, f"looking for {instance_id}", InstanceIds=[instance_id])
    return next((one for one in listed if one.id == instance_id), None)


def list_instances(cloud: Cloud) -> tuple[CloudInstance, ...]:
    """List all instances of our account, also those that have just ended."""
    return _asked(cloud, "listing its instances")


def _asked(cloud: Cloud, doing: str, **question: object) -> tuple[CloudInstance, ...]:
    with translated(cloud, doing, first=LAUNCH_ROWS):
        try:
            answer = cloud.ec2.describe_instances(**question)
        except ClientError as error:
            if code_of(error).startswith(NO_SUCH_INSTANCE):
                return ()
            raise
    reservations = answer.get("Reservations") or ()
    return tuple(_instance(one) for each in reservations for one in each.get("Instances") or ())


def read_console(cloud: Cloud, instance_id: str) -> str:
    """Return the end of an instance's console, as far as the cloud has it; empty while it has none.

    Some clouds refuse the console of an instance that does not run: that counts as none.
    """
    with translated(cloud, f"reading the console of {instance_id}", first=LAUNCH_ROWS):
        try:
            answer = cloud.ec2.get_console_output(InstanceId=instance_id)
        except ClientError as error:
            if NOT_RUNNING.search(str(error)):
                return ""
            raise
    return str(answer.get("Output") or "")[-CONSOLE_CHARACTERS:]  # botocore has decoded it


def terminate(cloud: Cloud, instance_id: str) -> bool:
    """Ask for the end of an instance. Returns False if the cloud does not know it, any more or yet."""
    doing = f"terminating {instance_id}"
    with translated(cloud, doing, first=LAUNCH_ROWS), failpoints.effect("TerminateInstances"):
        try:
            cloud.ec2.terminate_instances(InstanceIds=[instance_id])
        except ClientError as error:
            if not code_of(error).startswith(NO_SUCH_INSTANCE):
                raise
            return False
    return True


def _instance(listed: Mapping[str, Any]) -> CloudInstance:
    reason = listed.get("StateReason") or {}
    tags = {str(tag.get("Key")): _word(tag.get("Value")) for tag in listed.get("Tags") or ()}
    # Of a private address, another machine of our own network may be the owner.
    addresses = dict.fromkeys(_word(listed.get(name)) for name in ("PublicIpAddress", "PublicDnsName"))
    code, message = _word(reason.get("Code")), _word(reason.get("Message"))
    words = f"{code} ({message})" if code and message else code or message
    instance_id = _word(listed.get("InstanceId"))
    return CloudInstance(
        id=instance_id if INSTANCE_ID.fullmatch(instance_id) else "",
        state=_word((listed.get("State") or {}).get("Name")),
        image_id=_word(listed.get("ImageId")),
        token=tags.get(TOKEN_TAG) or _word(listed.get("ClientToken")),
        addresses=tuple(address for address in addresses if address not in NO_ADDRESSES),
        reason=words or _word(listed.get("StateTransitionReason")),
    )


def _word(value: object) -> str:
    return "" if value is None else str(value)[:WORD_CHARACTERS]
