"""Error answers of the EC2 half in each generation: status, code and form of the body.

The sandbox knows the reason of each refusal, and an `ApiError` carries it as its code. Few servers say as
much: before 3.3 there were no codes at all, and even in 5.1 most failures arrive as one code with a sentence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["service", "coded", "unbound", "forbidden", "replayed"]

# A code that is not here has to do with HTTP or with this cloud's own disk, and goes out as it is. But
# whatever the code, a request that nobody known has signed is forbidden.
KINDS: Mapping[str, Kind] = {
    # The image manager will not.
    "AuthFailure": "service",
    "InvalidManifest": "service",
    "InvalidParameterValue": "service",
    "OperationNotPermitted": "service",
    "IncorrectInstanceState": "service",
    "InstanceLimitExceeded": "service",
    # What got a code of its own once there were codes.
    "DryRunOperation": "coded",
    "IdempotentParameterMismatch": "coded",
    "InvalidAMIAttributeItemValue": "coded",
    "InvalidAMIID.Malformed": "coded",
    "InvalidAMIID.NotFound": "coded",
    "InvalidAMIID.Unavailable": "coded",
    "InvalidAMIName.Duplicate": "coded",
    "InvalidAMIName.Malformed": "coded",
    "InvalidInstanceID.NotFound": "coded",
    "InvalidParameterCombination": "coded",
    "MissingParameter": "coded",
    "TagLimitExceeded": "coded",
    "UnauthorizedOperation": "coded",
    # The request could not be turned into a message at all.
    "InvalidAction": "unbound",
    "UnknownParameter": "unbound",
    # Somebody known signed it, but once only.
    "SignatureReplayed": "replayed",
}


@dataclass(frozen=True, slots=True)
class ErrorForm:
    """Form of an error answer.

    `code` replaces the precise code if it is given, `words` the message, which it may quote as `{message}`.
    `plain` means text instead of XML.
    """

    status: int
    code: str = ""
    plain: bool = False
    words: str = "{message}"


@dataclass(frozen=True, slots=True)
class ErrorRules:
    """Error answers of one generation.

    `forms` are by kind; an error of a kind that is missing is sent as it is. `words` are by precise code and
    replace those of the form. `unbound_action` quotes the action's {name}; `unbound_parameter` the {name} of
    the first unknown parameter and the {fields}, a line for each of them.
    """

    forms: Mapping[Kind, ErrorForm] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    escaped: bool = True  # whether a `&` or `<` in a sentence is written as XML wants it
    unbound_action: str = "The action {name} is not valid for this web service"
    unbound_parameter: str = "The parameter {name} is not recognized"


# Before 3.3 who is refused at the door gets a line of text.
OLD_ACCESS_ERRORS: Mapping[Kind, ErrorForm] = {
    "forbidden": ErrorForm(403, plain=True, words="User authentication failed."),
    "replayed": ErrorForm(403, plain=True),
}
ACCESS_ERRORS: Mapping[Kind, ErrorForm] = {
    "forbidden": ErrorForm(403),
    "replayed": ErrorForm(403, "AccessDenied"),
}
BIND_ACTION = "Failed to construct message of type {name}"
BIND_PARAMETER = "Failed to bind the following fields:\n{fields}"
EXPIRED = {"RequestTimeTooSkewed": "Message expired ({message})"}
# From the days before codes: every error names the part of the server that it came from.
IMAGES = "ImageManager"

AMAZON = ErrorRules()

UEC = ErrorRules(
    forms={
        **OLD_ACCESS_ERRORS,
        "service": ErrorForm(400, IMAGES),
        "coded": ErrorForm(400, IMAGES),
        "unbound": ErrorForm(500, plain=True),  # 2.0: 400
    },
    words={
        **EXPIRED,
        "InvalidManifest": "Image registration failed because the manifest referenced is invalid or"
        " unavailable.",
    },
    escaped=False,
    unbound_action=BIND_ACTION,
    unbound_parameter=BIND_PARAMETER,
)

EUCA3 = ErrorRules(
    forms={
        **OLD_ACCESS_ERRORS,
        "service": ErrorForm(406, IMAGES),
        "coded": ErrorForm(406, IMAGES),  # 3.3: 400, with a code
        "unbound": ErrorForm(412, plain=True),  # 3.3: 400
    },
    words=EXPIRED,
    escaped=False,
    unbound_action=BIND_ACTION,
    unbound_parameter=BIND_PARAMETER,
)

EUCA4 = ErrorRules(
    forms={
        **ACCESS_ERRORS,
        "service": ErrorForm(500, "InternalFailure"),
        "coded": ErrorForm(400),
        "unbound": ErrorForm(400, "InvalidParameterValue"),
    },
    words=EXPIRED,
    unbound_action=BIND_ACTION,
    unbound_parameter=BIND_PARAMETER,
)

EUCA5 = ErrorRules(
    forms={**EUCA4.forms, "service": ErrorForm(500, "InternalError")},
    words=EXPIRED,
    unbound_action=BIND_ACTION,
    unbound_parameter=BIND_PARAMETER,
)
