"""The service under the shipped unit, with each setting of its configuration."""

import json
import re
import shlex
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.booted.conftest import Instance, Machine
from uecwatchd.sandbox.server import Sandbox

ROOT = Path(__file__).parents[2]
ROOTS_HOME = "/root"  # a home, too, which ProtectHome= hides
EUCARC = 'eucarc = "/etc/uecwatchd/eucarc"'
PAIR = """user_cert = "{0}/euca2-admin-cert.pem"
user_key = "{0}/euca2-admin-pk.pem"
cloud_cert = "{0}/cloud-cert.pem"
"""
INI = """[region here]
ec2-url = $EC2_URL
s3-url = $S3_URL
certificate = /etc/uecwatchd/cloud-cert.pem
user = somebody
[user somebody]
key-id = $EC2_ACCESS_KEY
secret-key = $EC2_SECRET_KEY
account-id = $EC2_USER_ID
private-key = /etc/uecwatchd/euca2-admin-pk.pem
certificate = /etc/uecwatchd/euca2-admin-cert.pem
"""
AWS = "[default]\naws_access_key_id = $EC2_ACCESS_KEY\naws_secret_access_key = $EC2_SECRET_KEY\n"


def filled(template: str, path: str, *, owner: str = "root:root", mode: str = "0640") -> str:
    """A script that writes a file with the values of the eucarc in it."""
    script = f"mkdir -p $(dirname {path}); "
    script += "bash -c '. /etc/uecwatchd/eucarc >/dev/null 2>&1; eval \"cat <<E\n$1E\"' "
    return script + f"sh {shlex.quote(template)} > {path}; chown {owner} {path}; chmod {mode} {path}\n"


@dataclass(frozen=True)
class Case:
    """A configuration by its tables, and what has to be there for it.

    `dropin` is what the unit has besides, `prepare` a script that root ran before. `findings` are words of
    `check` where the shipped unit does not do; then the command that it proposes is run.
    """

    folder: str = ""
    tables: Mapping[str, str] = field(default_factory=dict)
    cloud: str = EUCARC
    dropin: str = ""
    prepare: str = ""
    findings: tuple[str, ...] = ()


SPOOL = "install -d -m3770 -ouecwatchd -guecdrop"
CASES = {
    "keeping": Case(
        tables={
            "spool": 'after = "keep"\nignore = ["*.skip.img"]',
            "work": 'sets = 1\nuploads = 1\nverify = "full"\ncompression = "small"\nsparse = false',
            "defaults": 'bucket = "others"\npublic = true',
        }
    ),
    "archiving": Case(tables={"spool": 'after = "archive"', "work": "sets = 8\nuploads = 16"}),
    "deleting": Case(tables={"spool": 'after = "delete"\nlinger = 0'}),
    "scattered": Case(
        "/srv/a b%n'c",
        tables={"state": 'dir = "/srv/state"\nwork = "/srv/work"'},
        cloud=f'eucarc = "{ROOTS_HOME}/creds/eucarc"',
        prepare="install -d -ouecwatchd -m0700 /srv/state\n"
        f"mkdir -p {ROOTS_HOME}/creds; cp -p /etc/uecwatchd/eucarc /etc/uecwatchd/*.pem {ROOTS_HOME}/creds\n",
        findings=(
            "/srv/a b%n'c is read-only to the service (ProtectSystem=strict)",
            "/srv/state is read-only to the service (ProtectSystem=strict)",
            f"{ROOTS_HOME}/creds/eucarc is hidden from the service (ProtectHome=yes)",
            f"{ROOTS_HOME}/creds/euca2-admin-pk.pem is hidden from the service (ProtectHome=yes)",
        ),
    ),
    "at-home": Case(
        "/home/alice/drop",
        cloud=EUCARC + "\n" + PAIR.format("/home/alice/keys"),
        prepare="chmod 711 /home/alice; install -d -oalice -m0700 /home/alice/keys\n"
        "cp /etc/uecwatchd/*.pem /home/alice/keys\n",
        findings=(
            "/home/alice/drop is hidden from the service (ProtectHome=yes)",
            "/home/alice/keys/euca2-admin-pk.pem is hidden from the service (ProtectHome=yes)",
        ),
    ),
    "passing": Case(
        "/tmp/drop",  # noqa: S108 (whether that is seen is the question)
        cloud=EUCARC + f'\nca_bundle = "{ROOTS_HOME}/ca.pem"',
        prepare=f"cp /etc/uecwatchd/cloud-cert.pem {ROOTS_HOME}/ca.pem\n",
        findings=(
            "/drop is hidden from the service (PrivateTmp=yes)",
            f"{ROOTS_HOME}/ca.pem is hidden from the service",
        ),
    ),
    "linked": Case(
        "/var/spool/linked",
        cloud='euca2ools = "@here"\neuca2ools_files = ["/home/alice/.euca/*.ini"]',
        prepare=f"mkdir -p /mnt/disk; mount -t tmpfs tmpfs /mnt/disk; {SPOOL} /mnt/disk/drop\n"
        "ln -s ../../mnt/disk/drop /var/spool/linked; chmod 711 /home/alice\n"
        + filled(INI, "/home/alice/.euca/here.ini", owner="alice:uecwatchd"),
        findings=("/mnt/disk/drop is read-only", "/home/alice/.euca/here.ini is hidden from the service"),
    ),
    "sealed-off": Case(
        "/srv/sealed-off",
        dropin="ReadOnlyPaths=/srv/sealed-off\nReadOnlyPaths=-/mnt\nReadWritePaths=/srv/sealed-off\n",
        findings=("/srv/sealed-off is read-only to the service (ReadOnlyPaths=)",),
    ),
    "bound": Case(
        "/home/closed/drop",
        dropin="ProtectHome=tmpfs\nBindPaths=/home/closed/drop\n",
        prepare="install -d -oalice -m0700 /home/closed\n",
    ),
    "profiled": Case(
        cloud='profile = "default"\nec2_url = "$EC2_URL"\ns3_url = "$S3_URL"\nregion = "here"\n'
        'account = "$EC2_USER_ID"\n' + PAIR.format("/etc/uecwatchd"),
        prepare=filled(AWS, "/var/lib/uecwatchd/.aws/credentials", owner="uecwatchd"),
    ),
    "published": Case(
        tables={"work": '[outputs]\npage = "/srv/page"\nmetrics = "/srv/metrics"'},
        prepare="install -d -ouecwatchd -m0755 /srv/page /srv/metrics\n",
        dropin="ReadWritePaths=/var/spool/published\n",
        findings=(
            "/srv/page is read-only to the service (ProtectSystem=strict)",
            "/srv/metrics is read-only to the service (ProtectSystem=strict)",
        ),
    ),
    "from-a-file": Case(
        cloud="",
        dropin="EnvironmentFile=/etc/default/from-a-file\n"
        "Environment=http_proxy=http://127.0.0.1:9 no_proxy=127.0.0.1\n",
        prepare="echo UECWATCHD_CLOUD__DEFAULT__EUCARC=/etc/uecwatchd/eucarc > /etc/default/from-a-file\n"
        "chmod 600 /etc/default/from-a-file\n",
    ),
}


