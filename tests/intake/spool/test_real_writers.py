"""Real writers, a real daemon: whatever way an image comes in, it is registered once and whole.

One daemon takes what all of them write at the same time. Each writer's image differs from every other's, so
that each must become one machine image of its own, of just the bytes that the writer left behind.
"""

import hashlib
import mmap
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.host import Host
from tests.support.sizes import MIB
from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.clouds.connect import connect
from uecwatchd.config.load import load
from uecwatchd.delivery.verify import verify
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.sandbox.server import Sandbox

pytestmark = pytest.mark.exhaustive

SETTLE_SECONDS = 0.5
# Long enough that a set would be taken if lying still were all that is asked.
PAUSE_SECONDS = 8 * SETTLE_SECONDS
TO_BE_CLOSED = "to be closed by the process that writes it"
TO_HAVE_ITS_SUM = "to have its declared SHA-256"


@dataclass(frozen=True)
class Writing:
    """One writer's work: its name, its disk, the spool, another file system, the service's log."""

    name: str
    source: Path
    spool: Path
    elsewhere: Path
    log: Path

    def await_words(self, words: str) -> None:
        """Wait until the service has said that it waits for this writer's file."""
        line = f"{self.name}: waiting for {self.target.name} {words}"
        with suppress(AssertionError):  # a test of its own says so, and the other writers go on
            until(lambda: line in self.log.read_text(), line)

    @property
    def target(self) -> Path:
        return self.spool / f"{self.name}.img"

    def content(self) -> bytes:
        return self.source.read_bytes()

    def sums(self) -> str:
        return f"{hashlib.sha256(self.content()).hexdigest()}  {self.name}.img\n"


def program(*command: str | Path) -> None:
    subprocess.run(list(map(str, command)), check=True, capture_output=True, timeout=PATIENCE_SECONDS)


def cp(at: Writing) -> None:
    program("cp", at.source, at.target)


def scp(at: Writing) -> None:
    """From one local name to another: there is no server here to receive it, and scp then calls cp."""
    program("scp", "-q", "-p", at.source, at.target)


def rsync(at: Writing) -> None:
    program("rsync", "-t", "--bwlimit=4m", at.source, at.target)


def rsync_inplace(at: Writing) -> None:
    program("rsync", "--inplace", "--bwlimit=4m", at.source, at.target)


def rsync_over_an_older_one(at: Writing) -> None:
    """In place and with the old time kept: size and modification time do not show the change."""
    at.target.write_bytes(bytes(at.source.stat().st_size))
    shutil.copystat(at.source, at.target)
    program("rsync", "-t", "--inplace", "--ignore-times", "--no-whole-file", at.source, at.target)


def dd(at: Writing) -> None:
    program("dd", f"if={at.source}", f"of={at.target}", "bs=64K", "status=none")


def dd_into_a_hole(at: Writing) -> None:
    """The size is right from the first moment on."""
    at.target.touch()
    os.truncate(at.target, at.source.stat().st_size)
    program("dd", f"if={at.source}", f"of={at.target}", "bs=64K", "status=none", "conv=notrunc")


def mv(at: Writing) -> None:
    waiting = at.spool.parent / f"{at.name}.ready"
    shutil.copy(at.source, waiting)
    program("mv", waiting, at.target)


def mv_from_another_file_system(at: Writing) -> None:
    waiting = at.elsewhere / f"{at.name}.ready"
    shutil.copy(at.source, waiting)
    program("mv", waiting, at.target)


def mv_of_a_folder(at: Writing) -> None:
    folder = at.spool.parent / "folders" / at.name
    folder.mkdir(parents=True)
    shutil.copy(at.source, folder / "disk.raw")
    program("mv", folder, at.spool)


def mv_of_a_folder_from_another_file_system(at: Writing) -> None:
    folder = at.elsewhere / at.name
    folder.mkdir(parents=True)
    shutil.copy(at.source, folder / "disk.raw")
    program("mv", folder, at.spool)


def qemu_img(at: Writing) -> None:
    program("qemu-img", "convert", "-O", "raw", "-r", "8M", at.source, at.target)


def a_pause_with_the_file_open(at: Writing) -> None:
    data = at.content()
    with at.target.open("wb", buffering=0) as file:
        file.write(data[: 2 * MIB])
        os.ftruncate(file.fileno(), len(data))  # whole by its size, and by what its first bytes claim
        at.await_words(TO_BE_CLOSED)
        file.seek(2 * MIB)
        file.write(data[2 * MIB :])


