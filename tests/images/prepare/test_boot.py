"""A prepared guest boots, under QEMU without KVM, and fetches the key of its user by itself."""

import os
import shutil
import subprocess
from contextlib import closing
from io import FileIO
from pathlib import Path

import pytest

from uecwatchd.demo import material
from uecwatchd.images.block_source import FileSource, read_exactly
from uecwatchd.images.prepare.prepare import ImageToPrepare, prepare_image

pytestmark = pytest.mark.exhaustive

BOOT_SECONDS = 120  # 3 s on two idle cores; other tests may hold them
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 user@example"
APPLETS = ("chmod", "chown", "httpd", "ip", "mkdir", "wget")
INITTAB = "::sysinit:/etc/startup\n::wait:/etc/rc.local\n::wait:/etc/finish\n"
# The guest is its own metadata service: its address is one more of the loopback's.
STARTUP = """\
#!/bin/sh
dmesg -n 1
mount -t tmpfs tmpfs /root
ip link set lo up
ip address add 169.254.169.254/32 dev lo
httpd -h /srv
"""
FINISH = """\
#!/bin/sh
tries=0
while [ ! -s /root/.ssh/authorized_keys ] && [ $tries -lt 60 ]; do sleep 1; tries=$((tries + 1)); done
echo "FETCHED: $(grep -c . /root/.ssh/authorized_keys) $(cat /root/.ssh/authorized_keys | grep .)"
stty sane
poweroff -f
"""


def make_guest(folder: Path, image: Path) -> None:
    root = folder / "root"
    root.mkdir()
    material.fill_root(root, boot=(), hostname="guest")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/inittab").write_text(INITTAB)
    material.write_program(root / "etc/startup", STARTUP.encode())
    material.write_program(root / "etc/finish", FINISH.encode())
    key = root / "srv/latest/meta-data/public-keys/0/openssh-key"
    key.parent.mkdir(parents=True)
    key.write_text(f"{KEY}\n")
    material.run("mke2fs", "-q", "-t", "ext4", "-d", str(root), str(image), "16m")


def test_a_prepared_guest_fetches_the_key_at_boot(real_kernel: material.DebianKernel, tmp_path: Path) -> None:
    make_guest(tmp_path, tmp_path / "image")
    with closing(FileSource(FileIO(tmp_path / "image"))) as source:
        prepared = prepare_image(ImageToPrepare(source, "image"), tmp_path)
        (tmp_path / "result").write_bytes(read_exactly(prepared.source, 0, prepared.source.size))
    (tmp_path / "initrd").write_bytes(material.ramdisk(real_kernel))
    qemu = shutil.which("qemu-system-x86_64")
    assert qemu, "qemu-system-x86_64 is missing: apt-get install qemu-system-x86"
    command = [qemu, "-accel", "tcg", "-m", "256", "-nographic", "-no-reboot", "-nic", "none"]
    command += ["-kernel", os.fspath(real_kernel.image), "-initrd", str(tmp_path / "initrd")]
    command += ["-drive", f"file={tmp_path / 'result'},format=raw,if=virtio,snapshot=on"]
    command += ["-append", "console=ttyS0 panic=-1"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=BOOT_SECONDS, check=True
    )
    console = done.stdout.decode(errors="replace")
    assert f"FETCHED: 1 {KEY}" in console.splitlines(), console[-3000:]
    assert "AUTHORIZED_KEYS:" in console
