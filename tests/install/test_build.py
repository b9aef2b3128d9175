"""Builds with real machines: what comes of each kind of installer. They are a few bytes of machine code."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.boot_code import (
    DELAY,
    GOOD_SYSTEM,
    HANG,
    POWER_OFF,
    RESTART,
    installer,
    make_iso,
    say,
    sector,
)
from tests.support.builds import Builds
from uecwatchd.images.formats.open import open_disk
from uecwatchd.install.progress import BuildProgress
from uecwatchd.install.request import BuildStatus


@pytest.fixture
def builds(tmp_path: Path) -> Iterator[Builds]:
    yield Builds(tmp_path)
    assert machines_in(tmp_path) == [], "no machine is left"


def machines_in(folder: Path) -> list[str]:
    """Return the processes that work in a folder, or below."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            place = (process / "cwd").readlink()
        except OSError:
            continue
        if place.is_relative_to(folder / "builds"):
            found.append(process.name)
    return found


def left(builds: Builds, status: BuildStatus) -> set[str]:
    return {path.name for path in (builds.folder / status.key).iterdir()}


def failure(status: BuildStatus) -> str:
    assert status.failure, status
    return f"{status.failure.kind}: {status.failure.what}: {status.failure.why}"


def has_picture(builds: Builds, status: BuildStatus) -> bool:
    assert left(builds, status) == {"request.json", "status.json", "console.log", "screenshot.png"}
    return (builds.folder / status.key / status.screenshot).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_system_that_boots_again_is_installed(builds: Builds) -> None:
    make_iso(builds.files / "tiny.iso", installer(GOOD_SYSTEM, POWER_OFF))
    status = builds.build()
    assert (status.state, status.stage, status.disk, status.accelerator) == (
        "done", "second boot", "disk.qcow2", "tcg",
    )  # fmt: skip
    assert status.last_line == "karmic login:"
    assert left(builds, status) == {"request.json", "status.json", "console.log", "disk.qcow2"}
    with (builds.folder / status.key / "disk.qcow2").open("rb", buffering=0) as file:
        assert open_disk(file, name="disk").source.size == 4 << 20
    assert "INSTALLING" in builds.console(status.key)


def test_an_installer_that_restarts_at_its_end_is_done(builds: Builds) -> None:
    make_iso(builds.files / "tiny.iso", installer(GOOD_SYSTEM, RESTART))
    assert builds.build().state == "done"


def test_an_installation_may_need_restarts(builds: Builds) -> None:
    """The CD installs a second stage, which starts from the disk and restarts for the end."""
    make_iso(builds.files / "tiny.iso", installer(say("STAGE TWO") + DELAY + RESTART, RESTART))
    status = builds.build(restarts=1, expect="STAGE TWO")
    assert status.state == "done"
    assert builds.console(status.key).count("STAGE TWO") == 2, "once from the disk, and once more as a proof"


def test_an_installer_that_fails_and_powers_off_has_installed_nothing(builds: Builds) -> None:
    make_iso(builds.files / "tiny.iso", installer(None, POWER_OFF, lines=("NO MIRROR",)))
    status = builds.build()
    assert failure(status) == (
        "rejected: the installed system does not come up: there is no boot loader on its disk: "
        "the installer has failed, or has not come to its end"
    )
    assert "NO MIRROR" in status.console
    assert has_picture(builds, status), "of the last screen, before it was switched off"


def test_an_installer_that_hangs_is_ended_at_the_time_limit(builds: Builds) -> None:
    make_iso(builds.files / "tiny.iso", installer(None, HANG, lines=("Which keyboard?",)))
    status = builds.build(time_limit="2s")
    assert failure(status) == "rejected: its installation does not end: it still runs after 2 s"
    assert status.console[-1] == "Which keyboard?"
    assert status.stage == "install"
    assert has_picture(builds, status)


def test_an_installer_that_restarts_for_ever_is_ended_at_its_first_restart(builds: Builds) -> None:
    make_iso(builds.files / "tiny.iso", installer(None, RESTART))
    status = builds.build()
    assert "there is no boot loader on its disk" in failure(status)
    assert builds.console(status.key).count("INSTALLING") == 1


