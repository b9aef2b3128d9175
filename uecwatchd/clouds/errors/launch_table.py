"""The refusals of RunInstances that mean something else, or nothing, elsewhere.

Nothing in it suspends a cloud: a launch that is refused keeps no other set from its registration. The
sentences of Eucalyptus are those of its own sources, from 1.6 on; Amazon and Nova have codes.
"""

from uecwatchd.clouds.errors.refusals import EC2_ALONE, RefusalRow
from uecwatchd.errors import Deferred, Rejected

THEN_RETRY = "in the configuration, then retry the set."

LAUNCH_ROWS = (
    RefusalRow(
        Deferred,
        "it has no room for another instance",
        "Terminate instances that nobody needs, or ask the cloud's administrator for a higher quota.",
        code=r"(Instance|Vcpu|Resource|MaxSpotInstanceCount)LimitExceeded|Insufficient\w*Capacity"
        r"|NotEnoughResources|\w*QuotaExceeded|InsufficientFreeAddresses\w*|TooManyInstances",
        words=r"not enough resources|quota (is |was )?exceeded|exceeded (\w+ )?quota|no valid host"
        r"|insufficient (\w+ )?capacity|requested more (instances|vcpu capacity)",
        halves=EC2_ALONE,
    ),
    RefusalRow(
        Rejected,
        "the image does not fit the instance type",
        f"Set a larger instance_type for this cloud {THEN_RETRY}",
        words=r"image too large|(flavor|instance) \S*('s)? ?(disk|memory) is too small"
        r"|too small for (the )?image",
        halves=EC2_ALONE,
    ),
    RefusalRow(
        Rejected,
        "it has no instance type of that name, or does not start this image on it",
        f"Correct instance_type for this cloud {THEN_RETRY}",
        code=r"InvalidInstanceType|InvalidFlavor\w*|Unsupported|UnsupportedOperation",
        words=r"(instance|vm) type does not exist|invalid value '?\S+'? for instancetype"
        r"|flavor \S+ could not be found|(unknown|invalid|no such) (instance|vm) ?type"
        r"|requested configuration is currently not supported",
        halves=EC2_ALONE,
    ),
    RefusalRow(
        Rejected,
        "it has no key of that name",
        f"Correct key_name for this cloud {THEN_RETRY}",
        code=r"InvalidKeyPair(\.\w+)?",
        words=r"key ?pair \S+ (does not exist|not found|could not be found)"
        r"|(invalid|unknown|no such) key ?pair"
        r"|(failed to find|couldn't find|no) (ssh )?key ?pair",
        halves=EC2_ALONE,
    ),
    RefusalRow(
        Rejected,
        "it has no security group of that name",
        f"Correct security_groups for this cloud {THEN_RETRY}",
        code=r"Invalid(Security)?Group(Id)?(\.\w+)?",
        words=r"security group \S+ (does not exist|not found|could not be found)"
        r"|(failed to find|could not find|invalid|unknown) security group",
        halves=EC2_ALONE,
    ),
    RefusalRow(
        Rejected,
        "it has no subnet of that name, or wants one",
        f"Correct subnet for this cloud {THEN_RETRY}",
        code=r"InvalidSubnet(ID)?(\.\w+)?|VPCIdNotSpecified|MissingInput|NoDefaultSubnet\w*",
        words=r"subnet \S+ (does not exist|not found|could not be found)|no default (vpc|subnet)",
        halves=EC2_ALONE,
    ),
    RefusalRow(
        Deferred,
        "the image is not there any more",
        "If somebody removed it, the next attempt registers it again.",
        code=r"InvalidAMIID(\.\w+)?",
        words=r"image id \S+ does not exist|(failed to (find|lookup)|no such) image",
        halves=EC2_ALONE,
    ),
    RefusalRow(
        Rejected,
        "our account may not start or end instances",
        "Ask the cloud's administrator for the rights that a test boot needs, or leave test out.",
        code="UnauthorizedOperation",
        words="not authorized",
        halves=EC2_ALONE,
    ),
)
