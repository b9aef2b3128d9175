"""The test boot of a registered image: one instance, started, judged by its console, and terminated.

What outlives this process is written first. A boot is in the ledger before its instance is requested, with a
token that the cloud gets too; the row is removed when the instance has ended. So an instance that a crash, a
stop or an answer that was lost has left behind is found and terminated: at the next start, and before the
next boot. One process at a time tests on an account. Its clock is monotonic: the wall clock may jump.
"""

import hashlib
import ipaddress
import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.errors.connection import quoted
from uecwatchd.clouds.instances import (
    PENDING,
    RUNNING,
    CloudInstance,
    LaunchRequest,
    find_instance,
    launch,
    list_instances,
    read_console,
    tag_instance,
    terminate,
)
from uecwatchd.delivery.boot_judgement import BootSight, BootVerdict, PortState, judge_boot
from uecwatchd.delivery.leftover_instances import BootCleaner, belongs_to, end_instance
from uecwatchd.errors import CloudAway, Deferred, Stopped, UecError, problem
from uecwatchd.images.console import judge_console, last_lines, new_text, without_sequences
from uecwatchd.ledger.boots import BootRecord, Boots
from uecwatchd.types import SetId

# A connection on a local network takes milliseconds; a filtered port gives no answer at all.
CONNECT_SECONDS = 3.0
# Looks for an instance whose request got no answer.
LAUNCH_LOOKS = 3


@dataclass(frozen=True, slots=True)
class BootRequest:
    """One image to be booted for a set. `launch` has no token yet.

    `expect` is the text of the console that shows that the system is up, empty for a login. `port` has to
    answer where the instance can be reached; 0 is none. Times are in seconds.
    """

    set_id: SetId
    launch: LaunchRequest
    expect: str = ""
    limit: float = 900.0
    every: float = 5.0
    port: int = 22


@dataclass(frozen=True, slots=True)
class BootTools:
    """The cloud, the ledger's part, clocks and callbacks of a test boot."""

    cloud: Cloud
    boots: Boots
    state_folder: Path
    host: str
    tell: Callable[[str], None]  #: called with a sentence about the instance
    show: Callable[[Sequence[str], str], None]  #: called with new lines of its console, and its last one
    check: Callable[[], None]  #: called between steps; raises Stopped
    sleep: Callable[[float], None]  #: for seconds; raises what `check` does
    now: Callable[[], float]  #: wall clock, in seconds of the epoch
    monotonic: Callable[[], float]

    @property
    def mark(self) -> str:
        return token_mark(self.host, self.state_folder)

    @property
    def cleaner(self) -> BootCleaner:
        return BootCleaner(self.cloud, self.boots, self.mark, self.tell, self.sleep, self.now, self.monotonic)


@dataclass(frozen=True, slots=True)
class BootResult:
    """The end of a test boot: the verdict, the instance, the last lines of its console, and its seconds."""

    verdict: BootVerdict
    instance_id: str
    console: tuple[str, ...]
    seconds: float

    @property
    def has_passed(self) -> bool:
        return self.verdict.outcome == "passed"


def token_mark(host: str, state_folder: Path) -> str:
    """Return the beginning of all tokens of a state directory on a host."""
    return f"uecwatchd-{hashlib.sha256(f'{host}:{state_folder}'.encode()).hexdigest()[:12]}-"


def boot_image(request: BootRequest, tools: BootTools) -> BootResult:
    """Boot an image once, by the holder of the claim on the account's boots, and terminate its instance.

    An image that has passed is noted before its instance is terminated, so that it is not booted again.
    Raises what the cloud raises to a launch, and Deferred while an instance does not end.
    """
    tools.check()
    tools.cleaner.clean_up(with_unknown=True)
    boot = _launch(request, tools)
    try:
        tools.boots.put(boot)
        tools.tell(f"booting {boot.image_id} as {boot.instance_id}")
        _tag(boot, tools)
        result = _watch(request, boot, tools)
        if result.has_passed:
            tools.boots.put_passed(tools.cloud.name, boot.image_id, tools.now())
    except BaseException:
        _ask_to_end(boot, tools)
        raise
    end_instance(boot, tools.cleaner)
    return result


# --- the launch -------------------------------------------------------------------------------------------


def _launch(request: BootRequest, tools: BootTools) -> BootRecord:
    """Start the instance, with the boot in the ledger before. Returns the boot with the instance's id."""
    cloud, image_id = tools.cloud, request.launch.image_id
    boot = BootRecord(
        token=f"{tools.mark}{secrets.token_hex(8)}",
        cloud=cloud.name,
        image_id=image_id,
        set_id=request.set_id,
        began=tools.now(),
        others=tuple(one.id for one in list_instances(cloud) if one.image_id == image_id),
    )
    tools.boots.put(boot)
    try:
        instance = launch(cloud, replace(request.launch, token=boot.token))
    except CloudAway:
        found = _find_launched(boot, tools)
        if found is None:
            raise
        instance = found
    except Stopped:  # nobody knows if it was carried out
        raise
    except UecError:
        tools.boots.drop(boot)
        raise
    return replace(boot, instance_id=instance.id)


