"""Three members of a group, with uids of their own, in a folder of mode 3770; the service has a fourth uid.

One story for all tests here: alice and carol drop their sets, which are done; then bob does what he can
beside them, and the service looks again.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.support.cloud_keys import with_keys
from tests.support.host import Host, open_way
from tests.support.sizes import MIB
from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.clouds.attributes import permissions
from uecwatchd.clouds.client import Cloud
from uecwatchd.clouds.connect import connect
from uecwatchd.clouds.images import list_images
from uecwatchd.config.records import CloudSettings
from uecwatchd.demo.material import DebianKernel
from uecwatchd.sandbox.server import Sandbox

SERVICE, ALICE, BOB, CAROL, GROUP = 4990, 4001, 4002, 4003, 4900
README = Path(__file__).parents[2] / "README.md"
LOOKED_AT_SECONDS = 50  # less than from one full scan to the next
AS_SERVICE = (SERVICE, SERVICE, [GROUP])


@dataclass(frozen=True)
class Shared:
    host: Host
    cloud: Cloud

    @property
    def spool(self) -> Path:
        return self.host.spool

    def does(self, uid: int, command: str, *, umask: int = 0o022) -> None:
        """Have a member do something in the spool, with no other rights than a member's."""
        subprocess.run(
            ["sh", "-ec", command],
            cwd=self.spool,
            user=uid,
            group=uid,
            extra_groups=[GROUP],
            umask=umask,
            check=True,
        )

    def drops(self, uid: int, name: str, text: str, *, umask: int = 0o022) -> None:
        self.does(uid, f"cat > {name} <<'END'\n{text}\nEND", umask=umask)

    def images(self, uid: int, *names: str, umask: int = 0o022) -> None:
        made = (f"printf %s {name * 20} > {name}; truncate -s {MIB} {name}" for name in names)
        self.does(uid, "; ".join(made), umask=umask)

    def serve(self, *verb: str) -> "subprocess.CompletedProcess[str]":
        return self.host.run(*(verb or ("once",)), user=AS_SERVICE)

    @contextmanager
    def daemon(self) -> Iterator[None]:
        with (self.host.folder / "journal").open("w") as journal:
            process = self.host.start("run", user=AS_SERVICE, stderr=journal)
            try:
                yield
            finally:
                process.terminate()
                process.communicate(PATIENCE_SECONDS)
            assert process.returncode == 0

    def until(self, done: Callable[[], bool]) -> None:
        until(done, patience=LOOKED_AT_SECONDS, detail=(self.host.folder / "journal").read_text)

    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        asked = self.serve("status", "--json")
        assert asked.stdout, asked.stderr
        found = json.loads(asked.stdout)
        return {
            f"{row['name']}/" if row["state"] not in ("misfit", "ignored") else row["name"]: row
            for row in found
        }

    def emi(self, name: str) -> str:
        return (self.spool / f"{name}.emi").read_text().strip()

    def is_public(self, image_id: str) -> bool:
        return permissions(self.cloud, image_id).public

    def listed(self) -> set[str]:
        return {image.id for image in list_images(self.cloud)}


@pytest.fixture(scope="module")
def make_shared(host_class: type[Host]) -> Iterator[Any]:
    """In folders of their own: another session closes that of pytest to all users when it starts."""
    with ExitStack() as stack:

        def make(settings: str = "") -> Shared:
            place = Path(stack.enter_context(TemporaryDirectory(prefix="members-")))
            cloud = stack.enter_context(Sandbox(with_keys(place / "cloud")))
            return _shared(host_class, place, cloud, settings)

        yield make


def _shared(host_class: type[Host], place: Path, cloud: Sandbox, settings: str) -> Shared:
    host = host_class.made(place / "host", cloud)
    host.configure(
        host.config.read_text()
        .replace("settle =", f"{settings}\nsettle =")
        .replace("[defaults]", '[defaults]\nkernel = "none"\nconvert = "keep"')
    )
    open_way(host.folder)
    open_way(cloud.folder)
    os.chown(host.spool, SERVICE, GROUP)
    host.spool.chmod(0o3770)
    host.state.mkdir(mode=0o700)
    os.chown(host.state, SERVICE, SERVICE)
    for key in list(cloud.folder.rglob("*")):
        with suppress(FileNotFoundError):  # the cloud's own
            key.chmod(0o755 if key.is_dir() else 0o644)
    entry = CloudSettings(name="default", dialect="sandbox", eucarc=cloud.eucarc)
    return Shared(host, connect(entry, uploads=1, before={}))