def a_short_disk_with_the_file_open(at: Writing) -> None:
    """Cut short by what its first bytes claim: to be waited for, and not to be refused."""
    data = at.content()
    with at.target.open("wb", buffering=0) as file:
        file.write(data[: 2 * MIB])
        at.await_words(TO_BE_CLOSED)
        file.write(data[2 * MIB :])


def a_pause_with_the_file_closed(at: Writing) -> None:
    """Nothing but the sum tells that there is more to come."""
    (at.spool / f"{at.name}.sha256").write_text(at.sums())
    data = at.content()
    at.target.write_bytes(data[: 2 * MIB] + bytes(len(data) - 2 * MIB))
    at.await_words(TO_HAVE_ITS_SUM)
    with at.target.open("r+b") as file:
        file.seek(2 * MIB)
        file.write(data[2 * MIB :])


def mapped_memory(at: Writing) -> None:
    """Closed at once, and written through the mapping that is left."""
    data = at.content()
    with at.target.open("w+b") as file:
        file.truncate(len(data))
        mapped = mmap.mmap(file.fileno(), len(data))
    with mapped:
        mapped[: 2 * MIB] = data[: 2 * MIB]
        at.await_words(TO_BE_CLOSED)
        mapped[2 * MIB :] = data[2 * MIB :]
        mapped.flush()


def hard_link(at: Writing) -> None:
    kept = at.spool.parent / f"{at.name}.kept"
    shutil.copy(at.source, kept)
    at.target.hardlink_to(kept)


def sidecar_first(at: Writing) -> None:
    (at.spool / f"{at.name}.toml").write_text('virtualization = "hvm"\ndescription = "first"\n')
    time.sleep(PAUSE_SECONDS / 2)
    program("cp", at.source, at.target)


def sidecar_last(at: Writing) -> None:
    """The disk bears another name than the set, so nothing is complete before the sidecar is there."""
    program("cp", at.source, at.spool / "unnamed")
    (at.spool / f"{at.name}.toml").write_text('machine = "unnamed"\n')


def sidecar_edited_afterwards(at: Writing) -> None:
    program("cp", at.source, at.target)
    sidecar = at.spool / f"{at.name}.toml"
    for number in range(3):
        sidecar.write_text(f'virtualization = "hvm"\ndescription = "edit {number}"\n')
        time.sleep(PAUSE_SECONDS)


def a_chmod_and_a_link_while_it_is_read(at: Writing) -> None:
    """Both change what the file's stamp is made of, as anything else would that may change its content."""
    program("cp", at.source, at.target)
    for number in range(6):
        time.sleep(SETTLE_SECONDS / 2)
        at.target.chmod(0o640 if number % 2 else 0o644)
        extra = at.spool.parent / f"{at.name}.{number}"
        extra.hardlink_to(at.target)
        extra.unlink()


WRITERS: Mapping[str, Callable[[Writing], None]] = {
    write.__name__.replace("_", "-"): write
    for write in (
        cp,
        scp,
        rsync,
        rsync_inplace,
        rsync_over_an_older_one,
        dd,
        dd_into_a_hole,
        mv,
        mv_from_another_file_system,
        mv_of_a_folder,
        mv_of_a_folder_from_another_file_system,
        qemu_img,
        a_pause_with_the_file_open,
        a_short_disk_with_the_file_open,
        a_pause_with_the_file_closed,
        mapped_memory,
        hard_link,
        sidecar_first,
        sidecar_last,
        sidecar_edited_afterwards,
        a_chmod_and_a_link_while_it_is_read,
    )
}


def disk(path: Path, *, mark: str) -> None:
    """A whole disk of 4 MiB with a partition that claims all of it, and content that is nobody else's."""
    path.write_bytes(b"")
    os.truncate(path, 4 * MIB)
    script = "label: dos\nstart=2048, type=83, bootable\n"
    subprocess.run(["sfdisk", "-q", path], input=script, text=True, check=True, capture_output=True)
    noise = hashlib.shake_128(mark.encode()).digest(3 * MIB)
    with path.open("r+b") as file:
        file.seek(MIB)
        file.write(noise)


