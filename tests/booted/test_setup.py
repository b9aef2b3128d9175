"""Other ways of `uecwatchd setup`: options of a script, questions, no encryption, and mistakes."""

import errno
import os
import pty
import subprocess
from collections.abc import Iterator

import pytest

from tests.booted.conftest import Instance, Machine
from tests.booted.test_verbs import said_by
from uecwatchd.cli.setup.answers import EUCARC, QUESTIONS
from uecwatchd.sandbox.server import Sandbox

pytestmark = pytest.mark.exhaustive

UNIT = "/etc/systemd/system/uecwatchd.service"
PEMS = {"user_cert": "euca2-admin-cert", "user_key": "euca2-admin-pk", "cloud_cert": "cloud-cert"}
STORES = "/etc/credstore /etc/credstore.encrypted"


@pytest.fixture
def host(machine: Machine, instance_class: type[Instance], cloud: Sandbox) -> Iterator[Instance]:
    """The unit at its own place, not set up; credentials that only root can read."""
    one = instance_class(machine, "uecwatchd", "/var/spool/uecwatchd")
    one.make_spool()
    machine.shell(
        f"rm -rf {UNIT}.d {STORES}; cp /opt/source/systemd/uecwatchd.service {UNIT}\n"
        "systemctl daemon-reload\n"
        "install -m640 -g uecwatchd /opt/source/etc/uecwatchd.toml /etc/uecwatchd/uecwatchd.toml\n"
        "mkdir -p -m700 /root/creds; cp /etc/uecwatchd/*.pem /root/creds; chmod 600 /root/creds/*"
    )
    yield one
    machine.shell(
        f"systemctl disable --quiet --now uecwatchd; rm -rf {UNIT} {UNIT}.d {STORES}; systemctl daemon-reload"
    )


def options(cloud: Sandbox) -> list[str]:
    """The cloud, said by options, without its secret key."""
    said = said_by(cloud)
    names = {
        "ec2-url": "EC2_URL",
        "s3-url": "S3_URL",
        "account": "EC2_USER_ID",
        "access-key": "EC2_ACCESS_KEY",
    }
    values = [f"--{option}={said[name]}" for option, name in names.items()]
    return [*values, *(f"--{key.replace('_', '-')}=/root/creds/{file}.pem" for key, file in PEMS.items())]


def test_a_script_sets_up_by_options_and_gives_the_secret_on_standard_input(
    host: Instance, cloud: Sandbox
) -> None:
    secret = said_by(cloud)["EC2_SECRET_KEY"]
    words = ("uecwatchd", "setup", *options(cloud), "--secret-key-file=-")
    said = host.machine.run(*words, text=f"{secret}\n").stdout
    assert "bad " not in said
    assert secret not in said
    assert host.machine.run("systemctl", "is-active", "uecwatchd").stdout == "active\n"


def test_a_host_without_systemd_creds_keeps_credentials_for_root_alone(
    host: Instance, cloud: Sandbox
) -> None:
    host.machine.shell("mount --bind /bin/false /usr/bin/systemd-creds")
    try:
        words = ("uecwatchd", "setup", *options(cloud), "--secret-key-file=-")
        host.machine.run(*words, text=said_by(cloud)["EC2_SECRET_KEY"])
    finally:
        host.machine.shell("umount /usr/bin/systemd-creds")
    found = host.machine.shell("find /etc/credstore -type f -printf '%m %u %f\\n' | sort").stdout.splitlines()
    assert [line.split()[:2] for line in found] == [["600", "root"]] * 5
    assert host.machine.run("systemctl", "is-active", "uecwatchd").stdout == "active\n"


def test_a_person_is_asked_on_a_terminal_and_the_secret_is_not_shown(host: Instance, cloud: Sandbox) -> None:
    said = said_by(cloud)
    answers = {
        EUCARC: "",
        QUESTIONS["ec2_url"]: said["EC2_URL"],
        QUESTIONS["s3_url"]: said["S3_URL"],
        QUESTIONS["account"]: said["EC2_USER_ID"],
        QUESTIONS["access_key"]: said["EC2_ACCESS_KEY"],
        QUESTIONS["secret_key"]: said["EC2_SECRET_KEY"],
        **{QUESTIONS[key]: f"/root/creds/{file}.pem" for key, file in PEMS.items()},
    }
    shown = conversation(host.machine, answers, "uecwatchd", "setup")
    assert said["EC2_SECRET_KEY"] not in shown
    assert "Start the service" in shown
    assert host.machine.run("systemctl", "is-active", "uecwatchd").stdout == "active\n"


