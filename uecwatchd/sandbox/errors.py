"""Error answers of the cloud: code, message, HTTP status."""

from collections.abc import Mapping

# Codes whose status is not 400. Authentication failures are 403 on both halves, as every generation but the
# first has it.
STATUS: Mapping[str, int] = {
    "AccessDenied": 403,
    "AuthFailure": 403,
    "BucketAlreadyExists": 409,
    "BucketAlreadyOwnedByYou": 409,
    "BucketNotEmpty": 409,
    "InvalidAccessKeyId": 403,
    "InternalError": 500,
    "InvalidRange": 416,
    "MethodNotAllowed": 405,
    "MissingAuthenticationToken": 403,
    "MissingContentLength": 411,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "NotFound": 404,
    "NotImplemented": 501,
    "PreconditionFailed": 412,
    "RequestEntityTooLarge": 413,
    "RequestTimeTooSkewed": 403,
    "SignatureDoesNotMatch": 403,
    "SignatureReplayed": 403,
    "SlowDown": 503,
}


class ApiError(Exception):
    """An error answer. Each half of the cloud writes it as XML of its own."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    @property
    def status(self) -> int:
        return STATUS.get(self.code, 400)
