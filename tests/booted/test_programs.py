"""Hooks and senders of messages work under the shipped unit, and with what it proposes besides."""

from collections.abc import Mapping

import pytest

from tests.booted.conftest import EUCARC, Instance, Machine
from tests.support.message_sinks import WebHook, serving

pytestmark = pytest.mark.exhaustive

PROGRAMS: Mapping[str, str] = {
    "pre": 'echo "I am $(id -un), and write: $(touch /etc/made 2>&1 || true)"',
    "registered": 'echo "registered $UEC_EMI"; [ "$UEC_SET" != refused ]',
    "notify": 'echo "$UEC_OUTCOME" >> /var/lib/asking/outcomes',
}
# As the unit proposes it, without a place for programs of the administrator.
LOCKED = "NoExecPaths=/\nExecPaths=/usr/bin /usr/lib /bin /lib /lib64 /opt/uecwatchd\n"


def configuration(hook: WebHook) -> str:
    place = "/etc/uecwatchd/asking"
    return (
        f'{EUCARC}\n[hooks]\npre = ["{place}-pre"]\nregistered = ["{place}-registered"]\n'
        f'[notify]\ncommand = ["{place}-notify"]\nurls = ["{hook.url}"]\n'
    )


def test_programs_are_asked_and_told_under_the_shipped_unit(
    machine: Machine, instance_class: type[Instance]
) -> None:
    hook, one = WebHook(), instance_class(machine, "asking", "/var/spool/asking")
    for name, script in PROGRAMS.items():
        machine.write(f"/etc/uecwatchd/asking-{name}", f"#!/bin/sh\n{script}\n", mode=0o755)
    one.make_spool()
    one.install(cloud=configuration(hook), dropin=LOCKED)
    machine.run("systemctl", "daemon-reload")
    (finding,) = [found for found in one.check() if found["what"].startswith("asking.service: ")]
    for name in PROGRAMS:
        assert f"the service may not execute /etc/uecwatchd/asking-{name} (NoExecPaths=)" in finding["what"]
    machine.shell(finding["hint"].removeprefix("Try: "))
    assert [found for found in one.check() if found["level"] == "bad"] == []
    with serving(hook):
        machine.run("systemctl", "start", "asking")
        one.drop("karmic")
        emi = one.wait_for("karmic.emi").strip()
        one.drop("refused")
        one.wait_for("refused.uec.error")
        one.until(lambda: len(hook.got) == 2)
        told = machine.path("/var/lib/asking/outcomes")
        one.until(lambda: told.exists() and told.read_text() == "done\nrejected\n")
    assert hook.got[0]["title"] == f"uecwatchd: karmic is {emi} on cloud default"
    log = machine.path("/var/spool/asking/karmic.uec.log").read_text()
    assert (
        "hooks.pre: I am uecwatchd, and write: touch: cannot touch '/etc/made': Read-only file system" in log
    )
    assert f"hooks.registered: registered {emi}" in log
    assert "s3cretword" not in one.log()
