"""The package in the life of a host: installed, set up, used, upgraded, removed. The tests are one story, and
each goes on where the one before ended."""

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.booted.conftest import MISSING, PACKAGES, ROOT, Machine, booted
from tests.support.waiting import until
from uecwatchd.sandbox.server import Sandbox

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(bool(MISSING), reason=MISSING or "-"),
    pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no Debian packages here"),
]

SPOOL = "/var/spool/uecwatchd"
CONFIG = "/etc/uecwatchd/uecwatchd.toml"
CREDENTIALS = Path("/etc/credstore.encrypted")
ONCE = "uecwatchd-once.service"
# Five parts, one after another, and a cloud that takes its time for each: time to do something in the middle.
LARGE_MIB, ANSWER_SECONDS = 48, 0.6
QUICK_WATCHDOG = "[Service]\nWatchdogSec=4s\nRestartSec=100ms\n"

# Run under the settings of the shipped unit, by its own user; each line of its output is one attempt.
PROBE = """
import json, os, socket, sys
def attempt(name, act):
    try:
        act()
    except OSError as error:
        print(json.dumps([name, type(error).__name__]))
    else:
        print(json.dumps([name, "done"]))
for folder in ("/etc", "/usr", "/var", "/boot", "/opt", "/srv", "/var/lib", "/var/spool", "/home/alice"):
    attempt(f"write {folder}", lambda: open(f"{folder}/planted", "w").close())
for folder in ("/var/lib/uecwatchd", "/var/cache/uecwatchd", "/var/spool/uecwatchd"):
    attempt(f"write {folder}", lambda: (open(f"{folder}/.probe", "w").close(), os.unlink(f"{folder}/.probe")))
attempt("read /home/alice/diary", lambda: open("/home/alice/diary").read())
attempt("read /root/creds/eucarc", lambda: open("/root/creds/eucarc").read())
for address, port in ((sys.argv[1], sys.argv[2]), ("127.0.0.1", sys.argv[2])):
    attempt(f"reach {address}", lambda: socket.create_connection((address, int(port)), timeout=3).close())
"""
PROBE_SETTINGS = """[Service]
Type=oneshot
ExecStart=
ExecStart=/usr/lib/uecwatchd/bin/python /usr/share/probe.py {address} {port}
Restart=no
WatchdogSec=0
IPAddressDeny=any
IPAddressAllow=localhost
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two versions of the package, of what is installed for these tests: nothing is fetched."""
    folder = tmp_path_factory.mktemp("packages")
    script = [sys.executable, ROOT / "etc/packaging/build_deb.py", "--libraries", PACKAGES, folder]
    subprocess.run(script, check=True, stdout=subprocess.PIPE)
    (first,) = folder.glob("*.deb")
    return first, newer(first, folder)


def newer(package: Path, folder: Path) -> Path:
    """Return the package again, with a higher version, and a new comment in its configuration."""
    tree, made = folder / "tree", folder / "newer.deb"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*-1$", r"\g<0>.1", control.read_text()))
    configuration = tree / "usr/share/uecwatchd/uecwatchd.toml"
    configuration.write_text(f"{configuration.read_text()}# a new comment\n")
    build = ("dpkg-deb", "-Znone", "--root-owner-group", "--build", tree, made)
    subprocess.run(build, check=True, stdout=subprocess.PIPE)
    shutil.rmtree(tree)
    return made


class Host:
    """A booted host with the package and its people."""

    def __init__(self, machine: Machine, cloud: Sandbox) -> None:
        self.machine, self.cloud = machine, cloud
        self.run, self.shell = machine.run, machine.shell

    def dpkg(self, option: str, package: Path | str) -> None:
        if isinstance(package, Path):
            copy = self.machine.path("/var/tmp/it.deb")  # noqa: S108 (the container's own)
            shutil.copyfile(package, copy)
            self.run("dpkg", option, "/var/tmp/it.deb")  # noqa: S108
            copy.unlink()
        else:
            self.run("dpkg", option, package)

    def setup(self, *options: str) -> str:
        return self.run("uecwatchd", "setup", *options).stdout

    def drop(self, name: str, *, mib: int = 1) -> None:
        """As alice, an image full of random bytes."""
        script = f"""cd "$(mktemp -d)" && mkdir files
            dd if=/dev/urandom of=files/data bs=1M count={mib} status=none
            mke2fs -q -t ext2 -m 0 -d files image {mib + mib // 8 + 4}M && mv image {SPOOL}/{name}.img"""
        self.run("runuser", "-u", "alice", "--", "sh", "-euc", script)

    def wait_for(self, output: str) -> str:
        path = self.machine.path(f"{SPOOL}/{output}")
        self.until(path.exists)
        return path.read_text()

    def until(self, happened: object) -> None:
        until(happened, detail=self.log)

    def log(self) -> str:
        return self.run("journalctl", "--unit=uecwatchd", "--output=cat", "--no-pager").stdout

    def state(self, setting: str, unit: str = "uecwatchd.service") -> str:
        return self.run("systemctl", "show", unit, f"--property={setting}", "--value").stdout.strip()

    def edit(self, old: str, new: str) -> None:
        """Change the configuration, and wait until the service has read it: a reload does not."""
        path, before = self.machine.path(CONFIG), self.readings()
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        self.run("systemctl", "reload", "uecwatchd")
        self.until(lambda: self.readings() > before)

    def readings(self) -> int:
        """Count the times that the service has read another configuration, good or bad."""
        said = ("Read the configuration again", "Kept the old configuration: ")
        return sum(self.log().count(sentence) for sentence in said)

    def sent(self, name: str) -> list[str]:
        """The parts of an image that the cloud has received."""
        puts = [one.path for one in self.cloud.requests if one.method == "PUT" and one.status == 200]
        return [path for path in puts if f"/{name}-" in path and ".part." in path]


