"""Archives of image sets under the real program: dropped, unpacked, registered, and nothing left over."""

import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.host import Host
from tests.support.listener import Recorder
from uecwatchd.clouds.connect import connect
from uecwatchd.config.load import load
from uecwatchd.delivery.verify import verify
from uecwatchd.demo.material import RealSet
from uecwatchd.events import Kind
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.service.daemon import Service
from uecwatchd.system import failpoints

EX_DATAERR, EX_TEMPFAIL = 65, 75


@pytest.fixture
def crossing() -> Iterator[Callable[[Callable[[str], None]], None]]:
    """Has a function called with each moment, in the thread that crosses it."""
    yield failpoints.listen
    failpoints.listen(lambda _: None)


@pytest.fixture(scope="module")
def ubuntu(small_set: RealSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of Ubuntu's archives, under their names."""
    folder = tmp_path_factory.mktemp("ubuntu")
    link = {
        "img": small_set.machine,
        "vmlinuz-virtual": small_set.kernel,
        "initrd-virtual": small_set.ramdisk,
    }
    for ending, source in link.items():
        name = f"karmic-uec-amd64{'.' if ending == 'img' else '-'}{ending}"
        (folder / name).symlink_to(source)
    (folder / "karmic-uec-amd64-loader").write_bytes(b"\x7fELF" + bytes(508))
    (folder / "README.files").write_text("What the files are.\n")
    return folder


def pack(host: Host, folder: Path, name: str, *options: str) -> Path:
    """Pack what is in a folder with GNU tar, links as their files, and drop it."""
    made = host.folder / name
    names = sorted(path.name for path in folder.iterdir())
    subprocess.run(["tar", "-C", folder, "-chSf", made, "--hard-dereference", *options, *names], check=True)
    return made.rename(host.spool / name)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def work_left(host: Host) -> list[Path]:
    return list((host.state / "work" / "sets").iterdir())


def test_the_set_in_an_archive_of_ubuntu_is_registered(host: Host, ubuntu: Path) -> None:
    archive = pack(host, ubuntu, "karmic-uec-amd64.tar.gz", "-z")
    before = digest(archive)
    run = host.run("once")
    assert run.returncode == 0, run.stderr
    assert host.outputs() == [
        f"karmic-uec-amd64{ending}" for ending in (".eki", ".emi", ".eri", ".uec.json", ".uec.log")
    ]
    report = host.report("karmic-uec-amd64")
    names = {"kernel": "-vmlinuz-virtual", "ramdisk": "-initrd-virtual", "machine": ".img"}
    found = {member["role"]: (member["origin"], member["sha256"]) for member in report["members"]}
    assert found == {
        role: (
            f"karmic-uec-amd64{ending} in karmic-uec-amd64.tar.gz",
            digest(ubuntu / f"karmic-uec-amd64{ending}"),
        )
        for role, ending in names.items()
    }
    log = (host.spool / "karmic-uec-amd64.uec.log").read_text()
    assert "archive karmic-uec-amd64.tar.gz (" in log
    assert "unpacked karmic-uec-amd64.tar.gz: 5 files of " in log
    assert "left out: README.files, karmic-uec-amd64-loader" in log
    assert work_left(host) == []
    assert digest(archive) == before
    settings = load(host.config, environ={})
    with closing(open_ledger(settings.state.dir)) as ledger:
        cloud = connect(settings.clouds["default"], uploads=1, before={})
        results = [result.role for record in ledger.sets() for result in verify(record, cloud)]
    assert sorted(results) == ["kernel", "machine", "ramdisk"]
    assert host.run("verify", "karmic-uec-amd64").returncode == 0
    again = len(host.cloud.requests)
    host.run("once")
    assert not [seen for seen in host.cloud.requests[again:] if seen.action == "PutObject"]


@pytest.fixture(scope="module")
def eucalyptus(small_set: RealSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in an archive of Eucalyptus: one image, and two kernels with the same names."""
    folder = tmp_path_factory.mktemp("eucalyptus") / "euca-centos-5.3-x86_64"
    for hypervisor in ("kvm", "xen"):
        inner = folder / f"{hypervisor}-kernel"
        inner.mkdir(parents=True)
        (inner / "vmlinuz-2.6.28-11").symlink_to(small_set.kernel)
        (inner / "initrd.img-2.6.28-11").write_bytes(
            small_set.ramdisk.read_bytes() + hypervisor.encode().ljust(512, b"\0")
        )
    subprocess.run(["mkfs.ext4", "-q", folder / "centos.5-3.x86-64.img", "1M"], check=True)
    return folder


def test_the_kernel_for_the_hypervisor_is_taken_out_of_an_archive_of_eucalyptus(
    host: Host, eucalyptus: Path
) -> None:
    pack(host, eucalyptus.parent, "kvm.tgz", "-z")
    pack(host, eucalyptus.parent, "xen.tar", "--format=pax")
    (host.spool / "xen.toml").write_text('hypervisor = "xen"\n')
    run = host.run("once")
    assert run.returncode == 0, run.stderr
    for hypervisor, archive in (("kvm", "kvm.tgz"), ("xen", "xen.tar")):
        (ramdisk,) = [one for one in host.report(hypervisor)["members"] if one["role"] == "ramdisk"]
        inner = f"{eucalyptus.name}/{hypervisor}-kernel/initrd.img-2.6.28-11"
        assert ramdisk["origin"] == f"{inner} in {archive}"
        assert ramdisk["sha256"] == digest(eucalyptus.parent / inner)
    assert work_left(host) == []
    os.truncate(host.spool / "xen.tar", (host.spool / "xen.tar").stat().st_size // 2)
    host.ask("once", code=EX_DATAERR)
    left = [name for name in host.outputs() if name.startswith("xen")]
    assert left == ["xen.uec.error", "xen.uec.json", "xen.uec.log"], "the ids are of an earlier archive"


def entry(name: str, kind: bytes = tarfile.REGTYPE, *, size: int = 0, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info


def write_archive(path: Path, files: Mapping[str, bytes | Path], *more: tarfile.TarInfo) -> None:
    with tarfile.open(path, "w", dereference=True) as tar:
        for name, content in files.items():
            if isinstance(content, Path):
                tar.add(content, name)
            else:
                tar.addfile(entry(name, size=len(content)), io.BytesIO(content))
        for one in more:
            tar.addfile(one, io.BytesIO(bytes(one.size)))


def test_an_archive_that_is_no_set_is_refused_with_a_sentence_and_leaves_nothing(
    host: Host, eucalyptus: Path
) -> None:
    image = eucalyptus / "centos.5-3.x86-64.img"
    kernel = eucalyptus / "kvm-kernel" / "vmlinuz-2.6.28-11"
    ramdisk = eucalyptus / "kvm-kernel" / "initrd.img-2.6.28-11"
    whole: dict[str, bytes | Path] = {"a.img": image, "vmlinuz": kernel, "initrd": ramdisk}
    refused: dict[str, tuple[dict[str, bytes | Path], list[tarfile.TarInfo], str]] = {
        "two": ({**whole, "b.img": image}, [], "two machine images in two.tar"),
        "flat": ({**whole, "other/a.img": image}, [], "two files in it are called a.img"),
        "link": (whole, [entry("x", tarfile.SYMTYPE, link="/etc/shadow")], "x in it is a symbolic link"),
        "up": ({**whole, "../../up.img": b"x"}, [], "leads out of the archive"),
        "nested": ({**whole, "more.tar.gz": b"x"}, [], "an archive in an archive is not unpacked"),
        "bare": ({"a.img": image}, [], "it lacks a kernel"),
        "none": ({"README": b"read me"}, [], "it lacks a machine image"),
        "empty": ({}, [], "it is no tar archive"),
        "hidden": ({"._a.img": image}, [], "there is no file in it"),
        "xen-only": ({"a.img": image, "xen-kernel/vmlinuz": kernel}, [], "it has no kernel for kvm"),
        "odd": (
            {**whole, "a.img": image.read_bytes() + b"x"},
            [],
            "Unpack it, and drop the files. Try: trunc",
        ),
        "cut-disk": ({**whole, "a.img": image.read_bytes()[: 1 << 19]}, [], "the end is missing"),
        "sidecars": ({**whole, "image.toml": b"public = false\n", "sidecars.toml": b""}, [], "two sidecars"),
        "mistake": ({**whole, "image.toml": b"publik = true\n"}, [], "did you mean public?"),
        "closed": ({**whole, "image.toml": b"public = true\n"}, [], "public"),
        "sum": (
            {**whole, "a.img.sha256": b"0" * 64 + b"  a.img\n"},
            [],
            "its SHA-256 is not the declared one",
        ),
    }
    text = host.config.read_text().replace("[spool]", '[spool]\nclosed = ["public"]')
    host.configure(text)
    for name, (files, more, _) in refused.items():
        write_archive(host.spool / f"{name}.tar", files, *more)
    (host.spool / "page.tar.gz").write_text("<html>Not found</html>\n")
    whole_bytes = (host.spool / "two.tar").read_bytes()
    (host.spool / "cut.tar").write_bytes(whole_bytes[: len(whole_bytes) // 2])
    (host.spool / "more.tar").write_bytes(whole_bytes)
    (host.spool / "more.tar.sha256").write_text(f"{'0' * 64}  more.tar\n")
    host.ask("once", code=EX_DATAERR)
    errors = {path.name: path.read_text() for path in host.spool.glob("*.uec.error")}
    for name, (_, _, words) in refused.items():
        assert words in errors.get(f"{name}.uec.error", ""), (name, errors.get(f"{name}.uec.error"))
    assert "it is no tar archive" in errors["page.uec.error"]
    assert "its end is missing" in errors["cut.uec.error"]
    assert host.report("more")["waiting_for"] == "more.tar to have its declared SHA-256"
    assert not host.cloud.calls("PutObject")
    assert work_left(host) == []
    assert not list(host.folder.rglob("up.img"))


def test_an_archive_that_does_not_fit_on_the_disk_waits_for_space(host: Host) -> None:
    header = entry("a.img", size=3 << 40).tobuf(tarfile.GNU_FORMAT)
    (host.spool / "large.tar").write_bytes(header + bytes(10240))
    host.ask("once", code=EX_TEMPFAIL)
    report = host.report("large")
    assert report["state"] == "deferred"
    assert "no room in the work folder" in report["error"]["what"]
    assert "3 TiB may be needed" in report["error"]["why"]


def test_an_archive_that_changes_while_it_is_unpacked_is_unpacked_again(
    host: Host, eucalyptus: Path, listener: Recorder, crossing: Callable[..., None]
) -> None:
    archive = pack(host, eucalyptus.parent, "kvm.tar.gz", "-z")
    touched: list[str] = []

    def cross(moment: str) -> None:
        if moment.startswith("before write a file of the work folder") and not touched:
            touched.append(moment)
            os.utime(archive)

    crossing(cross)
    with closing(open_ledger(host.state)) as ledger:
        for state in ("deferred", "done"):
            (record,) = Service(load(host.config, environ={}), listener=listener, ledger=ledger).once()
            assert record.state == state, record.error
    assert touched
    assert any("it changed while it was read" in sentence for sentence in listener.sentences(Kind.DEFERRED))
    assert work_left(host) == []
