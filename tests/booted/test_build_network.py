"""The reach of a machine with `network = "user"` in the unit of installations: a real guest asks around.

The unit has a network of its own here, because this host may not have all of the addresses.
"""

import gzip
import json
import re
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.booted.conftest import Machine
from tests.support.waiting import until
from uecwatchd.demo.material import DebianKernel, module_files, static_busybox
from uecwatchd.install.cpio import cpio
from uecwatchd.install.recipe import read_recipe
from uecwatchd.install.request import BuildRequest, RecipeFile, write_request
from uecwatchd.types import FileStamp

pytestmark = pytest.mark.exhaustive

UNITS = "/etc/systemd/system"
BUILDS = "/var/lib/uecwatchd-build"
ISO = "/srv/asking.iso"
OUTSIDE = "198.51.100.7"
# The port of a name server, and that of another service. One program answers at all addresses on both.
NAMES, SERVICE = 53, 8000
ALLOWED = (f"{OUTSIDE} {SERVICE}", f"10.0.2.3 {NAMES}")
# The host's loopback, as QEMU shows it to a guest, and what clouds tell their instances.
KEPT_AWAY = tuple(
    f"{address} {SERVICE}" for address in ("10.0.2.2", "fec0::2", "169.254.169.254", "fd00:ec2::254")
)
ANSWER = """
import select, socket
servers = [
    socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) for port in (53, 8000)
]
while True:
    for server in select.select(servers, (), ())[0]:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            address = connection.getsockname()[0].removeprefix("::ffff:")
            connection.sendall(f"{address}\\n".encode())
"""
NETWORK = f"""
ip netns add guests
ip -n guests link set lo up
ip -n guests address add {OUTSIDE}/32 dev lo
ip -n guests address add 169.254.169.254/32 dev lo
ip -n guests -6 address add fd00:ec2::254/128 dev lo
umount /etc/resolv.conf 2>/dev/null || true
mv /etc/resolv.conf /etc/resolv.conf.old
echo 'nameserver 127.0.0.53' >/etc/resolv.conf
systemd-run --quiet --unit=answer --property=NetworkNamespacePath=/run/netns/guests \\
    /opt/uecwatchd/bin/python /usr/share/answer.py
cp /opt/source/systemd/uecwatchd-build.service {UNITS}
"""
INSIDE = "[Service]\nNetworkNamespacePath=/run/netns/guests\n"
REMOVE = f"""
systemctl stop answer uecwatchd-build
rm -r {UNITS}/uecwatchd-build.*
mv /etc/resolv.conf.old /etc/resolv.conf
systemctl daemon-reload
ip netns delete guests
"""
APPLETS = ("sh", "mount", "insmod", "ifconfig", "route", "nc", "stty", "poweroff")
GUEST = """\
#!/bin/sh
for module in /modules/*; do insmod "$module" 2>/dev/null; done
mount -t proc proc /proc
echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
ifconfig eth0 10.0.2.15 netmask 255.255.255.0
ifconfig eth0 add fec0::15/64
route add default gw 10.0.2.2
route -A inet6 add default gw fec0::2
while read -r address port; do
    (
        answer=$(echo | nc -w 20 "$address" "$port" 2>/dev/null)
        echo "asked $address $port: ${answer:-nothing came}"
    ) &
done <<'PLACES'
{places}
PLACES
wait
stty sane
poweroff -f
"""


@pytest.fixture(scope="module")
def network(
    machine: Machine, real_kernel: DebianKernel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    machine.write("/usr/share/answer.py", ANSWER)
    machine.shell(NETWORK)
    machine.path(ISO).parent.mkdir(exist_ok=True)
    machine.path(ISO).write_bytes(_asking_iso(tmp_path_factory.mktemp("asking"), real_kernel).read_bytes())
    yield machine
    machine.shell(REMOVE)


def _asking_iso(folder: Path, kernel: DebianKernel) -> Path:
    """Make an ISO image with a kernel, and an initrd that asks each address."""
    init = GUEST.replace("{places}", "\n".join((*ALLOWED, *KEPT_AWAY)))
    files = [(name, stat.S_IFDIR | 0o755, b"") for name in ("bin", "dev", "proc", "modules")]
    files += [("init", stat.S_IFREG | 0o755, init.encode())]
    files += [("bin/busybox", stat.S_IFREG | 0o755, static_busybox()), *module_files(kernel)]
    files += [(f"bin/{applet}", stat.S_IFLNK | 0o777, b"busybox") for applet in APPLETS]
    tree = folder / "tree"
    tree.mkdir()
    (tree / "vmlinuz").write_bytes(kernel.image.read_bytes())
    (tree / "initrd.gz").write_bytes(gzip.compress(b"".join(cpio(files)), compresslevel=1))
    iso = folder / "asking.iso"
    subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-r", "-o", iso, tree], check=True)
    return iso


def answers(machine: Machine, key: str, *, settings: str = "") -> Mapping[str, str]:
    """Let a guest ask each address, under the unit with more settings, and return what it has got."""
    machine.write(f"{UNITS}/uecwatchd-build.service.d/test.conf", f"{INSIDE}{settings}")
    machine.run("systemctl", "daemon-reload")
    kernel = {"kernel": "vmlinuz", "initrd": "initrd.gz", "arguments": "quiet panic=-1"}
    recipe = read_recipe({"iso": "asking.iso", "disk": "4M", "memory": "256M", "network": "user", **kernel})
    iso = machine.path(ISO)
    files = {"iso": RecipeFile(Path(ISO), FileStamp.of(iso.stat()))}
    write_request(machine.path(BUILDS), BuildRequest(key, "asking", recipe, files, "tcg"))
    machine.shell(f"chown -R uecbuild:uecbuild {BUILDS}; systemctl start uecwatchd-build")
    status = machine.path(f"{BUILDS}/{key}/status.json")
    until(lambda: json.loads(status.read_text())["state"] == "failed" if status.exists() else False)
    text = machine.path(f"{BUILDS}/{key}/console.log").read_text(errors="replace")
    found = dict(re.findall(r"asked (.+): (.+?)\r?$", text, re.MULTILINE))
    assert found.keys() == {*ALLOWED, *KEPT_AWAY}, text
    return found


def test_a_guest_reaches_the_network_and_not_the_loopback_or_the_credentials_of_the_host(
    network: Machine,
) -> None:
    found = answers(network, "1" * 32)
    assert [found[place] for place in ALLOWED] == [OUTSIDE, "127.0.0.53"]
    assert {found[place] for place in KEPT_AWAY} == {"nothing came"}


def test_without_the_addresses_that_the_unit_denies_a_guest_would_reach_them(network: Machine) -> None:
    found = answers(network, "2" * 32, settings="IPAddressDeny=\n")
    assert [found[place] for place in KEPT_AWAY] == [
        "127.0.0.1",
        "::1",
        "169.254.169.254",
        "fd00:ec2::254",
    ]