@pytest.fixture(scope="module")
def host(
    tmp_path_factory: pytest.TempPathFactory, cloud: Sandbox, packages: tuple[Path, Path]
) -> Iterator[Host]:
    with booted(tmp_path_factory.mktemp("package") / "machine") as machine:
        machine.shell("rm -f /usr/bin/uecwatchd /usr/sbin/policy-rc.d; rmdir /etc/uecwatchd")
        machine.shell("for user in alice bob carol; do useradd --create-home $user; done")
        machine.shell(
            "umask 077; echo secret > /home/alice/diary; chmod 755 /home/alice; chmod 644 /home/alice/*"
        )
        for file in (cloud.eucarc, *cloud.folder.glob("*.pem")):
            machine.write(f"/root/creds/{file.name}", file.read_text(), mode=0o600)
        host = Host(machine, cloud)
        host.dpkg("--install", packages[0])
        yield host
        cloud.faults.clear()


def test_installing_starts_nothing_and_closes_the_configuration(host: Host) -> None:
    assert (host.state("ActiveState"), host.state("UnitFileState")) == ("inactive", "disabled")
    modes = host.shell(f"stat -c '%a %U %G' /etc/uecwatchd {CONFIG} {SPOOL} /etc/sudoers.d/uecwatchd").stdout
    assert modes.splitlines() == [
        "750 root uecwatchd",
        "640 root uecwatchd",
        "3770 uecwatchd uecdrop",
        "440 root root",
    ]
    ends = (".service", "-once.service", "-once.path", "-once.timer", "-build.service", "-build.path")
    units = [f"uecwatchd{end}" for end in ends]
    verdict = host.run("systemd-analyze", "verify", "--man=no", *units)
    assert verdict.stderr == ""
    assert "uecwatchd" in host.run("journalctl", "--list-catalog").stdout
    host.run("visudo", "--check", "--quiet")
    host.run("dpkg", "--verify", "uecwatchd")


def test_a_trial_of_the_setup_changes_nothing(host: Host) -> None:
    changed = "find /etc -newer /root/creds -type f | sort"
    before = host.shell(f"touch /root/creds; {changed}").stdout
    said = host.setup("--dry-run", "--eucarc=/root/creds/eucarc", "--member=alice")
    assert "Would: Add alice to the group uecdrop" in said
    assert host.shell(changed).stdout == before
    assert host.state("ActiveState") == "inactive"


def test_one_command_leads_to_a_running_service_with_encrypted_credentials(host: Host) -> None:
    said = host.setup("--eucarc=/root/creds/eucarc", "--member=alice", "--operator=bob")
    assert "bad " not in said
    assert (host.state("ActiveState"), host.state("UnitFileState")) == ("active", "enabled")
    text = host.machine.path("/root/creds/eucarc").read_text()
    secret = re.search(r"EC2_SECRET_KEY='?([^'\n]+)", text)
    assert secret
    for found in (secret[1], "PRIVATE KEY"):
        assert host.run("grep", "-rlF", "--", found, "/etc/uecwatchd", CREDENTIALS, check=False).stdout == ""
    assert "alice" in host.run("getent", "group", "uecdrop").stdout


def test_a_second_setup_has_nothing_to_change(host: Host) -> None:
    started = host.state("ExecMainStartTimestampMonotonic")
    said = host.setup("--eucarc=/root/creds/eucarc", "--member=alice", "--operator=bob")
    assert said.startswith("Nothing to change.")
    assert host.state("ExecMainStartTimestampMonotonic") == started