def test_a_system_that_restarts_for_ever_does_not_come_up(builds: Builds) -> None:
    make_iso(builds.files / "tiny.iso", installer(say("HERE") + RESTART, POWER_OFF))
    status = builds.build()
    assert "it restarts, or switches itself off, instead of coming up" in failure(status)
    assert has_picture(builds, status)
    assert builds.console(status.key).count("HERE") == 1


@pytest.mark.parametrize(("bus", "second"), [("ide", "scsi"), ("scsi", "virtio"), ("virtio", "ide")])
def test_every_bus_has_a_controller_that_the_firmware_starts_from(
    builds: Builds, bus: str, second: str
) -> None:
    make_iso(builds.files / "tiny.iso", installer(GOOD_SYSTEM, POWER_OFF))
    make_iso(builds.files / "drivers.iso", b"", boots=False)
    (builds.files / "winnt.sif").write_text("[Data]\r\n")
    more = {"answers": "winnt.sif", "drivers": "drivers.iso", "network": "user"}
    status = builds.build(disk_bus=bus, second_disk=second, **more)
    assert status.state == "done", (status.failure, status.console)


def test_a_system_whose_kernel_panics_does_not_come_up(builds: Builds) -> None:
    make_iso(builds.files / "tiny.iso", installer(say("Kernel panic - not syncing: x") + HANG, POWER_OFF))
    assert "its kernel panics: Kernel panic - not syncing: x" in failure(builds.build())


def test_a_system_without_what_is_expected_is_ended_at_the_time_limit(builds: Builds) -> None:
    make_iso(builds.files / "tiny.iso", installer(GOOD_SYSTEM, POWER_OFF))
    status = builds.build(expect="SAC>", time_limit="2s")
    assert 'its console does not have "SAC>" after 2 s' in failure(status)
    assert status.stage == "second boot"


def base_that_says(builds: Builds, *lines: str) -> dict[str, object]:
    """Make a base whose system says this at each start, and return the recipe of a layer on it."""
    (builds.files / "base.img").write_bytes(sector(say(*lines) + POWER_OFF).ljust(1 << 20, b"\0"))
    run = ["echo fine", "echo no route; exit 7"]
    return {"base": "base.img", "memory": "32M", "time_limit": "60s", "run": run}


def test_a_layer_that_is_complete_is_booted_again(builds: Builds) -> None:
    status = builds.build(**base_that_says(builds, "uecwatchd-layer: done", "x login:"), disk="8M")
    assert (status.state, status.stage) == ("done", "second boot")
    with (builds.folder / status.key / "disk.qcow2").open("rb", buffering=0) as file:
        assert open_disk(file, name="disk").source.size == 8 << 20
    assert left(builds, status) == {"request.json", "status.json", "console.log", "disk.qcow2"}


def test_a_step_of_a_layer_that_fails_is_named(builds: Builds) -> None:
    said = "uecwatchd-layer: step 2 failed with exit code 7"
    status = builds.build(**base_that_says(builds, said))
    assert failure(status) == (
        'rejected: the layer is not complete: "echo no route; exit 7" has failed with exit code 7'
    )
    assert said in status.console


def test_a_base_that_runs_no_user_data_is_named(builds: Builds) -> None:
    status = builds.build(**base_that_says(builds, "x login:"))
    assert failure(status) == "rejected: nothing was added to the base: it has run no user data"


def test_a_base_that_does_not_start_is_named(builds: Builds) -> None:
    layer = base_that_says(builds)
    (builds.files / "base.img").write_bytes(bytes(1 << 20))  # as the first blocks of most partitions
    status = builds.build(**layer)
    assert failure(status) == "rejected: its base does not start: the firmware says: No bootable device"
    assert status.failure.hint.startswith("Use the whole disk")


