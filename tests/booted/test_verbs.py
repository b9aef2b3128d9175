"""Verbs by hand beside the unit: they see what systemd gives to the service, and leave nothing that it cannot
use."""

import json
from collections.abc import Iterator
from subprocess import CompletedProcess

import pytest

from tests.booted.conftest import Instance, Machine
from uecwatchd.sandbox.server import Sandbox

pytestmark = pytest.mark.exhaustive

AS_SERVICE = ("runuser", "-u", "uecwatchd", "--")
VARIABLES = {"access_key": "EC2_ACCESS_KEY", "secret_key": "EC2_SECRET_KEY"}
ADDRESSES = {"ec2_url": "EC2_URL", "s3_url": "S3_URL"}
FILES = {"user_key": "euca2-admin-pk", "user_cert": "euca2-admin-cert", "cloud_cert": "cloud-cert"}


def said_by(cloud: Sandbox) -> dict[str, str]:
    """The variables of its eucarc."""
    lines = (line.removeprefix("export ") for line in cloud.eucarc.read_text().splitlines() if "=" in line)
    return {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)}


@pytest.fixture(scope="module")
def secretive(machine: Machine, instance_class: type[Instance], cloud: Sandbox) -> Iterator[Instance]:
    """The shipped unit under its own name, with all secrets as credentials that only root can read."""
    one = instance_class(machine, "uecwatchd", "/var/spool/uecwatchd")
    said = said_by(cloud)
    machine.shell("install -d -m0700 /srv/keys; cp /etc/uecwatchd/*.pem /srv/keys; chmod 600 /srv/keys/*")
    dropin = "Environment='UECWATCHD_SPOOL__IGNORE=*.skip.img'\n"
    dropin += f"Environment=UECWATCHD_CLOUD__DEFAULT__ACCOUNT={said['EC2_USER_ID']}\n"
    dropin += "EnvironmentFile=/etc/default/uecwatchd\n"
    for key, name in VARIABLES.items():
        machine.write(f"/srv/keys/{key}", f"{said[name]}\n", mode=0o600)
        dropin += f"LoadCredential=uecwatchd_{key}:/srv/keys/{key}\n"
    for key, file in FILES.items():
        dropin += f"LoadCredential=uecwatchd_cloud__default__{key}:/srv/keys/{file}.pem\n"
    machine.write("/etc/default/uecwatchd", 'UECWATCHD_DEFAULTS__BUCKET="of-the-unit"\n', mode=0o600)
    one.install(cloud="\n".join(f'{key} = "{said[name]}"' for key, name in ADDRESSES.items()), dropin=dropin)
    machine.shell(f"chgrp uecwatchd {one.config}; chmod 0640 {one.config}; systemctl daemon-reload")
    yield one
    machine.run("systemctl", "stop", "uecwatchd")


@pytest.fixture
def stopped(secretive: Instance) -> Instance:
    secretive.machine.run("systemctl", "stop", "uecwatchd")
    return secretive


def ours(machine: Machine, *arguments: str, code: int = 0, **environ: str) -> CompletedProcess[str]:
    """A verb as an administrator types it: as root, with nothing said of the unit."""
    settings = [f"{name}={value}" for name, value in environ.items()]
    ended = machine.run("env", *settings, "uecwatchd", *arguments, check=False)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended


def of_root(one: Instance) -> str:
    """List the files of root in the service's folders."""
    return one.machine.shell(f"find {one.state} {one.spool} -user root").stdout


def test_check_finds_credentials_and_environment_of_a_unit_that_is_not_running(stopped: Instance) -> None:
    found = stopped.check()
    assert [f for f in found if f["level"] == "bad"] == []
    assert "of-the-unit" in json.dumps(found)


def test_a_verb_sees_what_the_unit_says_of_files_and_of_the_cloud(stopped: Instance) -> None:
    stopped.drop("left.skip")
    assert "*.skip.img" in ours(stopped.machine, "status").stdout
    ours(stopped.machine, "images")


def test_the_proxy_of_the_caller_is_not_that_of_the_service(stopped: Instance) -> None:
    ours(stopped.machine, "images", http_proxy="http://127.0.0.1:9")


def test_a_setting_of_the_caller_comes_before_that_of_the_unit(stopped: Instance) -> None:
    stopped.drop("right.skip")
    row = ours(stopped.machine, "status", "--json", "right.skip.img", UECWATCHD_SPOOL__IGNORE="none").stdout
    assert "*.skip.img" not in row


def test_a_verb_with_another_configuration_uses_no_settings_of_the_unit(stopped: Instance) -> None:
    stopped.machine.run("install", "-m0644", stopped.config, "/etc/uecwatchd/other.toml")
    ended = ours(stopped.machine, "images", "--config", "/etc/uecwatchd/other.toml", code=78)
    assert "user_cert is not set" in ended.stderr


def test_the_user_of_the_service_is_told_to_ask_as_root(stopped: Instance) -> None:
    ended = stopped.machine.run(*AS_SERVICE, "uecwatchd", "status", check=False)
    assert ended.returncode == 77
    assert "Try: sudo uecwatchd status" in ended.stderr


def test_no_secret_remains_after_the_verb_has_ended(stopped: Instance) -> None:
    ours(stopped.machine, "images")
    script = "grep -rl 'PRIVATE KEY' /run /tmp /var/tmp /dev/shm 2>/dev/null || true"
    found = stopped.machine.shell(script).stdout.splitlines()
    others = "/run/credentials/"  # of services that run just now
    assert [path for path in found if not path.startswith(others) or "/uecwatchd.service/" in path] == []