def test_a_reload_uses_a_good_configuration_and_keeps_the_old_one_over_a_bad_one(host: Host) -> None:
    host.edit("#settle = 5", "settle = 0.3")
    host.edit('#kernel = "eki-12345678"', 'kernel = "none"')
    host.edit("#uploads = 4", "uploads = 1")
    host.edit("#scan_every = 60", 'scan_every = "often"')
    assert "scan_every" in host.log()
    host.until(lambda: host.state("ActiveState") == "active")  # it says so before the reload has ended
    host.drop("reloaded")
    assert host.wait_for("reloaded.emi").startswith("emi-")
    host.edit('scan_every = "often"', "scan_every = 60")


def test_a_member_gets_an_id_and_the_journal_tells_the_story_of_the_set(host: Host) -> None:
    host.drop("karmic")
    emi = host.wait_for("karmic.emi").strip()
    host.until(lambda: f"karmic is {emi}" in host.log())
    story = host.run("journalctl", "-x", "-t", "uecwatchd", "UEC_SET=karmic", "--output=cat", "--no-pager")
    lines = [line for line in story.stdout.splitlines() if line and not line.startswith("--")]
    told = " ".join(lines)
    assert [word for word in ("Found", "ploaded", "egistered", f"karmic is {emi}") if word not in told] == []
    assert "reloaded" not in told
    assert "karmic" in host.run("journalctl", f"UEC_EMI={emi}", "--no-pager").stdout


def test_an_operator_may_use_the_verbs_and_nobody_else(host: Host) -> None:
    as_bob = ("runuser", "-u", "bob", "--")
    assert "karmic" in host.run(*as_bob, "uecwatchd", "status").stdout
    assert "held" in host.run(*as_bob, "uecwatchd", "hold", "later").stdout + host.log()
    host.run(*as_bob, "uecwatchd", "release", "later")
    assert host.run("runuser", "-u", "carol", "--", "uecwatchd", "status", check=False).returncode == 77
    for words in (("--config", "/tmp/x"), ("x --config=/tmp/x",), ("--unit=x",), ("--conf=/tmp/x",)):  # noqa: S108
        refused = host.run(*as_bob, "sudo", "-n", "uecwatchd", "status", *words, check=False)
        assert "password is required" in refused.stderr, words
    host.run(*as_bob, "sudo", "-n", "--list", "--", "uecwatchd", "status", "--watch=5")
    assert host.run(*as_bob, "sudo", "-n", "uecwatchd", "inspect", "/etc/shadow", check=False).returncode == 1


def test_the_confined_service_reaches_only_its_own_folders_and_allowed_addresses(host: Host) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:  # noqa: S104 (an address that is not loopback)
        address, port = own_address(), listener.getsockname()[1]
        units = "/usr/lib/systemd/system/probe.service"
        host.machine.write("/usr/share/probe.py", PROBE)
        host.machine.write(units, "[Unit]\n")
        host.machine.write(f"{units}.d/20-probe.conf", PROBE_SETTINGS.format(address=address, port=port))
        host.shell(f"ln -s ../uecwatchd.service {units}.d/10-unit.conf; systemctl daemon-reload")
        host.run("systemctl", "start", "probe")
    output = host.run("journalctl", "--unit=probe", "--output=cat", "--no-pager").stdout
    found = dict(json.loads(line) for line in output.splitlines() if line.startswith("["))
    allowed = {name for name, result in found.items() if result == "done"}
    own = {"/var/lib/uecwatchd", "/var/cache/uecwatchd", SPOOL}
    assert allowed == {*(f"write {folder}" for folder in own), "reach 127.0.0.1"}
    assert len(found) == 16