@dataclass(frozen=True)
class Story:
    shared: Shared
    before: Mapping[str, str]
    log: str
    rows: Mapping[str, Mapping[str, Any]]


VICTIMS = ("plain", "private", "replaced", "summed", "both", "folder", "copied")


@pytest.fixture(scope="module")
def story(make_shared: Any) -> Story:
    shared = make_shared("linger = 0")
    spool = shared.spool
    shared.images(ALICE, *(f"{name}.img" for name in VICTIMS if name != "folder"), "waits.img", "unready.img")
    shared.drops(ALICE, "private.toml", "public = false")
    shared.drops(ALICE, "waits.toml", 'kernel = "waits.vmlinuz"')
    shared.does(ALICE, "mkdir folder; chmod 3775 folder")
    shared.images(ALICE, "folder/disk.img")
    shared.images(ALICE, "secret.img")
    shared.does(ALICE, "mv secret.img .secret")
    os.chown(spool / ".secret", ALICE, SERVICE)  # as an ACL for the service alone would
    (spool / ".secret").chmod(0o640)
    shared.images(CAROL, "swapped.img")
    shared.does(ALICE, "mv unready.img .unready")
    first = shared.serve()
    assert first.returncode in (0, 75), first.stderr
    before = {name: shared.emi(name) for name in (*VICTIMS, "swapped")}

    (spool / "secret.img").hardlink_to(spool / ".secret")
    (spool / ".secret").unlink()
    shared.does(ALICE, "mv .unready unready.img")
    shared.drops(BOB, "leak.toml", 'machine = "secret.img"\npublic = true')
    evil = 'public = true\non_existing = "replace"\nshare = ["123456789012"]\nmachine = "bobs.img"'
    shared.images(BOB, "bobs.img", "replaced.raw", "both.raw", "later.raw")
    for name in ("plain", "replaced", "unready"):
        shared.drops(BOB, f"{name}.toml", evil)
    shared.drops(BOB, "private.json", '{"public": true}')
    shared.drops(BOB, "summed.sha256", f"{'0' * 64}  summed.img")
    shared.drops(BOB, "both.toml", "public = perhaps")
    shared.images(BOB, "waits.vmlinuz")
    shared.drops(BOB, "later.emi", "emi-deadbeef")
    for name in ("plain", "summed"):
        shared.does(BOB, f"mkdir {name}; chmod 700 {name}")
    shared.drops(BOB, "folder/image.toml", "public = true")
    shared.does(BOB, "cp copied.img mine.img")
    shared.drops(BOB, "mine.toml", "public = true")
    shared.does(CAROL, "rm swapped.img")
    shared.does(BOB, "cp bobs.img swapped.img")
    shared.drops(BOB, "swapped.toml", 'on_existing = "replace"')
    second = shared.serve()
    return Story(shared, before, second.stderr, shared.rows())


@pytest.mark.parametrize("name", VICTIMS)
def test_what_bob_does_beside_a_finished_set_leaves_its_image_as_it_was(story: Story, name: str) -> None:
    shared = story.shared
    assert shared.emi(name) == story.before[name]
    assert story.before[name] in shared.listed()
    assert permissions(shared.cloud, story.before[name]).accounts == frozenset()
    assert not shared.is_public(story.before[name])
    assert story.rows[f"{name}/"]["state"] == "done"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("plain.toml", "plain"),
        ("private.json", "private"),
        ("replaced.toml", "replaced"),
        ("replaced.raw", "replaced"),
        ("summed.sha256", "summed"),
        ("both.toml", "both"),
        ("both.raw", "both"),
        ("waits.vmlinuz", "waits"),
    ],
)
def test_status_tells_why_bobs_file_does_not_count(story: Story, file: str, name: str) -> None:
    detail = story.rows[file]["detail"]
    assert f"it belongs to uid {BOB}, and the set {name} to uid {ALICE}: only files of one owner" in detail


def test_a_set_that_waits_for_a_file_of_bob_has_that_reason(story: Story) -> None:
    detail = story.rows["waits/"]["detail"]
    assert f"waits.vmlinuz belongs to uid {BOB}, the set waits to uid {ALICE}" in detail


