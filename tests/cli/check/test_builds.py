"""Findings of `check` about installations."""

import os
from pathlib import Path

import pytest

from uecwatchd.cli.check.builds import PROGRAMS, examine_builds
from uecwatchd.cli.check.finding import Finding
from uecwatchd.cli.check.unit import needs
from uecwatchd.cli.unit.path_access import Need
from uecwatchd.config.installation import InstallSettings
from uecwatchd.config.records import Settings


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything that an installation needs, and nothing else on the way to programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in PROGRAMS:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_a_host_without_qemu_is_well_and_says_that_it_installs_nothing(
    tmp_path: Path, programs: Path
) -> None:
    (programs / "qemu-img").unlink()
    (finding,) = examine_builds(InstallSettings(builds=tmp_path))
    assert finding.level == "ok"
    assert "qemu-img not installed (only recipes need it: apt-get install qemu-utils)" in finding.what


@pytest.mark.usefixtures("programs")
def test_a_folder_that_the_service_can_make_is_well(tmp_path: Path) -> None:
    builds = tmp_path / "not" / "there"
    assert list(examine_builds(InstallSettings(builds=builds))) == [
        Finding("ok", f"installations: in {builds}, by a child process of the service")
    ]
    assert not builds.parent.exists()


@pytest.mark.usefixtures("programs", "as_nobody")
def test_a_folder_that_the_service_cannot_write_is_reported(tmp_path: Path) -> None:
    os.seteuid(0)
    tmp_path.chmod(0o555)
    os.seteuid(65534)
    (finding,) = examine_builds(InstallSettings(builds=tmp_path))
    assert (finding.level, finding.hint) == (
        "warning",
        f"Try: sudo install -d -o nobody -m 2770 {tmp_path}",
    )


@pytest.mark.usefixtures("programs")
def test_the_folder_of_a_unit_has_to_be_there(tmp_path: Path) -> None:
    (finding,) = examine_builds(InstallSettings(builds=tmp_path / "missing", worker="unit"))
    assert (finding.level, finding.exit_code) == ("bad", 77)


@pytest.mark.usefixtures("programs")
def test_builds_that_no_set_has_are_named_with_their_size(tmp_path: Path) -> None:
    known, lost = "a" * 32, "b" * 32
    for name in (known, lost, "queue"):
        (tmp_path / name).mkdir()
    (tmp_path / lost / "disk.qcow2").write_bytes(bytes(2 << 20))
    install = InstallSettings(builds=tmp_path)
    assert [one.level for one in examine_builds(install, asked_for={known, lost})] == ["ok"]
    _, finding = examine_builds(install, asked_for={known})
    assert (finding.level, finding.what) == (
        "warning",
        f"{tmp_path}: no set here has 1 of its builds, with 2 MiB of disks",
    )
    assert finding.hint.endswith(f": rm -r {tmp_path / lost}")
    assert [one.level for one in examine_builds(install)] == ["ok"], "nothing is known of the sets"


def test_the_services_unit_has_to_let_it_write_there_if_another_unit_is_the_worker(tmp_path: Path) -> None:
    need = Need(tmp_path.resolve(), write=True)
    assert need in needs(Settings(install=InstallSettings(builds=tmp_path, worker="unit")))
    assert need not in needs(Settings(install=InstallSettings(builds=tmp_path)))
