"""No image makes its reader open a file, neither a named one nor any other. The kernel is the witness."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.containers import CONTAINERS, content_of
from tests.support.sizes import MIB, SECTOR

READS_IMAGES = """
import sys
from io import FileIO
from pathlib import Path
from uecwatchd.errors import Rejected
from uecwatchd.images.formats.decompress import copyable_zlib, fastest_zlib
from uecwatchd.images.formats.open import open_disk

def read(path):
    file = FileIO(path)
    try:
        source = open_disk(file, name=path).source
    except Rejected as error:
        print("refused", error.why)
        file.close()
        return
    data = memoryview(bytearray(source.size))
    done = 0
    while done < len(data):
        done += source.read_into(done, data[done:])
    print("read", bytes(data).find(b"root secret"))
    source.close()

good, *images = sys.argv[1:]
fastest_zlib(), copyable_zlib()
read(good)  # which imports what else is imported when it is needed
Path("/begin").exists()
for path in images:
    read(path)
"""
OPENED = re.compile(r'(?:open|openat|openat2|creat|execve)\((?:AT_FDCWD, )?"([^"]*)"')
SECRET = b"root secret"
FLAT_DESCRIPTOR = b"""\
# Disk DescriptorFile
version=1
CID=12345678
parentCID=ffffffff
createType="monolithicFlat"
%s
"""
DISK = b"k" * 100_000 + bytes(2 * MIB - 100_000)


def with_text(vmdk: bytes, old: bytes, new: bytes) -> bytes:
    """Return a VMDK with another descriptor."""
    text = vmdk[SECTOR : 21 * SECTOR].rstrip(b"\0")
    assert old in text
    return vmdk[:SECTOR] + text.replace(old, new).ljust(20 * SECTOR, b"\0") + vmdk[21 * SECTOR :]


def qcow2_with_name(name: bytes) -> bytes:
    """Return a qcow2 with a backing file, named where QEMU writes it."""
    data = bytearray(content_of(CONTAINERS["qcow2"].make(DISK)))
    data[8:20] = (1024).to_bytes(8, "big") + len(name).to_bytes(4, "big")
    data[1024 : 1024 + len(name)] = name
    return bytes(data)


def naming_images(folder: Path, secret: Path) -> Iterator[Path]:
    """Make images that name a file of the host, in each way that a format has for it."""
    name, vmdk = str(secret).encode(), content_of(CONTAINERS["vmdk"].make(DISK))
    extent, parent = b'RW 4096 FLAT "%s" 0' % name, b'parentFileNameHint="%s"' % name
    ours = b'RW 4096 SPARSE "disk.vmdk"'
    contents = {
        "backed": qcow2_with_name(name),
        "json": qcow2_with_name(b'json:{"driver":"raw","file":{"driver":"file","filename":"%s"}}' % name),
        "nbd": qcow2_with_name(b"nbd:unix:%s" % name),
        "descriptor": FLAT_DESCRIPTOR % extent,
        "flat": with_text(vmdk, ours, extent),
        "no-capacity": with_text(vmdk, ours, extent)[:12] + bytes(8) + with_text(vmdk, ours, extent)[20:],
        "parent": with_text(vmdk, b"# The Disk", parent + b"\n# The Disk"),
        "two": with_text(vmdk, ours, ours + b'\nRW 4096 SPARSE "%s"' % name),
        "sparse": with_text(vmdk, b'"disk.vmdk"', b'"%s"' % name),
    }
    for title, content in contents.items():
        path = folder / title
        path.write_bytes(content)
        yield path


def test_no_file_is_opened_that_an_image_names(tmp_path: Path) -> None:
    secret, trace = tmp_path / "secret", tmp_path / "trace"
    secret.write_bytes(SECRET.ljust(2 * MIB, b"\0"))
    (tmp_path / "good").write_bytes(content_of(CONTAINERS["qcow2-zstd"].make(DISK)))
    images = [*naming_images(tmp_path, secret)]
    for name, container in CONTAINERS.items():
        path = tmp_path / name
        path.write_bytes(content_of(container.make(DISK)))
        images.append(path)
    program = [sys.executable, "-c", READS_IMAGES, tmp_path / "good", *images]
    watched = ["strace", "-f", "-o", trace, "-e", "trace=%file,%process,%network", *program]
    done = subprocess.run(watched, capture_output=True, text=True, check=True, env=os.environ)
    calls = trace.read_text().partition('"/begin"')[2]
    assert OPENED.findall(calls) == [str(path) for path in images]
    assert not re.search(r"\b(?:clone3?|v?fork|socket|connect|unlink\w*|rename\w*|mkdir\w*)\(", calls)
    answers = done.stdout.splitlines()[1:]
    assert [answer.split()[0] for answer in answers] == ["refused"] * 8 + ["read"] * (1 + len(CONTAINERS))
    assert SECRET.decode() not in done.stdout
    assert all(answer == "read -1" for answer in answers[8:])


def test_qemu_would_have_read_the_secret(tmp_path: Path) -> None:
    """The tests above are about a real danger."""
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET.ljust(2 * MIB, b"\0"))
    images = {path.name: path for path in naming_images(tmp_path, secret)}
    command = ["qemu-img", "convert", "-f", "vmdk", "-O", "raw", images["descriptor"], tmp_path / "raw"]
    subprocess.run(command, check=True)
    assert (tmp_path / "raw").read_bytes().startswith(SECRET)
