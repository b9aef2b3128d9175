"""Judgement of a test boot: from what is seen of an instance at one moment, without asking anybody."""

from dataclasses import dataclass
from typing import Literal

from uecwatchd.clouds.instances import PENDING, RUNNING, CloudInstance
from uecwatchd.images.console import judge_console
from uecwatchd.ledger.history import BootOutcome

# A cloud with several front ends lists a new instance as soon as they agree.
UNLISTED_SECONDS = 60.0
# From a login on the console to an answer on the network: keys are made, and slow names are looked up.
PORT_SECONDS = 120.0
# State reasons that begin so are the cloud's own fault, on Amazon and on Eucalyptus.
FAULT_OF_CLOUD = "Server."

PortState = Literal["unknown", "open", "refused", "unreachable"]


@dataclass(frozen=True, slots=True)
class BootSight:
    """An instance at one moment. Times are in seconds of a monotonic clock since its launch.

    `instance` is None if the cloud does not list it. `up_for` is how long its console shows that it is up.
    `port` is the state of the port to be answered; "unknown" if it is not looked at. A stale sight is an
    earlier one, because the cloud gave no answer.
    """

    instance: CloudInstance | None
    console: str
    elapsed: float
    limit: float
    up_for: float = 0.0
    port: PortState = "unknown"
    is_stale: bool = False


@dataclass(frozen=True, slots=True)
class BootVerdict:
    """The end of a test boot, with the reason: the image has passed or failed, or the cloud has failed."""

    outcome: BootOutcome
    why: str


def judge_boot(sight: BootSight, *, expect: str, port: int) -> BootVerdict | None:
    """Judge a boot; None while it is still open."""
    state = sight.instance.state if sight.instance else ""
    if sight.instance is None and sight.elapsed < UNLISTED_SECONDS:
        return None
    console = judge_console(sight.console, expect=expect)
    if console.state == "failed":
        return BootVerdict("failed", f"{console.why}: {console.line}")
    if console.state == "up":
        over = state != RUNNING or sight.elapsed >= sight.limit
        return _judge_port(sight, f"its console says {console.line}", port, over=over)
    if state not in (PENDING, RUNNING):
        return _judge_end(sight.instance)
    if sight.port == "open" and not sight.console and not expect:
        return BootVerdict("passed", f"it answers at port {port}, and its console is empty")
    return _judge_limit(sight, state, expect) if sight.elapsed >= sight.limit else None


def _judge_port(sight: BootSight, says: str, port: int, *, over: bool) -> BootVerdict | None:
    """Judge an instance with the console of a running system, by its port if that can be reached."""
    if sight.port == "open":
        return BootVerdict("passed", f"{says}; it answers at port {port}")
    if sight.port != "refused":
        return BootVerdict("passed", says)
    if over or sight.up_for >= PORT_SECONDS:
        return BootVerdict("failed", f"{says}, but it refuses connections to port {port}")
    return None


def _judge_end(instance: CloudInstance | None) -> BootVerdict:
    if instance is None:
        return BootVerdict("failed", "its instance is not there any more, and its console did not say why")
    reason = f" ({instance.reason})" if instance.reason else ""
    if instance.reason.startswith(FAULT_OF_CLOUD):
        return BootVerdict("cloud", f"the cloud has ended the instance{reason}")
    return BootVerdict("failed", f"its instance is {instance.state or 'gone'} by itself{reason}")


def _judge_limit(sight: BootSight, state: str, expect: str) -> BootVerdict:
    after = f"after {sight.limit:.0f} s"
    if state == PENDING:
        return BootVerdict("cloud", f"the instance is still pending {after}")
    if not sight.console:
        return BootVerdict("failed", f"its console is still empty {after}")
    wanted = f'"{expect}"' if expect else "a login, or the end of cloud-init,"
    return BootVerdict("failed", f"its console does not have {wanted} {after}")