def test_a_file_that_only_the_service_may_read_is_never_registered(story: Story) -> None:
    row = story.rows["leak/"]
    assert row["state"] == "waiting"
    assert f"secret.img belongs to uid {ALICE}, the set leak to uid {BOB}" in row["detail"]
    assert not (story.shared.spool / "leak.emi").exists()


def test_a_set_that_is_new_goes_up_without_bobs_sidecar_and_that_is_reported_first(story: Story) -> None:
    shared = story.shared
    assert not shared.is_public(shared.emi("unready"))
    left_out = f"unready: left out: unready.toml belongs to uid {BOB}, the set unready to uid {ALICE}"
    assert left_out in story.log
    assert story.log.index(left_out) < story.log.index("registered machine unready.img")


def test_of_the_same_bytes_each_owner_has_an_image(story: Story) -> None:
    shared = story.shared
    assert shared.emi("mine") != story.before["copied"]
    assert shared.is_public(shared.emi("mine"))


def test_a_free_name_does_not_give_access_to_the_image_of_its_last_owner(story: Story) -> None:
    shared = story.shared
    log = [shared.serve().stderr for _ in range(3) if not (shared.spool / "swapped.emi").exists()]
    assert (shared.spool / "swapped.emi").exists(), log
    assert shared.emi("swapped") != story.before["swapped"]
    assert story.before["swapped"] in shared.listed()


@pytest.mark.parametrize(("name", "believed"), [("plain", True), ("later", False), ("linked", False)])
def test_the_loop_in_the_readme_trusts_only_files_of_the_service(
    story: Story, name: str, *, believed: bool
) -> None:
    shared = story.shared
    command = README.read_text().split("<!-- wait for it -->", 1)[1].split("```", 2)[1].removeprefix("sh\n")
    condition = command.split("until ", 1)[1].split("; do ", 1)[0]
    condition = condition.replace("karmic", name).replace("uecwatchd", str(SERVICE))
    shared.does(BOB, "ln -sf plain.emi linked.emi")
    asked = subprocess.run(
        ["sh", "-c", condition], cwd=shared.spool, user=ALICE, group=ALICE, extra_groups=[GROUP]
    )
    assert (asked.returncode == 0) is believed


def test_a_kernel_is_not_removed_while_images_of_others_boot_with_it(
    make_shared: Any, real_kernel: DebianKernel
) -> None:
    shared = make_shared()
    shutil.copy(real_kernel.image, shared.host.folder / "vmlinuz")
    (shared.host.folder / "vmlinuz").chmod(0o644)
    shared.images(ALICE, "web.img")
    shared.does(ALICE, f"cp {shared.host.folder}/vmlinuz web.vmlinuz")
    shared.drops(ALICE, "web.toml", 'kernel = "web.vmlinuz"\nramdisk = "none"\npublic = true')
    assert shared.serve().returncode == 0
    kernel = (shared.spool / "web.eki").read_text().strip()
    assert shared.is_public(kernel)
    shared.does(BOB, f"cp {shared.host.folder}/vmlinuz mine")
    shared.drops(BOB, "boot.toml", 'kernel = "mine"\npublic = false\nshare = []')
    assert shared.serve().returncode == 0
    assert (shared.spool / "boot.eki").read_text().strip() == kernel
    assert shared.is_public(kernel)


# What bob puts in an output's place, by the output's ending.
IN_PLACE_OF: Mapping[str, str] = {
    "emi": "echo emi-deadbeef > {}",
    "uec.json": "ln -s /etc/passwd {}",
    "uec.log": "mkfifo {}",
    "uec.error": "mkdir {}; chmod 700 {}",
}


@dataclass(frozen=True)
class Planted:
    shared: Shared
    first: "subprocess.CompletedProcess[str]"
    before: Mapping[str, Mapping[str, Any]]
    after: Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="module")
def planted(make_shared: Any) -> Planted:
    """Bob takes names of outputs, and each is freed again by the command that was proposed."""
    shared = make_shared()
    shared.images(ALICE, *(f"{suffix}-.img" for suffix in IN_PLACE_OF), "own.img")
    for suffix, command in IN_PLACE_OF.items():
        shared.does(BOB, command.replace("{}", f"{suffix}-.{suffix}"))
    shared.drops(ALICE, "own.emi", "emi-12345678")
    first, before = shared.serve(), shared.rows()
    for remark in [remark for row in before.values() for remark in row.get("report", {}).get("remarks", ())]:
        subprocess.run(["sh", "-ec", remark.split("or root: ", 1)[1]], check=True)
    shared.serve()
    return Planted(shared, first, before, shared.rows())


