"""Instances: their records, and the states that they go through without a machine behind them.

An instance changes its state when it is looked at, as images do, so that no test has to wait. Its fate is
settled when it is started: its `script`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Script = Literal["boots", "never", "panics", "silent", "pending", "ends", "machine"]
InstanceState = Literal["pending", "running", "shutting-down", "terminated"]

STATE_CODES: Mapping[InstanceState, int] = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
}
# DescribeInstances calls that see an instance in a state before it goes on.
LOOKS = 1


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance. `started` is a time in ISO 8601, UTC; empty text means "none".

    `request` is a digest of the request that started it, for a second one with the same `token`. `looks`
    counts the DescribeInstances calls in its state, `reads` those of GetConsoleOutput. `console` is how its
    recorded console begins, `reason` why it ended by itself.
    """

    id: str
    reservation: str
    image: str
    kernel: str
    ramdisk: str
    type: str
    key_name: str
    state: InstanceState
    started: str
    console: str
    token: str
    request: str
    script: Script
    looks: int
    reads: int
    address: str
    reason: str


def after_look(instance: Instance, *, stays: bool = False) -> Instance:
    """Return the instance as the next DescribeInstances finds it. One with a machine goes on by itself.

    With `stays` it does not come to its end.
    """
    looked = replace(instance, looks=instance.looks + 1)
    if looked.looks < LOOKS:
        return looked
    if instance.state == "pending" and instance.script not in ("pending", "machine"):
        return in_state(instance, "running")
    if instance.state == "running" and instance.script == "ends":
        return replace(in_state(instance, "terminated"), reason="Client.InternalError")
    if instance.state == "shutting-down" and not stays:
        return in_state(instance, "terminated")
    return looked


def in_state(instance: Instance, state: InstanceState) -> Instance:
    """Return the instance as it comes into a state."""
    return replace(instance, state=state, looks=0)