# What the unit only proposes, with the place of its spool folder.
LOCKS = re.findall(
    r"^#((?:IPAddress|NoExec|Exec)\w+=.*\n)", (ROOT / "systemd/uecwatchd.service").read_text(), re.M
)
CASES["locked"] = Case(dropin="".join(LOCKS).replace("/var/spool/uecwatchd", "/var/spool/locked"))


@dataclass(frozen=True)
class Tried:
    instance: Instance
    checks: tuple[Any, ...]  # before what it proposed was done, and after


@pytest.fixture(scope="module")
def tried(machine: Machine, instance_class: type[Instance], cloud: Sandbox) -> Mapping[str, Tried]:
    """All cases, each a service of its own, tried at once; each has done a set named like it."""
    instances = {
        name: instance_class(machine, name, case.folder or f"/var/spool/{name}")
        for name, case in CASES.items()
    }
    for name, one in instances.items():
        _install(one, CASES[name], cloud)
    machine.run("systemctl", "daemon-reload")
    with ThreadPoolExecutor(2) as pool:
        checks = dict(zip(instances, pool.map(_checked, instances.values(), CASES.values()), strict=True))
    machine.run("systemctl", "start", *instances, check=False)
    return {name: Tried(one, checks[name]) for name, one in instances.items()}


def _install(one: Instance, case: Case, cloud: Sandbox) -> None:
    one.machine.shell(case.prepare)
    if "ln -s" not in case.prepare:
        one.make_spool()
    said = dict(
        line.removeprefix("export ").split("=", 1)
        for line in cloud.eucarc.read_text().splitlines()
        if "=" in line
    )
    lines = case.cloud
    for key, value in said.items():
        lines = lines.replace(f"${key}", value.strip("'"))
    one.install(
        cloud=lines,
        dropin=case.dropin + ("" if case.findings else f"ReadWritePaths={one.spool}\n"),
        **case.tables,
    )


def _checked(one: Instance, case: Case) -> tuple[Any, ...]:
    before = one.check()
    if not case.findings:
        return (before,)
    command = next(finding["hint"] for finding in before if case.findings[0] in finding["what"])
    one.machine.shell(command.removeprefix("Try: "))
    return before, one.check()


@pytest.mark.parametrize("name", CASES)
def test_a_set_is_registered_under_the_shipped_unit_once_check_has_no_findings(
    tried: Mapping[str, Tried], name: str
) -> None:
    one = tried[name].instance
    assert [finding for finding in tried[name].checks[-1] if finding["level"] == "bad"] == []
    one.drop(name)
    assert one.wait_for(f"{name}.emi").startswith("emi-"), one.log()
    leaves = {"archiving", "deleting"}
    until_gone = one.machine.path(f"{one.spool}/{name}.img")
    if name in leaves:
        one.until(lambda: not until_gone.exists())
    else:
        assert until_gone.exists()


