"""A program that can be killed at a chosen moment, and a build host that each case begins with."""

import json
import random
import select
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.host import Host
from tests.support.postgres import DatabaseServer
from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.config.load import load
from uecwatchd.demo.material import RealSet
from uecwatchd.intake.spool.output_files import OUTPUT_SUFFIXES, UNFINISHED
from uecwatchd.ledger.open import open_ledger
from uecwatchd.sandbox.server import Sandbox

KILLER = Path(__file__).parent / "killer.py"
BUCKET = "uec-images"
NAME = "tiny"
DATABASE = "scene"
MEMBERS = ("tiny.img", "tiny.vmlinuz", "tiny.initrd")
KILLED = -9  # the exit code of a process that a moment has ended
# Behind the file system, which does not mind: what cannot be deflated makes two parts more.
NOISE_BYTES = 20 << 20
SETTLE_SECONDS = 0.05
KINDS = ["kernel", "machine", "ramdisk"]
TEMPORARY = UNFINISHED
# In the order in which they appear.
IN_ORDER = (".uec.log", ".uec.json", ".eki", ".eri", ".emi")


Crossing = tuple[str, str, int]


@dataclass(frozen=True)
class Killer:
    """Runs the program in processes of their own, made by the server in `killer.py`."""

    server: "subprocess.Popen[bytes]"

    def begin(self, host: Host, *arguments: str, at: Crossing | None = None, by: int = signal.SIGKILL) -> int:
        """The child's pid. It dies when it comes from moment `at[0]` to `at[1]` for the `at[2]`th time.

        With another signal than SIGKILL it may only be stopped.
        """
        (host.folder / "crossed").unlink(missing_ok=True)
        order = {
            "arguments": arguments,
            "config": str(host.config),
            "crossed": str(host.folder / "crossed"),
            "stderr": str(host.folder / "stderr"),
            "at": at,
            "signal": by,
        }
        assert self.server.stdin
        self.server.stdin.write(json.dumps(order).encode() + b"\n")
        return int(self._line())

    def ended(self) -> int:
        """Return the end of the last child: an exit code, or a signal's number below zero."""
        return int(self._line())

    def run(self, host: Host, *arguments: str, at: Crossing | None = None) -> int:
        self.begin(host, *arguments, at=at)
        return self.ended()

    def _line(self) -> bytes:
        assert self.server.stdout
        ready, _, _ = select.select([self.server.stdout], [], [], PATIENCE_SECONDS)
        assert ready, "the program has not ended"
        return self.server.stdout.readline()


def sweep(cloud: Sandbox) -> None:
    """Remove all images and objects of a cloud."""
    backend = cloud.backend
    for image in backend.registry.images():
        backend.registry.remove_image(image.id)
    if any(bucket.name == BUCKET for bucket in backend.store.buckets()):
        for one in backend.store.objects(BUCKET):
            backend.store.remove(BUCKET, one.key)
        backend.store.remove_bucket(BUCKET)


