"""A machine of its own to run a unit in: systemd as process 1 of a container, over this system's files.

Its root is an overlay of ours in memory: whatever a test installs, makes or deletes there is gone with it.
The network is this machine's, so that services in there reach the clouds that tests run on 127.0.0.1. It
boots in half a second. Needs root, `systemd-nspawn`, and a kernel with overlayfs.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.sandbox.server import Sandbox

ROOT = Path(__file__).parents[2]
# Longer than anything here takes on a busy machine; only so that a hang is a failure and not a hang.

MISSING = (
    "only root boots a container"
    if os.geteuid() != 0
    else ""
    if shutil.which("systemd-nspawn")
    else "systemd-nspawn is not installed"
)
PACKAGES = Path(sysconfig.get_path("purelib"))
# The hierarchies that systemd keeps its units in, on a kernel with the old and the new way of grouping.
CGROUPS = tuple(Path("/sys/fs/cgroup", name) for name in ("systemd", "unified"))
NUMBERS = count()

# $1 is an empty folder, $2 the container's name, $3 a virtual environment, $4 our source, $5 the packages
# that are installed here. The mounts are seen in there alone, and go with the last process. Without bpf(2)
# systemd could not hold a service to its addresses.
BOOT = """\
set -e
mount -t tmpfs -o size=1g,mode=755 tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/tree"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/tree"
mkdir -p "$1/tree/opt/uecwatchd" "$1/tree/etc/uecwatchd"
# What a service of this host has is not there: it would be another user's.
rm -rf "$1/tree/var/lib/uecwatchd" "$1/tree/var/cache/uecwatchd"
for group in %s; do
    [ ! -d "$group" ] || { mkdir "$group/$2" && echo $$ > "$group/$2/cgroup.procs"; }
done
exec systemd-nspawn --quiet --directory="$1/tree" --machine="$2" --register=no --keep-unit \\
    --link-journal=no --console=pipe --notify-ready=yes --capability=all --bind-ro="$3:/opt/uecwatchd" \\
    --system-call-filter="bpf landlock_create_ruleset landlock_add_rule landlock_restrict_self" \\
    --bind-ro="$4:/opt/source" --bind-ro="$5:/opt/uecwatchd/installed" \\
    setpriv --pdeathsig=KILL /lib/systemd/systemd systemd.unit=basic.target
""" % " ".join(map(str, CGROUPS))  # noqa: UP031 (braces are the shell's)

# They are empty as soon as the kernel has buried all processes of the container; that may take a while.
REMOVE_GROUPS = """\
read -r _
for _ in $(seq 600); do
    find "$@" -depth -type d -exec rmdir {} + 2>/dev/null
    left=0
    for group; do [ ! -d "$group" ] || left=1; done
    [ $left = 1 ] || exit 0
    sleep 0.1
done
exit 1
"""

PROGRAM = """#!/opt/uecwatchd/bin/python
import sys
from uecwatchd.cli.main import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Machine:
    """A booted container. `leader` is its process 1, as this system numbers it."""

    leader: int

    def run(self, *command: str | Path, check: bool = True, text: str = "") -> CompletedProcess[str]:
        """Run a command in there as root, with a shell's usual environment; `text` is its standard input."""
        ended = subprocess.run(
            ["nsenter", f"--target={self.leader}", "--all", "--wdns=/", "--", *map(str, command)],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb"},
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        assert not check or ended.returncode == 0, (
            f"{command}: {ended.returncode}\n{ended.stdout}{ended.stderr}"
        )
        return ended

    def shell(self, script: str, *, check: bool = True) -> CompletedProcess[str]:
        return self.run("sh", "-euc", script, check=check)

    def path(self, inside: str | Path) -> Path:
        """Return the path by which this system sees a file of the container."""
        return Path(f"/proc/{self.leader}/root{inside}")

    def write(self, inside: str | Path, text: str, *, mode: int = 0o644) -> None:
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)


@contextmanager
def booted(folder: Path) -> Iterator[Machine]:
    """Boot a container with our program as /usr/bin/uecwatchd.

    It is run by the system's Python, since only root may be able to read the one that runs the tests.
    """
    environment = folder.with_name(f"{folder.name}-environment")
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", environment], check=True)
    there = environment / PACKAGES.relative_to(sys.prefix)
    assert there.is_dir(), "the packages here are for another Python than /usr/bin/python3"
    # Also for processes that are isolated from their environment. The package that is installed here may lie
    # where the container does not see it.
    (there / "installed.pth").write_text("/opt/source\n/opt/uecwatchd/installed\n")
    (environment / "installed").mkdir()
    name = f"uecwatchd-test-{os.getpid()}-{next(NUMBERS)}"
    folder.mkdir()
    log = folder.parent / f"{folder.name}.log"
    with _groups_removed_after(name), _started(folder, name, environment, log) as leader:
        machine = Machine(leader)
        machine.write("/usr/bin/uecwatchd", PROGRAM, mode=0o755)
        yield machine