def test_what_is_archived_is_under_its_day_with_the_group_of_the_spool(tried: Mapping[str, Tried]) -> None:
    one = tried["archiving"].instance
    one.drop("second")
    one.until(lambda: list(one.machine.path(f"{one.spool}/done").glob("*/*/*/second.img")))
    found = one.machine.shell(f"find {one.spool}/done -type d -printf '%m %u %g\\n' | sort -u").stdout
    assert found == "2750 uecwatchd uecdrop\n"


def test_the_page_and_the_metrics_can_be_read_by_other_services(tried: Mapping[str, Tried]) -> None:
    one = tried["published"].instance
    one.until(lambda: one.machine.path("/srv/metrics/uecwatchd.prom").exists())
    files = ("/srv/page/status.html", "/srv/page/status.json", "/srv/metrics/uecwatchd.prom")
    page, report, metrics = (one.machine.run("runuser", "-u", "nobody", "cat", file).stdout for file in files)
    assert page.startswith("<!DOCTYPE html>")
    assert json.loads(report)["running"]
    assert 'uecwatchd_cloud_up{cloud="default"}' in metrics


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.findings])
def test_check_says_what_the_shipped_unit_does_not_allow(tried: Mapping[str, Tried], name: str) -> None:
    bad = [f for f in tried[name].checks[0] if f["level"] == "bad"]
    (unit,) = [f["what"] for f in bad if f["what"].startswith(f"{name}.service")]
    assert [words for words in CASES[name].findings if words not in unit] == []


def test_the_locks_that_the_unit_proposes_let_no_program_of_another_user_run(
    tried: Mapping[str, Tried], machine: Machine
) -> None:
    assert [line.partition("=")[0] for line in LOCKS] == [
        "IPAddressDeny",
        "IPAddressAllow",
        "NoExecPaths",
        "ExecPaths",
    ]
    leader = machine.run("systemctl", "show", "locked", "--property=MainPID", "--value").stdout.strip()
    inside = ("nsenter", f"--target={leader}", "--mount", "--")
    machine.run(*inside, "/opt/uecwatchd/bin/python", "-c", "pass")
    for folder in (tried["locked"].instance.spool, "/var/lib/uecwatchd", "/tmp", "/var/tmp"):  # noqa: S108
        machine.run(*inside, "cp", "/bin/true", f"{folder}/planted")
        assert machine.run(*inside, f"{folder}/planted", check=False).returncode == 126, folder
        machine.run(*inside, "rm", f"{folder}/planted")


def test_no_set_name_can_control_a_terminal(tried: Mapping[str, Tried]) -> None:
    one = tried["keeping"].instance
    for name in ("plain", "evil\x1b]0;owned\x07", "c1-\x9b2J", "bidi-\u202egnp"):
        one.drop(name)
    ends = (
        "plain is emi-",
        r"evil\x1b]0;owned\x07 is emi-",
        r"c1-\x9b2J is rejected",
        r"bidi-\u202egnp is rejected",
    )

    def journal() -> str:
        return one.machine.run("journalctl", "-x", "--unit", one.name, "--no-pager").stdout

    one.until(lambda: all(end in journal() for end in ends))
    assert [char for char in journal() if not char.isprintable() and char != "\n"] == []
    assert "plain is emi-" in one.machine.run("journalctl", "UEC_SET=plain", "--no-pager").stdout


def test_a_full_disk_is_reported_at_once_and_work_starts_when_there_is_space(
    machine: Machine, instance_class: type[Instance]
) -> None:
    one = instance_class(machine, "crowded", "/var/spool/crowded")
    one.make_spool()
    machine.shell(
        "install -d -ouecwatchd -m0700 /var/lib/crowded\n"
        "mount -t tmpfs -o size=64k,uid=uecwatchd,mode=0700 tmpfs /var/lib/crowded\n"
        "dd if=/dev/zero of=/var/lib/crowded/full bs=1k 2>/dev/null || true\n"
    )
    one.install(dropin="ReadWritePaths=/var/spool/crowded\n")
    machine.shell("systemctl daemon-reload; systemctl start crowded")
    status = machine.run("systemctl", "show", "crowded", "--property=StatusText").stdout
    assert "Waiting: " in status
    assert "No space left" in status or "full" in status
    assert "Nothing is begun yet" in one.log()
    machine.shell("systemctl reload crowded; mount -o remount,size=64m /var/lib/crowded")
    one.drop("crowded")
    assert one.wait_for("crowded.emi").startswith("emi-")
    assert machine.run("systemctl", "show", "crowded", "--property=NRestarts").stdout == "NRestarts=0\n"


def test_no_core_of_the_service_is_written(machine: Machine, tried: Mapping[str, Tried]) -> None:
    leader = machine.run("systemctl", "show", "keeping", "--property=MainPID", "--value").stdout.strip()
    assert (
        "Max core file size        0                    0"
        in machine.path(f"/proc/{leader}/limits").read_text()
    )