def _find_launched(boot: BootRecord, tools: BootTools) -> CloudInstance | None:
    """Look for the instance of a request that got no answer."""
    for _ in range(LAUNCH_LOOKS):
        tools.sleep(1.0)
        with suppress(CloudAway):
            listed = list_instances(tools.cloud)
            found = [one for one in listed if belongs_to(one, boot, tools.cloud.dialect)]
            if found:
                return found[0]
    return None


def _tag(boot: BootRecord, tools: BootTools) -> None:
    try:
        tag_instance(tools.cloud, boot.instance_id, boot.token)
    except Stopped:
        raise
    except UecError as error:  # the ledger has its id
        tools.tell(f"{boot.instance_id} has no tags: {problem(error)}")


# --- the watch --------------------------------------------------------------------------------------------


def _watch(request: BootRequest, boot: BootRecord, tools: BootTools) -> BootResult:
    """Look at the instance until there is a verdict; at the limit there is one."""
    began, up_since, state = tools.monotonic(), None, ""
    sight = BootSight(None, "", 0.0, request.limit)
    while True:
        tools.check()
        seen = _look(sight, request, boot, tools, is_last=tools.monotonic() - began >= request.limit)
        now = tools.monotonic()
        is_up = judge_console(seen.console, expect=request.expect).state == "up"
        up_since = now if is_up and up_since is None else up_since
        seen = replace(seen, elapsed=now - began, up_for=0.0 if up_since is None else now - up_since)
        _show_news(sight, seen, tools)
        if seen.instance and seen.instance.state != state:
            state = seen.instance.state
            tools.tell(f"{boot.instance_id} is {quoted(state)}")
        verdict = None if seen.is_stale else judge_boot(seen, expect=request.expect, port=request.port)
        if verdict and verdict.outcome == "failed" and _is_ended_here(seen, boot, tools):
            verdict = BootVerdict("cloud", "this host has terminated its instance")
        if verdict:
            return BootResult(verdict, boot.instance_id, last_lines(seen.console), round(seen.elapsed, 1))
        sight = seen
        tools.sleep(request.every)


def _is_ended_here(seen: BootSight, boot: BootRecord, tools: BootTools) -> bool:
    """Tell if this host has ended the instance as a left one: no fault of the image."""
    if seen.instance and seen.instance.state in (PENDING, RUNNING):
        return False
    return not any((one.token, one.set_id) == (boot.token, boot.set_id) for one in tools.boots.open())


def _look(
    before: BootSight, request: BootRequest, boot: BootRecord, tools: BootTools, *, is_last: bool
) -> BootSight:
    """Look at state, console and port. What gets no answer is as it was before.

    Raises CloudAway only if no look follows.
    """
    try:
        instance = find_instance(tools.cloud, boot.instance_id)
        has_console = instance is not None and instance.state != PENDING
        console = read_console(tools.cloud, boot.instance_id) if has_console else ""
    except Deferred:
        if is_last:
            raise
        return replace(before, is_stale=True)
    port: PortState = "unknown"
    if instance and instance.state == RUNNING and request.port:
        port = try_port(instance.addresses, request.port)
    console = console or before.console  # some clouds have it no more when the instance ends
    return replace(before, instance=instance, console=console, port=port, is_stale=False)


def _show_news(before: BootSight, seen: BootSight, tools: BootTools) -> None:
    news = new_text(without_sequences(before.console), without_sequences(seen.console))
    last = last_lines(seen.console, count=1)
    tools.show(last_lines(news, count=len(news) + 1), last[0] if last else "")


def try_port(addresses: Sequence[str], port: int) -> PortState:
    """Try to connect to a port of an instance. "unreachable" is also no address, or one that is a name."""
    result: PortState = "unreachable"
    for address in addresses:
        try:
            ipaddress.ip_address(address)
            with socket.create_connection((address, port), timeout=CONNECT_SECONDS):
                return "open"
        except ConnectionRefusedError:
            result = "refused"
        except (OSError, ValueError):
            continue
    return result


def _ask_to_end(boot: BootRecord, tools: BootTools) -> None:
    """Ask for the end of an instance after an error or a stop; the ledger keeps it."""
    with suppress(UecError):
        terminate(tools.cloud, boot.instance_id)
