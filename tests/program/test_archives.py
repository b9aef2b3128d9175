"""Archives of image sets under the real program: dropped, unpacked, registered, and nothing left over."""

import hashlib
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.host import Host
from uecwatchd.clouds.connect import connect
from uecwatchd.config.load import load
from uecwatchd.delivery.verify import verify
from uecwatchd.demo.material import RealSet
from uecwatchd.ledger.sqlite import open_ledger

EX_DATAERR = 65
FLOPPY = "karmic-uec-i386-floppy"


@pytest.fixture(scope="module")
def ubuntu(real_set: RealSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of Ubuntu's archives, under their names."""
    folder = tmp_path_factory.mktemp("ubuntu")
    link = {"img": real_set.machine, "vmlinuz-virtual": real_set.kernel, "initrd-virtual": real_set.ramdisk}
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
    subprocess.run(["tar", "-C", folder, "-chSf", made, *options, *names], check=True)
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
