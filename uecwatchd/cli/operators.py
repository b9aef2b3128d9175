"""Members of the group uecadm, who may look at the service and act on its sets without being root.

A rule for sudo, which the package installs, lets them run some verbs as root, without `--config` and
`--unit`. Each of these verbs changes to the service's user at once. The rule decides; here it is only asked.
"""

import grp
import os
import subprocess
from collections.abc import Sequence

GROUP = "uecadm"
PROGRAM = "/usr/bin/uecwatchd"  # as in the rule
VERBS = frozenset(
    {
        "status",
        "log",
        "history",
        "check",
        "images",
        "verify",
        "boot",
        "console",
        "retry",
        "forget",
        "hold",
        "release",
        "withdraw",
        "rollback",
        "prune",
        "orphans",
        "fleet",
        "once",
    }
)
# It fails where a password would be needed.
SUDO = ("sudo", "--non-interactive")


def repeat_as_operator(verb: str, argv: Sequence[str]) -> None:
    """Run the same command again by sudo, if the caller may do that. Returns only if not."""
    command = [PROGRAM, *argv]
    if verb in VERBS and os.geteuid() != 0 and _is_operator() and _is_allowed(command):
        os.execvp(SUDO[0], [*SUDO, "--", *command])  # noqa: S606


def _is_operator() -> bool:
    try:
        return grp.getgrnam(GROUP).gr_gid in os.getgroups()
    except KeyError:
        return False


def _is_allowed(command: Sequence[str]) -> bool:
    try:
        asked = subprocess.run([*SUDO, "--list", "--", *command], capture_output=True, check=False)
    except OSError:  # there is no sudo
        return False
    return asked.returncode == 0
