"""Units and folders that do not fit together: what `check` and the journal say of each."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from tests.booted.conftest import Instance, Machine

pytestmark = pytest.mark.exhaustive

KEY = "LoadCredential=uecwatchd_cloud__default__user_key"


@dataclass(frozen=True)
class Misfit:
    """A folder and what was done to it. `check` and `journal` are words of both, empty for nothing bad."""

    folder: str
    check: str = ""
    journal: str = ""
    prepare: str = ""
    dropin: str = ""
    allowed: bool = True


MISFITS = {
    "unlisted": Misfit(
        "/srv/unlisted",
        "is read-only to the service (ProtectSystem=strict)",
        "and no result files either. To see what is in the way: sudo uecwatchd check",
        allowed=False,
    ),
    "homely": Misfit(
        "/home/drops",
        "is hidden from the service (ProtectHome=yes)",
        "the service's unit hides /home (ProtectHome= or InaccessiblePaths=)",
    ),
    "written-never": Misfit(
        "/mnt/disc",
        "it is mounted read-only",
        "and no result files either",
        prepare="mount -t tmpfs -o size=1m,ro tmpfs /mnt/disc",
    ),
    "foreign": Misfit(
        "/srv/foreign",
        "this user may not write results there",
        "and no result files either",
        prepare="chown alice: /srv/foreign; chmod 755 /srv/foreign",
    ),
    "rival": Misfit(
        "/srv/contested",
        journal="another uecwatchd watches this folder",
    ),
    "shown": Misfit(
        "/srv/shown",
        "every user of this machine may read it (mode 0644), and it holds a secret",
        prepare="install -m644 /etc/uecwatchd/euca2-admin-pk.pem /etc/shown.pem",
        dropin=f"{KEY}:/etc/shown.pem\n",
    ),
    "keyless": Misfit(
        "/srv/keyless",
        "there is no /etc/keyless.pem, which LoadCredential= names",
        "Failed to set up credentials",
        dropin=f"{KEY}:/etc/keyless.pem\n",
    ),
}


@pytest.fixture(scope="module")
def said(machine: Machine, instance_class: type[Instance]) -> Mapping[str, tuple[str, Instance]]:
    """Answers of `check` about each unit, which is started then; of `rival` there are two."""
    for name, folder in (("first", "/srv/contested"), *((name, one.folder) for name, one in MISFITS.items())):
        case = MISFITS.get(name, Misfit(folder))
        one = instance_class(machine, name, folder)
        one.make_spool()
        machine.shell(case.prepare or "true")
        one.install(dropin=case.dropin + f"ReadWritePaths=-{folder}\n" * case.allowed)
    machine.shell("systemctl daemon-reload; systemctl start first")
    found = {}
    for name, case in MISFITS.items():
        one = instance_class(machine, name, case.folder)
        ended = one.verb("check", check=False)
        found[name] = (ended.stdout + ended.stderr, one)
    machine.run("systemctl", "start", *MISFITS, check=False)
    return found


@pytest.mark.parametrize("name", MISFITS)
def test_check_and_journal_name_the_misfit(said: Mapping[str, tuple[str, Instance]], name: str) -> None:
    checked, one = said[name]
    assert MISFITS[name].check in checked
    one.until(lambda: MISFITS[name].journal in one.log())


def test_without_a_journal_the_work_goes_on(machine: Machine, instance_class: type[Instance]) -> None:
    one = instance_class(machine, "unheard", "/srv/unheard")
    one.make_spool()
    one.install(dropin="ReadWritePaths=/srv/unheard\n")
    sockets = "systemd-journald.socket systemd-journald-dev-log.socket systemd-journald-audit.socket"
    machine.shell("systemctl daemon-reload; systemctl start unheard")
    machine.shell(f"systemctl stop {sockets} systemd-journald 2>/dev/null || true")
    try:
        one.drop("quiet")
        assert one.wait_for("quiet.emi").startswith("emi-")
    finally:
        machine.shell(f"systemctl start {sockets} systemd-journald || true")
    one.drop("heard")
    one.until(lambda: "heard is emi-" in one.log())