@dataclass(frozen=True)
class Ended:
    """The end of it all: the host, and the digest of what each writer meant to leave."""

    host: Host
    meant: Mapping[str, str]
    log: str


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, host_class: type[Host]) -> Iterator[Ended]:
    folder = tmp_path_factory.mktemp("writers")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", elsewhere], check=True)
    try:
        with Sandbox(folder / "cloud", dialect="euca4") as cloud:
            host = host_class.made(folder / "host", cloud)
            text = host.config.read_text().replace('"sandbox"', '"euca4"')
            host.configure(text.replace("settle = 0.3", f"settle = {SETTLE_SECONDS}"))
            yield _written(host, elsewhere)
    finally:
        subprocess.run(["umount", "--lazy", elsewhere], check=True)


def _written(host: Host, elsewhere: Path) -> Ended:
    """Have every writer write while one daemon runs; then wait until it has nothing left to do."""
    sources = host.folder / "sources"
    sources.mkdir()
    log = host.folder / "log"
    work = [Writing(name, sources / name, host.spool, elsewhere, log) for name in WRITERS]
    for one in work:
        disk(one.source, mark=one.name)
    meant = {one.name: hashlib.sha256(one.content()).hexdigest() for one in work}
    with log.open("w") as talk:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "uecwatchd", "run"],
            env={**os.environ, "UECWATCHD_CONFIG": str(host.config)},
            stderr=talk,
        )
        try:
            with ThreadPoolExecutor(len(work)) as writers:
                for written in [writers.submit(WRITERS[one.name], one) for one in work]:
                    written.result()
            _await_rest(host)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(PATIENCE_SECONDS)
    return Ended(host, meant, log.read_text())


def _await_rest(host: Host) -> None:
    """Until every set is done, and still is when the last edit has settled. Each test says what is not."""
    end = time.monotonic() + PATIENCE_SECONDS
    seen = 0
    while seen < 2 and time.monotonic() < end:
        time.sleep(2 * SETTLE_SECONDS)
        seen = seen + 1 if all(_is_done(host, name) for name in WRITERS) else 0


def _is_done(host: Host, name: str) -> bool:
    return (host.spool / f"{name}.emi").exists() and host.report(name)["state"] == "done"


@pytest.mark.parametrize("name", WRITERS)
def test_only_the_final_content_of_a_writer_is_registered(ended: Ended, name: str) -> None:
    assert (ended.host.spool / f"{name}.emi").exists(), ended.host.run("status", name).stdout
    report = ended.host.report(name)
    assert report["state"] == "done"
    assert [member["sha256"] for member in report["members"]] == [ended.meant[name]]


def test_the_cloud_has_the_final_content_of_each_writer(ended: Ended) -> None:
    settings = load(ended.host.config, environ={})
    cloud = connect(settings.clouds["default"], uploads=1, before={})
    with closing(open_ledger(settings.state.dir)) as book:
        found = {r.name: [finding.digest for finding in verify(r, cloud)] for r in book.sets()}
    assert found == {name: [sha256] for name, sha256 in ended.meant.items()}


def test_there_is_one_image_for_each_writer_and_none_of_a_file_half_written(ended: Ended) -> None:
    ids = sorted((ended.host.spool / f"{name}.emi").read_text().strip() for name in WRITERS)
    assert sorted(image.id for image in ended.host.cloud.images) == ids
    assert len(ended.host.cloud.calls("RegisterImage")) == len(WRITERS)


@pytest.mark.parametrize(
    "name", ["a-pause-with-the-file-open", "mapped-memory", "a-short-disk-with-the-file-open"]
)
def test_a_set_that_waits_for_its_writer_says_so(ended: Ended, name: str) -> None:
    assert f"{name}: waiting for {name}.img {TO_BE_CLOSED}" in ended.log


def test_a_set_that_waits_for_its_sum_says_so_and_is_not_refused(ended: Ended) -> None:
    name = "a-pause-with-the-file-closed"
    assert f"{name}: waiting for {name}.img {TO_HAVE_ITS_SUM}" in ended.log


def test_no_set_was_refused_in_between(ended: Ended) -> None:
    assert " is rejected: " not in ended.log


def test_the_last_edit_of_a_sidecar_is_what_counts(ended: Ended) -> None:
    emi = (ended.host.spool / "sidecar-edited-afterwards.emi").read_text().strip()
    assert {image.id: image.description for image in ended.host.cloud.images}[emi] == "edit 2"