def test_a_base_that_is_larger_than_the_disk_is_refused(builds: Builds) -> None:
    layer = base_that_says(builds)
    os.truncate(builds.files / "base.img", 8 << 20)
    status = builds.build(**layer, disk="4M")
    assert failure(status).endswith("it does not fit on the new disk: the base has 8 MiB, and disk = 4 MiB")


def test_a_base_that_names_another_file_is_refused(builds: Builds) -> None:
    """QEMU would read the other file, whatever it is."""
    layer = base_that_says(builds)
    (builds.files / "base.img").unlink()
    backed = ["-F", "raw", "-b", "/etc/passwd", str(builds.files / "base.img"), "1M"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backed], check=True)
    assert failure(builds.build(**layer)).startswith("rejected: base.img: ")


def test_an_iso_without_a_boot_record_is_refused_before_a_machine_starts(builds: Builds) -> None:
    make_iso(builds.files / "tiny.iso", b"", boots=False)
    status = builds.build()
    assert failure(status) == (
        "rejected: tiny.iso: it cannot be installed from: "
        "it has no boot record, so that nothing starts from it"
    )
    assert status.stage == "prepare"


def test_a_truncated_iso_is_refused(builds: Builds) -> None:
    iso = make_iso(builds.files / "tiny.iso", installer(GOOD_SYSTEM, POWER_OFF))
    os.truncate(iso, 100_000)
    assert "it is not complete: it has 97.66 KiB, and says it has" in failure(builds.build())


def test_what_is_no_iso_is_refused(builds: Builds) -> None:
    (builds.files / "tiny.iso").write_bytes(b"<html>not found</html>" * 4000)
    assert "it is not an ISO image" in failure(builds.build())


def test_a_kernel_that_is_not_in_the_iso_is_named(builds: Builds) -> None:
    make_iso(builds.files / "tiny.iso", installer(GOOD_SYSTEM, POWER_OFF))
    status = builds.build(kernel="Boot.bim")
    assert 'there is no file "Boot.bim" in it' in failure(status)
    assert status.failure
    assert status.failure.hint == "Name a file that is in it (did you mean boot.bin?)."


def test_without_qemu_its_package_is_named(builds: Builds) -> None:
    make_iso(builds.files / "tiny.iso", installer(GOOD_SYSTEM, POWER_OFF))
    key = builds.ask()
    builds.work(program="qemu-system-that-is-not-there")
    status = builds.status(key)
    assert failure(status) == "deferred: qemu-system-that-is-not-there: this program is not installed"
    assert status.failure
    assert status.failure.hint == "Try: apt-get install qemu-system-x86"


def test_a_machine_that_qemu_cannot_make_is_deferred_with_its_reason(builds: Builds) -> None:
    make_iso(builds.files / "tiny.iso", installer(GOOD_SYSTEM, POWER_OFF))
    status = builds.build(memory="900G")
    assert failure(status).startswith("deferred: QEMU has failed: cannot set up guest memory")


def test_a_file_that_has_changed_since_the_request_is_not_installed_from(builds: Builds) -> None:
    iso = make_iso(builds.files / "tiny.iso", installer(GOOD_SYSTEM, POWER_OFF))
    key = builds.ask()
    with iso.open("ab") as file:
        file.write(b"more")
    builds.work()
    assert failure(builds.status(key)).startswith("deferred: tiny.iso: it has changed")


def test_answers_that_are_gone_are_named(builds: Builds) -> None:
    make_iso(builds.files / "tiny.iso", installer(GOOD_SYSTEM, POWER_OFF))
    (builds.files / "answers").write_text("x")
    key = builds.ask(answers="answers")
    (builds.files / "answers").unlink()
    builds.work()
    assert failure(builds.status(key)) == "deferred: answers: it cannot be read: it is not there any more"


def test_a_stage_begins_without_the_last_line_of_the_one_before(builds: Builds) -> None:
    (builds.files / "tiny.iso").touch()
    progress = BuildProgress(builds.folder, builds.ask())
    progress.enter("install")
    progress.take("reboot: Power down\n")
    progress.enter("second boot")
    assert builds.status(progress.status.key).last_line == ""