def conversation(machine: Machine, answers: dict[str, str], *command: str) -> str:
    """Run a command on a terminal, and answer its questions; return all that was shown."""
    ours, theirs = pty.openpty()
    words = ["nsenter", f"--target={machine.leader}", "--all", "--wdns=/", "--", *command]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TERM": "dumb", "LANG": "C.UTF-8"}
    shown, left = "", dict(answers)
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        while data := _read(ours):
            shown += data.decode()
            for question in [one for one in left if f"{one}: " in shown]:
                os.write(ours, f"{left.pop(question)}\n".encode())
        assert process.wait(60) == 0, shown
    os.close(ours)
    assert left == {}, shown
    return shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError as error:
        if error.errno != errno.EIO:  # the other side is closed
            raise
        return b""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--eucarc=/root/nothing",), 78, "/root/nothing (eucarc of cloud default): cannot read it"),
        (("--user-key=/root/nothing",), 78, "/root/nothing: cannot read it: No such file"),
        (("--dialect=foo",), 78, 'cloud.default.dialect = "foo" must be auto, uec,'),
        (("--member=malory",), 78, "user malory: there is no such user on this host"),
        (("--cloud=Not/One",), 78, "--cloud Not/One: is no name for a cloud"),
        (("--purge",), 78, "--purge: it belongs to --remove"),
        (("--unit=nothing",), 78, "nothing.service: this host has no such unit"),
    ],
)
def test_a_mistake_is_said_before_anything_is_changed(
    host: Instance, words: tuple[str, ...], code: int, said: str
) -> None:
    before = listing(host.machine)
    ended = host.machine.run("uecwatchd", "setup", *words, check=False)
    assert (ended.returncode, said in ended.stderr) == (code, True), ended.stderr
    assert listing(host.machine) == before


def listing(machine: Machine) -> str:
    return machine.shell("find /etc -xdev -type f -printf '%p %s %T@\\n' | sort | sha256sum").stdout


def test_only_root_may_set_up(host: Instance) -> None:
    ended = host.machine.run("runuser", "-u", "alice", "--", "uecwatchd", "setup", check=False)
    assert ended.returncode == 77
    assert "Try: sudo uecwatchd setup" in ended.stderr


def test_a_full_removal_deletes_what_was_set_up_and_no_image(host: Instance, cloud: Sandbox) -> None:
    secret = said_by(cloud)["EC2_SECRET_KEY"]
    host.machine.run("uecwatchd", "setup", *options(cloud), "--secret-key-file=-", text=secret)
    host.machine.run("runuser", "-u", "alice", "--", "touch", f"{host.spool}/draft.txt")
    host.machine.run("uecwatchd", "setup", "--remove", "--purge")
    once = UNIT.replace("uecwatchd.service", "uecwatchd-once.service")
    there = [host.config, "/var/lib/uecwatchd", f"{UNIT}.d/50-setup.conf", f"{once}.d"]
    assert [path for path in there if host.machine.path(path).exists()] == []
    assert host.machine.shell(f"find {STORES} -type f 2>/dev/null || true").stdout == ""
    assert host.machine.path(f"{host.spool}/draft.txt").exists()


def test_a_service_that_does_not_start_is_no_success_and_starts_when_it_can(
    host: Instance, cloud: Sandbox
) -> None:
    broken, run = f"{UNIT}.d/broken.conf", host.machine.run
    host.machine.write(broken, "[Service]\nExecStart=\nExecStart=/bin/false\nRestart=no\n")
    words, secret = ("uecwatchd", "setup", *options(cloud)), said_by(cloud)["EC2_SECRET_KEY"]
    ended = run(*words, "--secret-key-file=-", text=secret, check=False)
    assert ended.returncode == 78
    assert "systemctl start uecwatchd.service: " in ended.stderr
    for _ in range(6):  # more than StartLimitBurst=
        run("systemctl", "start", "uecwatchd", check=False)
    host.machine.shell(f"rm {broken}; systemctl daemon-reload")
    run(*words, "--secret-key-file=-", text=secret)
    assert run("systemctl", "is-active", "uecwatchd").stdout == "active\n"