@dataclass
class Scene:
    """One build host and its cloud, swept clean for each case: nothing of a case is there in the next."""

    host: Host
    material: Path
    asked: int = 0  # the cloud, up to now, by cases before this one
    server: DatabaseServer | None = None  # that has the ledger, in the database of this module

    def begin_again(self, members: tuple[str, ...] = MEMBERS) -> None:
        for folder in (self.host.spool, self.host.state):
            shutil.rmtree(folder, ignore_errors=True)
        self.host.spool.mkdir()
        if self.server:
            self.server.execute(
                f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)", f"CREATE DATABASE {DATABASE}"
            )
        (self.host.folder / "stderr").unlink(missing_ok=True)
        sweep(self.host.cloud)
        for name in members:
            self.drop(name)
        self.asked = len(self.host.cloud.requests)

    def drop(self, name: str, *, to: str = "") -> None:
        """A link, which costs no time: nobody writes to it."""
        (self.host.spool / (to or name)).hardlink_to(self.material / name)

    def crossed(self) -> list[str]:
        """The moments that the last run crossed, in order."""
        return (self.host.folder / "crossed").read_text().splitlines()

    def manifests_on_their_way(self) -> int:
        """Of how many the last run has not written down that they have arrived."""
        crossed = self.crossed()
        return crossed.count("before put manifest") - crossed.count("after note bundle uploaded")

    def said(self) -> str:
        return (self.host.folder / "stderr").read_text()

    def puts(self) -> Counter[str]:
        """Count how often each object was stored with success in this case, by its key."""
        seen = self.host.cloud.requests[self.asked :]
        paths = (one.path for one in seen if one.action == "PutObject" and not one.code)
        return Counter(path.rsplit("/", 1)[-1] for path in paths)

    def images(self) -> list[tuple[str, str]]:
        """Type and id of what is registered, ordered."""
        return sorted((image.type, image.id) for image in self.host.cloud.images)

    def broken_promises(self) -> Iterator[str]:
        """A file's existence proves the ones before it."""
        spool = self.host.spool
        there = [(self.host.spool / f"tiny{suffix}").exists() for suffix in IN_ORDER]
        if there != sorted(there, reverse=True):
            yield f"outputs out of order: {dict(zip(IN_ORDER, there, strict=True))}"
        if there[2] and json.loads((self.host.spool / "tiny.uec.json").read_text())["state"] != "done":
            yield "an id before the report says done"
        if there[-1] and (spool / "tiny.emi").read_text() not in (spool / "tiny.uec.log").read_text().replace(
            " with", "\n"
        ):
            yield "the machine's id before the log says so"

    def wrong_beside_the_files(self) -> Iterator[str]:
        spool = self.host.spool
        report = json.loads((spool / "tiny.uec.json").read_text())
        if report["state"] != "done" or report["error"]:
            yield f"it is {report['state']}"
        ids = [(spool / f"tiny{suffix}").read_text().strip() for suffix in (".eki", ".emi", ".eri")]
        if ids != [image_id for _, image_id in self.images()]:
            yield f"ids beside the files: {ids}"
        if sorted(report["ids"].values()) != sorted(ids):
            yield f"ids in the report: {report['ids']}"
        if left := [path.name for path in spool.iterdir() if TEMPORARY.fullmatch(path.name)]:
            yield f"left over: {left}"
        if f"tiny is {ids[1]}" not in (spool / "tiny.uec.log").read_text():
            yield "the log does not say so"
        outputs = sorted(path.name for path in spool.iterdir() if path.name.endswith(OUTPUT_SUFFIXES))
        if outputs != sorted(f"tiny{suffix}" for suffix in IN_ORDER):
            yield f"outputs: {outputs}"

    def wrong_in_the_ledger(self) -> Iterator[str]:
        with closing(open_ledger(load(self.host.config, environ={}))) as book:
            (record,) = book.sets()
            bundles = book.bundles("default")
        if record.state != "done" or len(bundles) != len(KINDS):
            yield f"the ledger has {record} and {bundles}"
        if any(bundle.secret_key or bundle.secret_iv or bundle.state != "registered" for bundle in bundles):
            yield "keys in the ledger"

    def wrong_on_the_list(self) -> Iterator[str]:
        if [kind for kind, _ in self.images()] != KINDS:
            yield f"registered: {self.images()}"

    def await_state(self, state: str, *, seconds: float = 30.0) -> None:
        until(lambda: self.is_now(state), state, patience=seconds, detail=self.said)

    def is_now(self, state: str) -> bool:
        report = self.host.spool / f"{NAME}.uec.json"
        return report.exists() and json.loads(report.read_bytes())["state"] == state


@pytest.fixture(scope="session")
def killer() -> Iterator[Killer]:
    server = subprocess.Popen(
        [sys.executable, str(KILLER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    with server:
        yield Killer(server)
        assert server.stdin
        server.stdin.close()


@pytest.fixture(scope="session")
def material(small_set: RealSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small set, its machine image with so much noise behind it that it makes several parts."""
    folder = tmp_path_factory.mktemp("material")
    sources = (small_set.machine, small_set.kernel, small_set.ramdisk)
    for name, source in zip(MEMBERS, sources, strict=True):
        subprocess.run(["cp", "--sparse=always", str(source), str(folder / name)], check=True)
    with (folder / "tiny.img").open("ab") as image:
        image.write(random.Random(4).randbytes(NOISE_BYTES))  # noqa: S311 (only not to be compressible)
    return folder


@pytest.fixture(scope="module")
def scene(
    host_class: type[Host], material: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("scene")
    with Sandbox(folder / "cloud") as cloud:
        host = host_class.made(folder / "host", cloud)
        text = host.config.read_text().replace("settle = 0.3", f"settle = {SETTLE_SECONDS}")
        # One part at a time: then no part at all has a reason to be sent twice.
        host.configure(f"{text}\n[work]\nuploads = 1\n")
        scene = Scene(host, material)
        scene.begin_again()
        yield scene


@pytest.fixture(scope="session")
def scene_class() -> type[Scene]:
    """For a host that is on a disk of its own."""
    return Scene