@contextmanager
def _groups_removed_after(name: str) -> Iterator[None]:
    """By a process that outlives this one: it waits for the end of a pipe, which comes also by a kill."""
    command = ["sh", "-c", REMOVE_GROUPS, "sh", *(str(top / name) for top in CGROUPS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as remover:
        try:
            yield
        finally:
            remover.communicate(timeout=PATIENCE_SECONDS)
    assert remover.returncode == 0, f"groups of {name} are left"


@contextmanager
def _started(folder: Path, name: str, environment: Path, log: Path) -> Iterator[int]:
    """A container, once it has booted, by its process 1.

    Should this process be killed, so is the container: with systemd-nspawn its process 1 goes, too.
    """
    command = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--propagation=private", "sh", "-c", BOOT]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard, log.open("w") as output:
        heard.settimeout(PATIENCE_SECONDS)
        heard.bind(f"\0{name}")
        process = subprocess.Popen(
            [*command, "sh", str(folder), name, str(environment), str(ROOT), str(PACKAGES)],
            env={**os.environ, "NOTIFY_SOCKET": f"@{name}"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            leader = _leader(heard, process, log)
            # Were it open and not read, its process 1 would stand still as soon as the socket is full.
            heard.close()
            yield leader
        finally:
            process.kill()
            process.wait(PATIENCE_SECONDS)


def _leader(heard: socket.socket, process: "subprocess.Popen[bytes]", log: Path) -> int:
    """Wait until process 1 says that it has booted."""
    leader = 0
    while True:
        assert process.poll() is None, log.read_text()
        notice = dict(line.partition("=")[::2] for line in heard.recv(4096).decode().splitlines())
        leader = int(notice.get("X_NSPAWN_LEADER_PID", leader))
        if notice.get("READY") == "1" and leader:
            return leader


# --- the program in there ---------------------------------------------------------------------------------

# As the README has it installed.
INSTALL = """
cd /opt/source
install -Dm644 systemd/uecwatchd.sysusers /usr/lib/sysusers.d/uecwatchd.conf && systemd-sysusers 2>&1
install -Dm644 systemd/uecwatchd.tmpfiles /usr/lib/tmpfiles.d/uecwatchd.conf && systemd-tmpfiles --create
install -Dm644 systemd/uecwatchd.catalog /usr/lib/systemd/catalog/uecwatchd.catalog
journalctl --update-catalog
install -Dm644 systemd/uecwatchd.service /etc/systemd/system/uecwatchd.service
useradd --groups uecdrop --create-home alice
"""
CONFIGURATION = """\
[spool]
settle = 0.3
scan_every = 5
{spool}
[state]
{state}
[work]
{work}
[defaults]
kernel = "none"
{defaults}
[cloud.default]
{cloud}
"""
EUCARC = 'eucarc = "/etc/uecwatchd/eucarc"'


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("booted-cloud")) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, cloud: Sandbox) -> Iterator[Machine]:
    """With everything installed, and credentials of the cloud that the service may read.

    Each module has its own: none finds the files and units of another.
    """
    folder = tmp_path_factory.mktemp("booted") / "machine"
    with booted(folder) as machine:
        machine.shell(INSTALL)
        give(machine, cloud, "/etc/uecwatchd", group="uecwatchd")
        yield machine


def give(machine: Machine, cloud: Sandbox, folder: str, *, group: str, mode: int = 0o640) -> None:
    """Unpack the credentials that the cloud gave us into a folder in there."""
    for file in (cloud.eucarc, *cloud.folder.glob("*.pem")):
        if not file.name.startswith("cloud-pk"):
            machine.write(f"{folder}/{file.name}", file.read_text(), mode=mode)
            machine.run("chgrp", group, f"{folder}/{file.name}")


@dataclass(frozen=True)
class Instance:
    """A service of the shipped unit, under a name of its own, so that several can be tried at once."""

    machine: Machine
    name: str
    spool: str

    @property
    def config(self) -> str:
        return f"/etc/uecwatchd/{self.name}.toml"

    @property
    def state(self) -> str:
        return f"/var/lib/{self.name}"

    def install(self, *, cloud: str = EUCARC, dropin: str = "", **tables: str) -> None:
        """The unit, and a configuration of the lines of its tables."""
        lines = {"spool": "", "state": "", "work": "", "defaults": "", **tables, "cloud": cloud}
        folders = f"folders = [{json.dumps(self.spool)}]\n"
        text = CONFIGURATION.format(**{**lines, "spool": folders + lines["spool"]})
        self.machine.write(self.config, text)
        place = f"/etc/systemd/system/{self.name}.service"
        self.machine.run("cp", "/opt/source/systemd/uecwatchd.service", place)
        own = f"StateDirectory=\nStateDirectory={self.name}\nEnvironment=UECWATCHD_CONFIG={self.config}\n"
        self.machine.write(f"{place}.d/test.conf", f"[Service]\n{own}{dropin}")

    def check(self) -> list[dict[str, str]]:
        """Return the findings of `check`, run as root."""
        ended = self.verb("check", "--json", check=False)
        assert ended.stdout, ended.stderr
        found: list[dict[str, str]] = json.loads(ended.stdout)
        return found

    def make_spool(self) -> None:
        self.machine.run("install", "-d", "-m3770", "-ouecwatchd", "-guecdrop", self.spool)

    def drop(self, name: str) -> None:
        """As alice, an image of its own content."""
        made = f"/var/tmp/{self.name}-{name}"  # noqa: S108 (the container's own)
        script = 'truncate -s 1M "$1" && mke2fs -q -t ext2 -L "$2" "$1" && cp "$1" "$3"'
        words = ("runuser", "-u", "alice", "--", "sh", "-euc", script, "sh")
        self.machine.run(*words, made, made[-16:], f"{self.spool}/{name}.img")

    def wait_for(self, output: str) -> str:
        path = self.machine.path(f"{self.spool}/{output}")
        self.until(path.exists)
        return path.read_text()

    def until(self, happened: Callable[[], object]) -> None:
        until(happened, detail=self.log)

    def log(self) -> str:
        return self.machine.run("journalctl", "--unit", self.name, "--output=cat").stdout

    def verb(self, *arguments: str, check: bool = True) -> CompletedProcess[str]:
        return self.machine.run("uecwatchd", *arguments, f"--unit={self.name}", check=check)


@pytest.fixture(scope="session")
def instance_class() -> type[Instance]:
    return Instance
