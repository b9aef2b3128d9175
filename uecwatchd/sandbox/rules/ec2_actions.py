"""Names of the Query API: the actions of each generation, and the parameters of each action.

A parameter outside the list is refused, as the first servers did with everything that they had no field for.
N is a number.
"""

from collections.abc import Mapping

Actions = Mapping[str, frozenset[str]]

# What a request of any action carries.
COMMON = frozenset(
    {"Action", "Version", "AWSAccessKeyId", "SignatureVersion", "SignatureMethod", "Timestamp", "Signature"}
)
FILTERS = "Filter.N.Name Filter.N.Value.N"
# Of these, nothing matters to an image that is in a bucket; they are known all the same.
DEVICES = "RootDeviceName " + " ".join(
    f"BlockDeviceMapping.N.{what}"
    for what in (
        *("DeviceName", "VirtualName", "NoDevice"),
        *("Ebs.SnapshotId", "Ebs.VolumeSize", "Ebs.VolumeType", "Ebs.DeleteOnTermination"),
    )
)
LATER_PERMISSIONS = " ".join(
    f"LaunchPermission.{verb}.N.{what}" for verb in ("Add", "Remove") for what in ("Group", "UserId")
)
TAGS = {
    "CreateTags": "ResourceId.N Tag.N.Key Tag.N.Value",
    "DeleteTags": "ResourceId.N Tag.N.Key Tag.N.Value",
    "DescribeTags": FILTERS,
}
# Answered with success by servers that do nothing then: the answer has no id in it.
_DISK = " ".join(
    f"DiskContainer{n}.{what}"
    for n in ("", ".N")
    for what in ("Description", "Format", "Url", "UserBucket.S3Bucket", "UserBucket.S3Key")
)
HOLLOW = {
    "CopyImage": "SourceRegion SourceImageId Name Description ClientToken",
    "ImportImage": f"Architecture Description Platform ClientToken {_DISK}",
    "ImportSnapshot": f"Description ClientToken {_DISK}",
}
SRIOV = {"RegisterImage": "SriovNetSupport"}


def _extended(actions: Actions, more: Mapping[str, str]) -> Actions:
    """Extend `actions`: `more` maps an action, old or new, to its additional parameters."""
    fresh = {name: COMMON | frozenset(words.split()) for name, words in more.items()}
    return {name: actions.get(name, COMMON) | fresh.get(name, COMMON) for name in {**actions, **fresh}}


UEC = _extended(
    {},
    {
        "RegisterImage": "ImageLocation",
        "DescribeImages": "ImageId.N Owner.N ExecutableBy.N",
        "DeregisterImage": "ImageId",
        "ModifyImageAttribute": "ImageId Attribute OperationType UserGroup.N UserId.N",
        "DescribeImageAttribute": "ImageId Attribute",
        "ResetImageAttribute": "ImageId Attribute",
        "RunInstances": "ImageId MinCount MaxCount InstanceType KeyName UserData SecurityGroup.N KernelId"
        " RamdiskId AddressingType AdditionalInfo Placement.AvailabilityZone",
        "DescribeInstances": "InstanceId.N",
        # The one instance as a list of one, as the clients of its time wrote it.
        "GetConsoleOutput": "InstanceId.N",
        "TerminateInstances": "InstanceId.N",
    },
)

EUCA3 = _extended(
    UEC,
    {
        "RegisterImage": f"Name Description Architecture KernelId RamdiskId {DEVICES}",
        "ModifyImageAttribute": "Value",
        "RunInstances": "ClientToken",  # boto3 adds one by itself
    },
)

_FROM_2013 = _extended(
    EUCA3,
    {
        "RegisterImage": "VirtualizationType Platform",
        "DescribeImages": FILTERS,
        "ModifyImageAttribute": f"Description.Value {LATER_PERMISSIONS}",
        **TAGS,
    },
)

# What belongs to networks, and how an instance ends; and the other way to name the instance of a console.
_INSTANCES_OF_4 = {
    "RunInstances": "SecurityGroupId.N SubnetId PrivateIpAddress InstanceInitiatedShutdownBehavior"
    " DisableApiTermination Monitoring.Enabled EbsOptimized",
    "DescribeInstances": f"{FILTERS} MaxResults NextToken",
    "GetConsoleOutput": "InstanceId",
}

EUCA4 = _extended(_extended(_FROM_2013, HOLLOW), _INSTANCES_OF_4)

EUCA5 = _extended(EUCA4, SRIOV)

OPENSTACK = _extended(_extended(_FROM_2013, SRIOV), _INSTANCES_OF_4)

AWS = _extended(
    OPENSTACK,
    {
        "RegisterImage": "BillingProduct.N BootMode EnaSupport ImdsSupport TpmSupport UefiData",
        "RunInstances": "TagSpecification.N.ResourceType TagSpecification.N.Tag.N.Key"
        " TagSpecification.N.Tag.N.Value DryRun",
        "GetConsoleOutput": "Latest",
        "EnableImageDeprecation": "ImageId DeprecateAt",
        "DisableImageDeprecation": "ImageId",
        "DescribeImageReferences": "ImageId.N IncludeAllResourceTypes MaxResults NextToken",
    },
)

# What a client may say that means to work with all of them: what most know, though none of the first, and not
# what only the later do.
SANDBOX = _extended(
    UEC,
    {
        "RegisterImage": "Name Description Architecture KernelId RamdiskId VirtualizationType",
        "DescribeImages": FILTERS,
        "ModifyImageAttribute": f"Value Description.Value {LATER_PERMISSIONS}",
        "RunInstances": "ClientToken SecurityGroupId.N SubnetId InstanceInitiatedShutdownBehavior",
        "DescribeInstances": FILTERS,
        "GetConsoleOutput": "InstanceId",
        **TAGS,
    },
)

CERTIFICATES = _extended({}, {"DescribeServiceCertificates": f"Format FingerprintDigest {FILTERS}"})