def own_address() -> str:
    """An address of this machine that is not loopback; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has only its loopback")
        return str(asked.getsockname()[0])


def test_a_service_that_hangs_is_killed_and_goes_on_with_its_work(host: Host) -> None:
    host.machine.write("/etc/systemd/system/uecwatchd.service.d/quick.conf", QUICK_WATCHDOG)
    host.shell("systemctl daemon-reload; systemctl restart uecwatchd")
    slowly(host, "hung")
    host.run("kill", "-STOP", host.state("MainPID"))
    host.until(lambda: host.state("NRestarts") == "1")
    finished(host, "hung")
    assert "Resuming hung" in host.log()
    host.shell("rm /etc/systemd/system/uecwatchd.service.d/quick.conf; systemctl daemon-reload")
    host.run("systemctl", "restart", "uecwatchd")


def test_a_stop_in_the_middle_of_an_upload_loses_at_most_one_part(host: Host) -> None:
    slowly(host, "stopped")
    host.run("systemctl", "stop", "uecwatchd")
    assert (host.state("ExecMainCode"), host.state("ExecMainStatus")) == ("1", "0")  # it has exited with 0
    host.run("systemctl", "start", "uecwatchd")
    finished(host, "stopped")
    sent = host.sent("stopped")
    assert len(sent) - len(set(sent)) <= 1


@pytest.mark.parametrize("version", [1, 0], ids=["upgrade", "downgrade"])
def test_another_version_goes_on_with_the_work_under_way(
    host: Host, packages: tuple[Path, Path], version: int
) -> None:
    name = f"version{version}"
    slowly(host, name)
    host.dpkg("--install", packages[version])
    shown = host.run("dpkg-query", "--show", "--showformat=${Version}", "uecwatchd").stdout
    assert shown.endswith("-1.1") is bool(version)
    assert (host.state("ActiveState"), host.state("UnitFileState")) == ("active", "enabled")
    finished(host, name)
    sent = host.sent(name)
    assert len(sent) - len(set(sent)) <= 1


def test_an_upgrade_stops_a_single_run_and_does_not_wait_for_its_second_half(
    host: Host, packages: tuple[Path, Path]
) -> None:
    host.run("systemctl", "disable", "--now", "uecwatchd")
    slowly(host, "single", single_run=True)
    before = host.state("InvocationID", ONCE)
    host.dpkg("--install", packages[1])
    assert not host.machine.path(f"{SPOOL}/single.emi").exists()
    assert host.state("ActiveState", ONCE) == "activating"
    assert host.state("InvocationID", ONCE) != before
    finished(host, "single")
    sent = host.sent("single")
    assert len(sent) - len(set(sent)) <= 1
    host.until(lambda: host.state("ActiveState", ONCE) == "inactive")
    host.run("systemctl", "enable", "--now", "uecwatchd")


def slowly(host: Host, name: str, *, single_run: bool = False) -> None:
    """Drop a large image, and wait until a part of it, and not all, is in the cloud."""
    host.cloud.faults.arm("slow", ANSWER_SECONDS)
    host.drop(name, mib=LARGE_MIB)
    if single_run:
        host.run("systemctl", "start", "--no-block", ONCE)
    host.until(lambda: host.sent(name))
    assert not host.machine.path(f"{SPOOL}/{name}.emi").exists()


def finished(host: Host, name: str) -> None:
    host.cloud.faults.clear()
    assert host.wait_for(f"{name}.emi").startswith("emi-")


@pytest.mark.parametrize(("before", "after"), [("keep", "archive"), ("archive", "delete")])
def test_finished_files_are_archived_or_deleted(host: Host, before: str, after: str) -> None:
    comment = "#" if before == "keep" else ""
    host.edit(f'{comment}after = "{before}"', f'after = "{after}"')
    host.drop(f"to-{after}")
    host.wait_for(f"to-{after}.emi")
    host.until(lambda: not host.machine.path(f"{SPOOL}/to-{after}.img").exists())
    archived = host.shell(f"find {SPOOL}/done -name to-{after}.img").stdout
    assert bool(archived) is (after == "archive")


def test_a_removal_stops_the_service_and_a_new_installation_starts_it_again(
    host: Host, packages: tuple[Path, Path]
) -> None:
    host.dpkg("--remove", "uecwatchd")
    assert host.run("systemctl", "is-active", "uecwatchd", check=False).stdout.strip() == "inactive"
    assert not host.machine.path("/usr/lib/uecwatchd").exists()
    kept = (CONFIG, "/var/lib/uecwatchd/ledger.sqlite", f"{CREDENTIALS}/uecwatchd_cloud__default__secret_key")
    assert [path for path in kept if not host.machine.path(path).exists()] == []
    host.dpkg("--install", packages[0])
    assert host.state("ActiveState") == "active"
    assert "karmic" in host.run("uecwatchd", "status").stdout


def test_setup_takes_back_what_it_did_and_leaves_the_data(host: Host) -> None:
    host.setup("--remove")
    assert (host.state("ActiveState"), host.state("UnitFileState")) == ("inactive", "disabled")
    assert host.shell(f"find {CREDENTIALS} -type f").stdout == ""
    assert not host.machine.path("/etc/systemd/system/uecwatchd.service.d").exists()
    assert host.machine.path("/var/lib/uecwatchd/ledger.sqlite").exists()


def test_a_purge_leaves_nothing_but_the_files_of_the_members(host: Host) -> None:
    host.setup("--eucarc=/root/creds/eucarc")
    host.run("runuser", "-u", "alice", "--", "touch", f"{SPOOL}/draft.txt")
    host.machine.write("/etc/systemd/system/uecwatchd.service.d/zz-paths.conf", "[Service]\n")
    host.dpkg("--purge", "uecwatchd")
    left = host.shell(
        f"find /etc /usr /var /run -xdev -name '*uecwatchd*' -not -path '{SPOOL}*' -not -path '/var/log/*'"
    ).stdout
    assert left == ""
    assert host.machine.path(f"{SPOOL}/draft.txt").exists()
    host.run("getent", "passwd", "uecwatchd")
