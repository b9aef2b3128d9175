"""The administrator's policy for a folder: keys, buckets and clouds that sidecars may use."""

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from uecwatchd.config.records import Policy
from uecwatchd.errors import Rejected
from uecwatchd.intake.sidecar import Sidecar


def check_policy(sidecar: Sidecar, defaults: Sidecar, policy: Policy, *, file: str) -> None:
    """Raise Rejected if a sidecar asks for something that is closed. It is never silently ignored.

    A value that is the default anyway is allowed.
    """
    asked = {key for key in sidecar.given if getattr(sidecar, key) != getattr(defaults, key)}
    if refused := next(_refusals(sidecar, asked, policy), None):
        key, why = refused
        raise Rejected(
            f"{file}: {key} is not open to sidecars in this folder",
            why,
            f"Leave {key} out, or ask the administrator: [spool] in the configuration decides about it.",
        )


def _refusals(sidecar: Sidecar, asked: Iterable[str], policy: Policy) -> Iterator[tuple[str, str]]:
    for key in policy.closed:
        if key in asked:
            yield key, "the configuration has it among the keys that are closed here"
    allowed = any(fnmatchcase(sidecar.bucket, pattern) for pattern in policy.buckets)
    if policy.buckets and "bucket" in asked and not allowed:
        yield "bucket", f"{sidecar.bucket} is none of {', '.join(policy.buckets)}"
    others = [cloud for cloud in sidecar.clouds if cloud not in policy.clouds]
    if policy.clouds and "clouds" in asked and others:
        yield "clouds", f"{', '.join(others)} is none of {', '.join(policy.clouds)}"
