"""Checks of the policy of each spool folder, and that folder and kernel separate the members."""

import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from uecwatchd.cli.check.finding import Finding
from uecwatchd.config.records import Policy
from uecwatchd.errors import Halted
from uecwatchd.intake.spool.exposure import anybody_may_link, exposure
from uecwatchd.system.text import shell_word


def examine_members(folder: Path, policy: Policy, *, clouds: Collection[str]) -> Iterator[Finding]:
    """Check the policy of a folder; `clouds` are the configured ones.

    A missing folder is not reported here.
    """
    for cloud in policy.clouds:
        if cloud not in clouds:
            what = f"{folder}: sidecars may name cloud {cloud}, and there is no [cloud.{cloud}]"
            hint = "Correct `clouds` under [spool], or under the folder's policy."
            yield Finding("bad", what, hint, Halted.exit_code)
    yield Finding("ok", f"members of {folder}: {_describe_policy(policy)}")
    if policy.members == "separate":
        yield from _kept_apart(folder)


def _describe_policy(policy: Policy) -> str:
    """Describe the policy in one line."""
    alone = "only files of one owner make a set" if policy.members == "separate" else "all files count"
    closed = f"; sidecars may not say {', '.join(policy.closed)}" if policy.closed else ""
    buckets = f"; buckets: {', '.join(policy.buckets)}" if policy.buckets else ""
    clouds = f"; clouds: {', '.join(policy.clouds)}" if policy.clouds else ""
    return f"{alone}{closed}{buckets}{clouds}"


def _kept_apart(folder: Path) -> Iterator[Finding]:
    try:
        status = folder.stat()
    except OSError:  # already reported
        return
    if not status.st_mode & stat.S_ISVTX and (found := exposure(status)):
        what = f"{folder}: members can take each other's files away: {found.why}"
        yield Finding("warning", what, f"Try: {found.command} {shell_word(str(folder))}")
    if anybody_may_link():
        what = f"{folder}: every user of this machine can give another user's file a name there"
        hint = "Try: sysctl -w fs.protected_hardlinks=1, and keep it in a file in /etc/sysctl.d."
        yield Finding("warning", what, hint)