def test_a_credential_that_is_gone_is_named(stopped: Instance) -> None:
    stopped.machine.run("mv", "/srv/keys/secret_key", "/srv/keys/away")
    try:
        ended = ours(stopped.machine, "check", code=78)
    finally:
        stopped.machine.run("mv", "/srv/keys/away", "/srv/keys/secret_key")
    assert "there is no /srv/keys/secret_key" in ended.stderr


SEALED = "printf %s {0} | systemd-creds encrypt --with-key=host --name={1} {2} - {3} 2>/dev/null\n"


@pytest.fixture
def sealed(machine: Machine, instance_class: type[Instance], cloud: Sandbox) -> Instance:
    """A unit that has a credential of each kind there is."""
    one = instance_class(machine, "sealed", "/var/spool/sealed")
    one.make_spool()
    said = said_by(cloud)
    values = {name: said[f"EC2_{name.upper()}"] for name in VARIABLES}
    names = {name: f"uecwatchd_{name}" for name in VARIABLES}
    url = SEALED.format(said["S3_URL"], "uecwatchd_cloud__default__s3_url", "", "/srv/s3_url.cred")
    secret = SEALED.format(values["secret_key"], names["secret_key"], "--pretty", "-")
    dropin = machine.shell(url + secret).stdout
    dropin += f"SetCredential={names['access_key']}:{values['access_key']}\n"
    dropin += "LoadCredentialEncrypted=uecwatchd_cloud__default__s3_url:/srv/s3_url.cred\n"
    dropin += "LoadCredential=uecwatchd_cloud__default__region\n"  # of the host, which gives none
    lines = [f'ec2_url = "{said["EC2_URL"]}"', f'account = "{said["EC2_USER_ID"]}"']
    lines += [f'{key} = "/etc/uecwatchd/{file}.pem"' for key, file in FILES.items()]
    one.install(cloud="\n".join(lines), dropin=dropin + "ReadWritePaths=/var/spool/sealed\n")
    machine.run("systemctl", "daemon-reload")
    return one


def test_a_verb_uses_every_kind_of_credentials_of_the_unit(sealed: Instance) -> None:
    assert [f for f in sealed.check() if f["level"] == "bad"] == []
    sealed.verb("images")


def test_settings_that_a_verb_cannot_apply_are_named_without_secrets(sealed: Instance) -> None:
    lines = """[Service]
LoadCredentialEncrypted=garbled:/etc/passwd
LoadCredentialEncrypted=gone:/srv/gone.cred
LoadCredential=closed:/run/nobody-listens.sock
EnvironmentFile=/etc
"""
    sealed.machine.write("/etc/systemd/system/sealed.service.d/worse.conf", lines)
    sealed.machine.run("systemctl", "daemon-reload")
    ended = sealed.verb("images", check=False)
    assert ended.returncode == 78
    for words in (
        "LoadCredentialEncrypted=garbled cannot be used",
        "there is no /srv/gone.cred, which LoadCredentialEncrypted= names",
        "there is no /run/nobody-listens.sock, which LoadCredential= names",
        "EnvironmentFile=/etc cannot be used",
    ):
        assert words in ended.stderr
    assert "uecwatchd_" not in ended.stderr


def test_files_that_root_creates_by_hand_belong_to_the_service(stopped: Instance) -> None:
    machine = stopped.machine
    machine.run("rm", "-rf", stopped.state)
    machine.run("systemd-tmpfiles", "--create")
    stopped.drop("byhand")
    for verb in ("once", "check", "status", "images", "verify byhand", "hold byhand", "release byhand"):
        ours(machine, *verb.split())
        assert of_root(stopped) == "", verb
    machine.run("systemctl", "start", "uecwatchd")
    stopped.drop("later")
    stopped.wait_for("later.emi")
    ours(machine, "forget", "later")
    assert of_root(stopped) == ""


def test_status_as_root_shows_what_the_service_sees(stopped: Instance) -> None:
    stopped.drop("private")
    stopped.machine.run("chmod", "0600", f"{stopped.spool}/private.img")
    try:  # which reports it once it has settled
        stopped.until(lambda: "mode 0600, owner alice" in ours(stopped.machine, "status", "private").stdout)
    finally:
        stopped.machine.run("rm", f"{stopped.spool}/private.img")


def test_root_still_sees_which_process_has_a_file_open_for_writing(stopped: Instance) -> None:
    stopped.drop("open")  # and it has to be unchanged for a moment first
    asked = f"exec 3>>{stopped.spool}/open.img; uecwatchd status open"
    stopped.until(lambda: "writ" in stopped.machine.shell(asked).stdout)


@pytest.mark.parametrize("name", ["ledger.sqlite", "lock"])
def test_the_proposed_command_corrects_files_that_root_has_left_behind(stopped: Instance, name: str) -> None:
    machine = stopped.machine
    ours(machine, "once")
    machine.shell(f"chown root: {stopped.state}/{name}; chmod 600 {stopped.state}/{name}")
    ended = ours(machine, "once", code=77)
    machine.shell(ended.stderr.splitlines()[-1].strip().removeprefix("Try: sudo "))
    ours(machine, "once")
