"""Every generation of cloud with every kind of set, each through the program as a user runs it.

What a generation must hold in the end is said here once more, in this file's own words. The client's table
of dialects and the embedded cloud's rules are not asked. The embedded cloud is as strict as the strictest
server of its generation, so a request that it refuses is one that should not have been sent.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.support.cloud_keys import with_keys
from tests.support.disks import DISK_START_SECTOR, LINUX_TYPE, NTFS_TYPE, SECTOR_BYTES, whole_disk
from tests.support.host import Host
from tests.support.sizes import MIB
from uecwatchd.cli import images as gallery
from uecwatchd.config.load import load
from uecwatchd.demo.material import DebianKernel, ramdisk
from uecwatchd.sandbox.router import RecordedRequest
from uecwatchd.sandbox.server import Sandbox
from uecwatchd.sandbox.state.registry import RegisteredImage

pytestmark = pytest.mark.exhaustive

SYSLINUX = Path("/usr/lib/syslinux")
PACKAGES = {"mke2fs": "e2fsprogs", "mkfs.fat": "dosfstools", "mkntfs": "ntfs-3g"}

# How many questions it takes at most to find out a generation; only these may be refused.
MOST_PROBES = 3
# All the sets that are dropped, so that they wait together for clouds that take their time.
SETS_AT_ONCE, UPLOADS_AT_ONCE = 8, 2
# Enough to see by what rules an unnamed cloud is served: a disk that boots alone or waits, and a kernel.
CHEAPEST = ("lone.img", "loader.toml", "memdisk-2")
BUCKET = "uec-images"

# Every other answer is a refusal, except "no such bucket" to the question whether there is one.
GRANTED = range(200, 300)
NO_BUCKET = {("HeadBucket", "NoSuchBucket"), ("ListObjects", "NoSuchBucket")}


# --- what a generation is to end up with --------------------------------------------------------------------


@dataclass(frozen=True)
class Generation:
    """`ids`: of a kernel, a ramdisk and a machine image, with `?` for the letter that tells them apart.

    `probes_refused`: the questions that an unnamed cloud of this generation refuses until it is found out.
    """

    ids: str
    probes_refused: int
    named: bool = True
    public: bool = False
    disk_alone: bool = True
    windows_alone: bool = True
    virtualization: bool = True  # whether it lists kinds of machines
    platform: bool = True  # whether a request can say that an image is Windows
    acls: bool = True  # whether its S3 takes the ACL that lets others' clouds read a bundle
    kernel_needed: bool = True  # whether a paravirtual machine must have a kernel
    ramdisk_needed: bool = False  # the same of a ramdisk, with any kernel
    disk_mapped: bool = False  # whether a manifest says of a paravirtual machine that it is a whole disk


GENERATIONS: Mapping[str, Generation] = {
    "uec": Generation(
        "e?i-[0-9A-F]{8}",
        probes_refused=3,
        named=False,
        public=True,
        disk_alone=False,
        windows_alone=False,
        virtualization=False,
        platform=False,
    ),
    "euca3": Generation(
        "e?i-[0-9A-Fa-f]{8}",
        probes_refused=3,
        public=True,  # as 3.1 has it
        disk_alone=False,
        windows_alone=False,
        virtualization=False,
        platform=False,
    ),
    "euca4": Generation("e?i-[0-9a-f]{8}", probes_refused=1, ramdisk_needed=True, disk_mapped=True),
    "euca5": Generation(
        "[ae]?i-([0-9a-f]{8}|[0-9a-f]{17})", probes_refused=0, ramdisk_needed=True, disk_mapped=True
    ),
    "openstack": Generation(
        "a?i-[0-9a-f]{8}", probes_refused=1, platform=False, acls=False, kernel_needed=False
    ),
    "aws": Generation("a?i-[0-9a-f]{17}", probes_refused=0, platform=False, acls=False),
    "sandbox": Generation("e?i-[0-9A-F]{8}", probes_refused=0, windows_alone=False, platform=False),
}
LETTERS = {"machine": "m", "kernel": "k", "ramdisk": "r"}


# --- what is dropped ----------------------------------------------------------------------------------------


def run(program: str, *arguments: str | Path) -> None:
    path = shutil.which(program, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    assert path, f"{program} is missing: apt-get install {PACKAGES[program]}"
    subprocess.run([path, *arguments], capture_output=True, timeout=60, check=True)


@pytest.fixture(scope="module")
def drops(real_kernel: DebianKernel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of eight sets, to be copied into a spool:

    `linux` in three files of one stem; `disk`, a whole disk whose sidecar says hvm; `lone`, another without a
    sidecar; `loader`, a kernel that its sidecar names alone; and `windows`, as memdisk boots it. `xen`, a
    whole disk, and `borrower`, a partition, are to boot with what a cloud has: `LENT` are their sidecars.
    `bare` is a partition with nothing to boot it.
    """
    assert SYSLINUX.exists(), "memdisk is missing: apt-get install syslinux-common"
    made, folder = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("drops")
    boot_code = (SYSLINUX / "mbr" / "mbr.bin").read_bytes()
    run("mke2fs", "-q", "-t", "ext2", folder / "linux.img", "2m")
    shutil.copy(real_kernel.image, folder / "linux.vmlinuz")
    (folder / "linux.initrd").write_bytes(ramdisk(real_kernel))
    for name in ("borrower", "bare"):
        run("mke2fs", "-q", "-t", "ext2", "-L", name, folder / f"{name}.img", "1m")
    for name in ("disk", "lone", "xen"):
        run("mke2fs", "-q", "-t", "ext2", "-L", name, made / name, "1m")
        whole_disk(folder / f"{name}.img", made / name, kind=LINUX_TYPE, code=boot_code)
    (folder / "disk.toml").write_text('virtualization = "hvm"\n')
    (folder / "memdisk-2").write_bytes((SYSLINUX / "memdisk").read_bytes() + bytes(SECTOR_BYTES))
    (folder / "loader.toml").write_text('kernel = "memdisk-2"\n')
    run("mkfs.fat", "-C", folder / "boot.flp", "1440")
    with (made / "ntfs").open("wb") as file:
        file.truncate(2 * MIB)
    run("mkntfs", "-F", "-q", "-Q", "-p", str(DISK_START_SECTOR), "-H", "255", "-S", "63", made / "ntfs")
    whole_disk(folder / "server.img", made / "ntfs", kind=NTFS_TYPE, code=boot_code)
    shutil.copy(SYSLINUX / "memdisk", folder / "memdisk")
    (folder / "windows.toml").write_text(
        'platform = "windows"\nmachine = "server.img"\nkernel = "memdisk"\nramdisk = "boot.flp"\n'
    )
    return folder