@pytest.mark.parametrize("suffix", IN_PLACE_OF)
def test_a_file_of_bob_in_place_of_an_output_does_not_prevent_the_upload(
    planted: Planted, suffix: str
) -> None:
    row, spool = planted.before[f"{suffix}-/"], planted.shared.spool
    assert row["state"] == "done"
    assert row["report"]["ids"]["machine"] in planted.shared.listed()
    (remark,) = row["report"]["remarks"]
    assert f"{suffix}-.{suffix}: cannot write it: the name is taken by a" in remark
    assert f"it belongs to uid {BOB}. As uid {BOB} or root: mv " in remark
    assert planted.first.stderr.count(f"{suffix}-.{suffix}: cannot write it") == 1
    assert os.lstat(spool / f"{suffix}-.{suffix}.bak").st_uid == BOB


@pytest.mark.parametrize("suffix", IN_PLACE_OF)
def test_an_output_whose_name_is_free_again_is_written(planted: Planted, suffix: str) -> None:
    row, spool = planted.after[f"{suffix}-/"], planted.shared.spool
    assert (row["state"], row["report"]["remarks"]) == ("done", [])
    image_id = planted.before[f"{suffix}-/"]["report"]["ids"]["machine"]
    assert planted.shared.emi(f"{suffix}-") == row["report"]["ids"]["machine"] == image_id
    assert json.loads((spool / f"{suffix}-.uec.json").read_text())["remarks"] == []
    there = {ending for ending in IN_PLACE_OF if (spool / f"{suffix}-.{ending}").exists()}
    assert there == {"emi", "uec.json", "uec.log"}


def test_a_set_waits_for_its_own_owner_to_free_a_name(planted: Planted) -> None:
    shared = planted.shared
    assert planted.first.returncode == 65
    assert planted.after["own/"]["state"] == "rejected"
    assert (shared.spool / "own.emi").read_text() == "emi-12345678\n"
    detail = planted.after["own/"]["detail"]
    shared.does(ALICE, detail[detail.index("mv -T") :].split(" It is tried")[0])
    assert shared.serve().returncode == 0
    assert shared.emi("own") in shared.listed()


@pytest.mark.parametrize("fault", [{"slow": 0.2}, {"pending": 2}], ids=["at work", "pending"])
def test_a_name_belongs_to_the_next_owner_when_its_owner_leaves_during_the_upload(
    make_shared: Any, fault: Mapping[str, float]
) -> None:
    shared = make_shared("linger = 0")
    spool = shared.spool
    shared.host.configure(shared.host.config.read_text().replace("scan_every = 5", "scan_every = 600"))

    def is_begun() -> bool:
        return bool(shared.host.cloud.images) if "pending" in fault else (spool / "web.uec.json").exists()

    for name, value in fault.items():
        shared.host.cloud.faults.arm(name, value)
    with shared.daemon():
        shared.images(ALICE, "web.img")
        shared.until(is_begun)
        shared.does(ALICE, "rm web.img")
        shared.does(BOB, f"printf bobs > web.img; truncate -s {MIB} web.img")
        shared.drops(BOB, "web.toml", 'public = true\non_existing = "replace"')
        shared.until(lambda: (spool / "web.emi").exists() and shared.is_public(shared.emi("web")))
    others = shared.listed() - {shared.emi("web")}
    assert not any(shared.is_public(image_id) for image_id in others)
    assert [record["state"] for record in shared.rows().values()] == ["done"]


def test_a_name_belongs_to_the_user_who_still_copies_also_after_a_restart(make_shared: Any) -> None:
    shared = make_shared()
    copying = subprocess.Popen(
        ["sh", "-c", "while head -c 4096 /dev/urandom >> web.img; do sleep 0.05; done"],
        cwd=shared.spool,
        user=ALICE,
        group=ALICE,
        extra_groups=[GROUP],
    )
    try:
        shared.until((shared.spool / "web.img").exists)
        shared.serve()
        shared.images(BOB, "web.raw")
        shared.drops(BOB, "web.toml", "public = true")
        shared.serve()
    finally:
        copying.kill()
        copying.wait()
    assert not (shared.spool / "web.emi").exists()
    assert shared.serve().returncode == 0
    assert shared.rows()["web/"]["files"] == ["web.img"]
    assert not shared.is_public(shared.emi("web"))
