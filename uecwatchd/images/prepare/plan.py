"""Rules for the preparation of a guest: edits of its files, from facts alone.

Each rule is the remedy for a finding of `readiness` that can be done without running the guest. What is
right already stays as it is. What cannot be done is a remark.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from uecwatchd.images.guest.guest_facts import GuestFacts, KeyScript
from uecwatchd.images.prepare.edits import FileEdit, MakeLink, RemoveEntry, WriteContent
from uecwatchd.images.prepare.guest_state import (
    LOCAL_SERVICE,
    OWN_UNITS,
    RC_LOCAL_UNIT,
    GuestState,
)
from uecwatchd.images.prepare.key_hook import MARK, add_hook, is_shell_script

EXECUTABLE = 0o111
WANTED = f"{OWN_UNITS}/multi-user.target.wants"
# The serial console of a virtual machine, as Linux names it.
SERIAL_LINES: Mapping[str, str] = {
    "i386": "ttyS0", "x86_64": "ttyS0", "arm64": "ttyAMA0", "arm": "ttyAMA0",
    "ppc64le": "hvc0", "ppc64": "hvc0", "ppc": "hvc0", "riscv64": "ttyS0",
}  # fmt: skip
# systemd.service(5) for a guest whose systemd comes without one; the same as its own.
RC_LOCAL_SERVICE = """\
[Unit]
Description={path} Compatibility
ConditionFileIsExecutable={path}
Wants=network-online.target
After=network-online.target

[Service]
Type=forking
ExecStart={path} start
TimeoutSec=infinity
RemainAfterExit=yes
GuessMainPID=no

[Install]
WantedBy=multi-user.target
"""
UPSTART_JOB = """\
# getty on the serial console, for the console of a cloud
start on stopped rc RUNLEVEL=[2345]
stop on runlevel [!2345]
respawn
exec {getty} -L 115200 {line} vt102
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """Edits in their order, and what cannot be done, as sentences."""

    edits: tuple[FileEdit, ...]
    remarks: tuple[str, ...]


def make_plan(state: GuestState) -> Plan:
    """Return what to change in a guest."""
    found = [step for rule in RULES for step in rule(state)]
    edits = tuple(step for step in found if not isinstance(step, str))
    return Plan(edits, tuple(step for step in found if isinstance(step, str)))


def _key_fetch(state: GuestState) -> Iterator[FileEdit | str]:
    """Add the hook, unless something that works is there."""
    facts, script = state.facts, state.rc_local
    working = [each for each in facts.key_scripts if _would_work(facts, each)]
    if facts.key_services or any(each.is_executable and each.path != script.path for each in working):
        return
    if why := _reason_against_hook(state):
        yield f"nothing fetches the user's SSH key: {why}"
        return
    text = script.text or ""
    if MARK not in text and not any(each.path == script.path for each in working):
        text = add_hook(text, state.user)
    if text != script.text or not script.mode & EXECUTABLE:
        content, mode = text.encode("utf-8", "surrogateescape"), (script.mode or 0o644) | EXECUTABLE
        yield WriteContent(script.path, content, mode, f"fetches the SSH key of {state.user.name} at boot")
    yield from _start_rc_local(state)


def _would_work(facts: GuestFacts, script: KeyScript) -> bool:
    return script.is_reached and (not script.program or script.program in facts.programs)


def _reason_against_hook(state: GuestState) -> str:
    if not {"curl", "wget"} & state.facts.programs:
        return "the guest has neither curl nor wget"
    if state.is_rc_local_masked:
        return f"{RC_LOCAL_UNIT} is masked"
    return "" if is_shell_script(state.rc_local.text or "") else f"{state.rc_local.path} is no shell script"


def _start_rc_local(state: GuestState) -> Iterator[FileEdit | str]:
    """Let the guest's init start rc.local, if it does not do so anyway."""
    if state.is_rc_local_started:
        return
    path, reason = state.rc_local.path, f"starts {state.rc_local.path} at boot"
    if state.init == "systemd":
        unit = f"{OWN_UNITS}/{RC_LOCAL_UNIT}"
        yield WriteContent(unit, RC_LOCAL_SERVICE.format(path=path).encode(), 0o644, reason)
        yield MakeLink(f"{WANTED}/{RC_LOCAL_UNIT}", unit, reason)
    elif state.init == "openrc":
        yield MakeLink(f"{LOCAL_SERVICE}/local", "/etc/init.d/local", reason)
    else:
        yield f"it is not known if this guest starts {path} at boot"


def _network(state: GuestState) -> Iterator[FileEdit]:
    for path in state.facts.net_rules:
        yield RemoveEntry(path, "bound eth0 to the network card of another machine")


def _machine_id(state: GuestState) -> Iterator[FileEdit]:
    """Empty the machine-id where systemd makes a new one from an empty file; else remove it.

    systemd takes the one of D-Bus if that has another, so that is removed: machine-id(5).
    """
    for text in state.machine_ids:
        if state.init == "systemd" and text.path.startswith("/etc/"):
            yield WriteContent(text.path, b"", text.mode, "each instance makes its own")
        else:
            yield RemoveEntry(text.path, "each instance makes its own")


def _console(state: GuestState) -> Iterator[FileEdit | str]:
    if state.facts.has_console:
        return
    line = SERIAL_LINES.get(state.arch or "x86_64")
    steps = list(_getty(state, line)) if line else []
    yield from steps
    if not steps:
        yield "nothing is started on the serial console: it is not known how this guest does it"
    if line:
        yield f"its kernel writes to the serial console only if its boot loader has console={line}"


def _getty(state: GuestState, line: str) -> Iterator[FileEdit]:
    reason = "offers a login on the serial console"
    if state.init == "systemd" and state.serial_unit:
        link = f"{OWN_UNITS}/getty.target.wants/serial-getty@{line}.service"
        yield MakeLink(link, state.serial_unit, reason)
    elif state.init == "upstart" and state.getty:
        job = UPSTART_JOB.format(getty=state.getty, line=line)
        yield WriteContent(f"/etc/init/{line}.conf", job.encode(), 0o644, reason)
    elif state.inittab.text is not None and state.getty:
        fields = f"{line}::respawn" if state.init == "busybox" else "T0:2345:respawn"
        added = f"{fields}:{state.getty} -L 115200 {line} vt100\n"
        before = state.inittab.text
        content = before + ("" if before.endswith("\n") or not before else "\n") + added
        yield WriteContent(
            state.inittab.path, content.encode("utf-8", "surrogateescape"), state.inittab.mode, reason
        )


# Keys of the findings that these rules remedy, as far as the guest allows it.
REMEDIED = frozenset(("key-fetch", "net-rules", "machine-id", "console"))
RULES: tuple[Callable[[GuestState], Iterator[FileEdit | str]], ...] = (
    _key_fetch,
    _network,
    _machine_id,
    _console,
)