# Sidecars of sets that boot with a kernel and a ramdisk of the cloud's own.
LENT = {
    "xen": 'virtualization = "paravirtual"\nkernel = "{kernel}"\nramdisk = "{ramdisk}"\n',
    "borrower": 'kernel = "{kernel}"\n',
}


def lend(cloud: Sandbox) -> Mapping[str, str]:
    """The ids of a kernel and a ramdisk that a cloud has had all along, by role."""
    ids: dict[str, str] = {}
    for role in ("kernel", "ramdisk"):
        image = RegisteredImage(
            id="",
            location=f"theirs/{role}.manifest.xml",
            manifest_sha256="",
            type=role,
            architecture="x86_64",
            kernel="",
            ramdisk="",
            virtualization="",
            name=f"their-{role}",
            description="",
            size=MIB,
            platform="",
            state="available",
            looks=0,
            fate="available",
            reason="",
            registered="2010-04-29T12:00:00.000+00:00",
        )
        ids[role] = cloud.backend.registry.add_image(
            image, ids=cloud.backend.rules.ec2.ids, permissions=()
        ).id
    return ids


# --- a run --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """Requests and results of one `once`. `images`: what `images` shows of the cloud, by id, but
    for what was `lent`, whose ids are by role."""

    wanted: Generation
    host: Host
    lent: Mapping[str, str]
    returncode: int
    talk: str = field(repr=False)
    requests: Sequence[RecordedRequest] = field(repr=False)
    images: Mapping[str, Mapping[str, Any]] = field(repr=False)

    def done(self, name: str, *roles: str) -> Mapping[str, str]:
        """The ids of a set that is registered, by role: exactly these, in their form and their files."""
        report = self.host.report(name)
        assert report["state"] == "done", (report["waiting_for"], report["error"])
        ids = {role: str(image_id) for role, image_id in report["ids"].items() if image_id}
        assert set(ids) == set(roles)
        for role, image_id in ids.items():
            letter = LETTERS[role]
            assert re.fullmatch(self.wanted.ids.replace("?", letter, 1), image_id)
            assert (self.host.spool / f"{name}.e{letter}i").read_text() == f"{image_id}\n"
            assert self.images[image_id]["type"] == role
        files = [f"{name}.e{LETTERS[role]}i" for role in ids] + [f"{name}.uec.json", f"{name}.uec.log"]
        assert self.outputs(name) == sorted(files)
        return ids

    def waits(self, name: str) -> str:
        """The reason why a set waits, before any cost but perhaps a look into its image."""
        report = self.host.report(name)
        assert report["state"] == "waiting", report
        assert {f"{name}.uec.json"} <= set(self.outputs(name)) <= {f"{name}.uec.json", f"{name}.uec.log"}
        return str(report["waiting_for"])

    def mappings(self) -> Mapping[str, Mapping[str | None, str | None]]:
        """The devices in the manifests in the bucket, by location."""
        stored = [one for one in self.host.cloud.objects(BUCKET) if one.key.endswith(".manifest.xml")]
        roots = {f"{BUCKET}/{one.key}": ElementTree.fromstring(one.path.read_text()) for one in stored}  # noqa: S314 (our own)
        return {
            location: {row.findtext("virtual"): row.findtext("device") for row in root.iter("mapping")}
            for location, root in roots.items()
        }

    def outputs(self, name: str) -> list[str]:
        return [file for file in self.host.outputs() if file.startswith(f"{name}.")]


@dataclass(frozen=True)
class Pair:
    named: Run  # all the sets, before a cloud that the configuration names
    found_out: Run  # the cheapest of them, before one that has to be found out


@pytest.fixture(scope="module", params=GENERATIONS)
def pair(
    request: pytest.FixtureRequest,
    drops: Path,
    host_class: type[Host],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pair]:
    """Two hosts, each with a cloud of its own of one generation. They work side by side, since the time goes
    into waiting: for pending images, and for another second where a signature counts once."""
    folder, dialect = tmp_path_factory.mktemp(request.param), request.param
    everything = sorted(path.name for path in drops.iterdir())
    with (
        Sandbox(with_keys(folder / "named"), dialect=dialect) as named,
        Sandbox(folder / "found_out", dialect=dialect) as found_out,
        ThreadPoolExecutor() as pool,
    ):
        hosts = [host_class.made(cloud.folder.with_suffix(".host"), cloud) for cloud in (named, found_out)]
        for host, names in zip(hosts, (everything, CHEAPEST), strict=True):
            host.drop(*(drops / name for name in names))
        lent = lend(named)
        for name, text in LENT.items():
            (hosts[0].spool / f"{name}.toml").write_text(text.format_map(lent))
        wanted = GENERATIONS[dialect]
        yield Pair(*pool.map(run_once, hosts, (dialect, "auto"), (lent, {}), (wanted, wanted)))


def run_once(host: Host, said: str, lent: Mapping[str, str], wanted: Generation) -> Run:
    text = host.config.read_text().replace('dialect = "sandbox"', f'dialect = "{said}"')
    host.configure(f"{text}\n[work]\nsets = {SETS_AT_ONCE}\nuploads = {UPLOADS_AT_ONCE}\n")
    ended, requests = host.run("once"), host.cloud.requests
    shown = gallery.gathered(load(host.config, environ={}), "default", owned=True)
    images = {e.image.id: gallery.as_json(e) for e in shown if e.image.id not in lent.values()}
    return Run(wanted, host, lent, ended.returncode, ended.stderr, requests, images)


@pytest.fixture
def ran(pair: Pair) -> Run:
    return pair.named


# --- the matrix ---------------------------------------------------------------------------------------------


def test_a_linux_set_becomes_a_machine_with_its_kernel_and_ramdisk(ran: Run) -> None:
    ids = ran.done("linux", "kernel", "ramdisk", "machine")
    machine = ran.images[ids["machine"]]
    assert (machine["kernel"], machine["ramdisk"]) == (ids["kernel"], ids["ramdisk"])
    if ran.wanted.virtualization:
        assert machine["virtualization"] == "paravirtual"
    assert (machine["state"], machine["architecture"], machine["platform"]) == ("available", "x86_64", "")


@pytest.mark.parametrize("name", ["disk", "lone"])
def test_a_whole_disk_boots_by_itself_where_it_can(ran: Run, name: str) -> None:
    check_disk(ran, name)


def check_disk(ran: Run, name: str) -> None:
    if not ran.wanted.disk_alone:
        assert ran.waits(name).startswith(UNABLE[name])
        return
    machine = ran.images[ran.done(name, "machine")["machine"]]
    assert (machine["kernel"], machine["ramdisk"], machine["virtualization"]) == ("", "", "hvm")
    assert (machine["state"], machine["platform"]) == ("available", "")


UNABLE = {
    "disk": "a kernel: no disk boots by itself on cloud default "
    '(add disk.vmlinuz, or say kernel = "eki-…" or kernel = "none" in disk.toml)',
    "lone": "a kernel: a paravirtual image boots only with one "
    '(add lone.vmlinuz, or say kernel = "eki-…" or kernel = "none" in lone.toml)',
}


def test_a_kernel_named_alone_is_registered_alone(ran: Run) -> None:
    check_kernel(ran)


def check_kernel(ran: Run) -> None:
    image = ran.images[ran.done("loader", "kernel")["kernel"]]
    assert (image["kernel"], image["ramdisk"], image["state"]) == ("", "", "available")


def test_windows_boots_as_its_generation_boots_it(ran: Run) -> None:
    alone = ran.wanted.windows_alone
    ids = ran.done("windows", *(() if alone else ("kernel", "ramdisk")), "machine")
    machine = ran.images[ids["machine"]]
    assert (machine["kernel"], machine["ramdisk"]) == (ids.get("kernel", ""), ids.get("ramdisk", ""))
    assert machine["platform"] == ("windows" if ran.wanted.platform else "")
    if ran.wanted.virtualization:
        assert machine["virtualization"] == ("hvm" if alone else "paravirtual")
    left_out = "memdisk and boot.flp left out" in (ran.host.spool / "windows.uec.log").read_text()
    assert left_out == alone


def test_a_paravirtual_disk_is_mapped_where_its_generation_looks_for_that(ran: Run) -> None:
    machine = ran.images[ran.done("xen", "machine")["machine"]]
    assert (machine["kernel"], machine["ramdisk"]) == (ran.lent["kernel"], ran.lent["ramdisk"])
    if ran.wanted.virtualization:
        assert machine["virtualization"] == "paravirtual"
    mapped = {location: mapping for location, mapping in ran.mappings().items() if mapping}
    assert mapped == ({machine["location"]: {"ami": "sda"}} if ran.wanted.disk_mapped else {})


def test_a_machine_without_a_ramdisk_waits_for_one_where_it_needs_it(ran: Run) -> None:
    kernel = ran.lent["kernel"]
    if ran.wanted.ramdisk_needed:
        assert ran.waits("borrower").startswith(f"a ramdisk to go with {kernel} ")
        return
    machine = ran.images[ran.done("borrower", "machine")["machine"]]
    assert (machine["kernel"], machine["ramdisk"]) == (kernel, "")


def test_a_partition_alone_waits_for_a_kernel_where_it_needs_one(ran: Run) -> None:
    if ran.wanted.kernel_needed:
        assert ran.waits("bare").startswith("a kernel: a paravirtual image boots only with one ")
        return
    machine = ran.images[ran.done("bare", "machine")["machine"]]
    assert (machine["kernel"], machine["ramdisk"]) == ("", "")


def test_every_image_is_called_and_shown_as_its_generation_does(ran: Run) -> None:
    for image in ran.images.values():
        assert bool(image["name"]) == ran.wanted.named
        assert image["public"] == ran.wanted.public
        assert image["location"].startswith(f"{BUCKET}/")
        assert image["made_here"] is not None
    waiting = not ran.wanted.disk_alone or ran.wanted.ramdisk_needed or ran.wanted.kernel_needed
    assert ran.returncode == (75 if waiting else 0), ran.talk


def test_nothing_was_sent_that_the_cloud_refuses(ran: Run) -> None:
    assert amiss(ran) == []
    check_questions(ran)


def amiss(ran: Run) -> list[RecordedRequest]:
    return [seen for seen in refused(ran) if not asks_for_bucket(seen) and not asks_for_acl(seen)]


def refused(ran: Run) -> list[RecordedRequest]:
    return [seen for seen in ran.requests if seen.status not in GRANTED]


def asks_for_bucket(seen: RecordedRequest) -> bool:
    return (seen.action, seen.code) in NO_BUCKET


def asks_for_acl(seen: RecordedRequest) -> bool:
    return seen.action == "PutObject" and "ACL" in seen.message


def check_questions(ran: Run) -> None:
    """Check that questions with a refusal as the answer are asked once: for a bucket, and for ACLs.
    Sets that are under way by then may ask as well, but not with a manifest and not with another bundle."""
    assert len([seen for seen in refused(ran) if asks_for_bucket(seen)]) == 1
    paths = [seen.path for seen in refused(ran) if asks_for_acl(seen)]
    assert [path for path in paths if ".part." not in path] == []
    assert len({path.partition(".part.")[0] for path in paths}) <= (0 if ran.wanted.acls else SETS_AT_ONCE)


def test_no_request_is_made_twice_for_one_image(ran: Run) -> None:
    registered = [seen for seen in ran.requests if seen.action == "RegisterImage"]
    assert len(registered) == len(ran.images)
    puts = [seen.path for seen in ran.requests if seen.action == "PutObject" and not seen.code]
    assert len(puts) == len(set(puts))


def test_a_cloud_that_is_not_named_is_found_out_and_served_as_if_it_were(pair: Pair) -> None:
    ran = pair.found_out
    check_kernel(ran)
    check_disk(ran, "lone")
    probes = ran.requests[:MOST_PROBES]
    assert [seen for seen in amiss(ran) if seen not in probes] == []
    assert len(amiss(ran)) == ran.wanted.probes_refused
    check_questions(ran)
