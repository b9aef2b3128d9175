"""Refusals of RunInstances, as Eucalyptus, Amazon and Nova write them, and what we make of them."""

import pytest

from uecwatchd.clouds.errors.launch_table import LAUNCH_ROWS
from uecwatchd.clouds.errors.refusals import Refusal
from uecwatchd.clouds.errors.table import find_row
from uecwatchd.errors import CloudAway, Deferred, Halted, Rejected, UecError

EXAMPLES = [
    (
        "uec",
        400,
        "VmControl",
        "Not enough resources (0 in default < 1): vm instances.",
        Deferred,
        "higher quota",
    ),
    ("euca3", 406, "NetworkManager", "Not enough resources available: addresses", Deferred, "higher quota"),
    (
        "aws",
        400,
        "InstanceLimitExceeded",
        "You have requested more instances (1) than",
        Deferred,
        "higher quota",
    ),
    ("aws", 400, "VcpuLimitExceeded", "You have requested more vCPU capacity than", Deferred, "higher quota"),
    (
        "aws",
        500,
        "InsufficientInstanceCapacity",
        "We do not have sufficient m1.small",
        Deferred,
        "higher quota",
    ),
    (
        "openstack",
        400,
        "InstanceLimitExceeded",
        "Quota exceeded for instances: Requested 1",
        Deferred,
        "quota",
    ),
    ("euca4", 500, "InternalFailure", "Instance type does not exist: m9.huge", Rejected, "instance_type"),
    ("aws", 400, "InvalidParameterValue", "Invalid value 'x' for InstanceType.", Rejected, "instance_type"),
    ("openstack", 400, "InvalidParameterValue", "Flavor m9 could not be found.", Rejected, "instance_type"),
    ("aws", 400, "Unsupported", "The requested configuration is not", Rejected, "instance_type"),
    (
        *("euca4", 500, "InternalFailure"),
        *("image too large [size=9000MB] for instance type m1.small [disk=5120MB]", Rejected, "larger"),
    ),
    ("aws", 400, "InvalidKeyPair.NotFound", "The key pair 'k' does not exist", Rejected, "key_name"),
    ("uec", 400, "VmControl", "Failed to find keypair: k", Rejected, "key_name"),
    (
        "aws",
        400,
        "InvalidGroup.NotFound",
        "The security group 'g' does not exist",
        Rejected,
        "security_groups",
    ),
    ("aws", 400, "InvalidSubnetID.NotFound", "The subnet ID 's' does not exist", Rejected, "subnet"),
    ("aws", 400, "VPCIdNotSpecified", "No default VPC for this user", Rejected, "subnet"),
    ("euca5", 400, "InvalidAMIID.NotFound", "The image id emi-1 does not exist", Deferred, "removed it"),
    ("aws", 403, "UnauthorizedOperation", "You are not authorized to perform this", Rejected, "rights"),
    # What is not about launches is read as everywhere
    ("aws", 403, "SignatureDoesNotMatch", "The request signature we calculated", Halted, "secret_key"),
    ("aws", 503, "Unavailable", "The service is unavailable", CloudAway, "No action"),
    ("uec", 400, "400", "Failed to bind the following fields: ClientToken = t", Halted, "Set dialect"),
]


@pytest.mark.parametrize(("dialect", "status", "code", "message", "kind", "hint"), EXAMPLES)
def test_a_refused_launch_says_what_to_do(
    dialect: str, status: int, code: str, message: str, kind: type[UecError], hint: str
) -> None:
    row = find_row(dialect, Refusal("ec2", status, code, message), LAUNCH_ROWS)
    assert row.kind is kind
    assert hint in row.hint


def test_every_row_is_used_and_none_suspends_a_cloud() -> None:
    used = {find_row(one[0], Refusal("ec2", *one[1:4]), LAUNCH_ROWS) for one in EXAMPLES}
    assert set(LAUNCH_ROWS) <= used
    assert not any(issubclass(row.kind, Halted | CloudAway) for row in LAUNCH_ROWS)


@pytest.mark.parametrize("row", LAUNCH_ROWS, ids=lambda row: row.why)
def test_the_reason_of_a_row_is_a_part_of_the_sentence(row) -> None:
    assert row.why[0].islower()
    assert not row.why.endswith(".")
    assert row.hint[0].isupper()
    assert row.hint.endswith(".")
