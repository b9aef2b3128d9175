"""The command line of a machine, its accelerator, its screen, and the script of a layer."""

import shutil
import subprocess
from itertools import takewhile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uecwatchd.errors import Rejected
from uecwatchd.install.accelerator import AcceleratorTrial
from uecwatchd.install.command import MachineMedia, machine_command
from uecwatchd.install.layer import LayerEnd, find_end, user_data
from uecwatchd.install.machine import Machine
from uecwatchd.install.recipe import MIB, InstallRecipe
from uecwatchd.install.screen import png_from_ppm

QEMU = shutil.which("qemu-system-x86_64") or "qemu-system-x86_64"
SCREEN = b"P6\n2 1\n255\n\xff\0\0\0\xff\0"


def command(recipe: InstallRecipe, media: MachineMedia) -> str:
    words = machine_command(recipe, media, 7, program="qemu", accelerator="tcg", restarts=False)
    return " ".join(words)


def test_a_machine_has_no_network_unless_the_recipe_wants_one() -> None:
    assert "-nic none" in command(InstallRecipe(), MachineMedia("d"))
    assert "-nic user,model=virtio-net-pci" in command(InstallRecipe(network="user"), MachineMedia("d"))
    windows = InstallRecipe(network="user", disk_bus="scsi")
    assert "-nic user,model=e1000" in command(windows, MachineMedia("d"))


def test_an_old_system_gets_an_old_processor() -> None:
    assert "-cpu max" in command(InstallRecipe(), MachineMedia("d"))
    assert "-cpu qemu64" in command(InstallRecipe(disk_bus="ide"), MachineMedia("d"))


def test_the_disk_is_tried_before_the_cds() -> None:
    said = command(InstallRecipe(), MachineMedia("d", cds=("/dev/fd/5", "drivers")))
    assert "virtio-blk-pci,drive=disk,bootindex=1" in said
    assert "ide-cd,drive=cd0,bus=ide.1,unit=0,bootindex=2" in said
    assert "file=/dev/fd/5,format=raw,media=cdrom,readonly=on" in said


def test_a_comma_in_a_name_is_no_option() -> None:
    assert "file=a,,snapshot=off,format=qcow2" in command(InstallRecipe(), MachineMedia("a,snapshot=off"))


def test_a_kernel_writes_on_the_serial_port_unless_told_otherwise() -> None:
    media = MachineMedia("d", kernel="k", initrd="i")
    assert command(InstallRecipe(arguments="quiet"), media).endswith("-initrd i -append quiet console=ttyS0")
    assert command(InstallRecipe(arguments="console=tty0"), media).endswith("-append console=tty0")


def test_a_second_disk_has_its_own_bus() -> None:
    recipe = InstallRecipe(disk_bus="ide", second_disk="scsi")
    said = command(recipe, MachineMedia("d", second_disk="s"))
    assert "-device lsi53c895a,id=scsi" in said
    assert "scsi-hd,drive=second,bus=scsi.0" in said


def test_without_a_device_there_is_no_trial(tmp_path: Path) -> None:
    told: list[str] = []
    trial = AcceleratorTrial("/nonexistent", tell=told.append, device=tmp_path / "kvm")
    assert trial.choose("auto", processor="max", find_kernel=lambda: None) == "tcg"
    assert trial.choose("kvm", processor="max", find_kernel=lambda: None) == "kvm", "as it was wanted"
    assert told == [f"{tmp_path}/kvm: there is no such device. Machines are emulated, some ten times slower."]


def test_a_device_that_starts_no_machine_is_not_used_and_tried_once(tmp_path: Path) -> None:
    (tmp_path / "kvm").touch()
    asked: list[int] = []
    told: list[str] = []
    program = tmp_path / "hangs"  # as a kernel does, with a device that opens and does not work
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    trial = AcceleratorTrial(str(program), tell=told.append, device=tmp_path / "kvm", seconds=0.2)
    for _ in range(2):
        assert trial.choose("auto", processor="max", find_kernel=lambda: asked.append(1)) == "tcg"
    assert len(asked) == 1
    (sentence,) = told
    assert sentence.startswith(f"{tmp_path}/kvm: it does not work: a ")


def emulated_trial(folder: Path, told: list[str], *, fails_with: str = "") -> AcceleratorTrial:
    """Return a trial that emulates, because that works everywhere.

    In place of QEMU is a program that changes the accelerator. It fails with one model of a processor.
    """
    (folder / "kvm").touch()
    program = folder / "emulated"
    changed = 'for word; do shift; [ "$word" != kvm ] || word=tcg; set -- "$@" "$word"; done'
    fails = f'case "$*" in *"-cpu {fails_with} "*) exit 1;; esac\n' if fails_with else ""
    program.write_text(f'#!/bin/sh\n{fails}{changed}\nexec {QEMU} "$@"\n')
    program.chmod(0o755)
    return AcceleratorTrial(
        str(program), tell=told.append, device=folder / "kvm", seconds=60.0, host_kernel=lambda: None
    )


def test_the_boot_sector_of_a_trial_writes_its_line(tmp_path: Path) -> None:
    told: list[str] = []
    trial = emulated_trial(tmp_path, told)
    assert trial.choose("auto", processor="max", find_kernel=lambda: None) == "kvm"
    assert told == []


def test_each_processor_is_tried_because_qemu_may_fail_with_one_of_them(tmp_path: Path) -> None:
    told: list[str] = []
    trial = emulated_trial(tmp_path, told, fails_with="max")
    chosen = [trial.choose("auto", processor=one, find_kernel=lambda: None) for one in ("qemu64", "max")]
    assert chosen == ["kvm", "tcg"]
    assert len(told) == 1


def test_a_screen_becomes_a_png(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png_from_ppm(SCREEN))
    told = subprocess.run(["file", tmp_path / "x.png"], capture_output=True, text=True, check=True).stdout
    assert "PNG image data, 2 x 1, 8-bit/color RGB, non-interlaced" in told


@given(data=st.binary(max_size=100) | st.binary(max_size=20).map(lambda end: SCREEN[:-6] + end))
def test_what_is_no_screen_is_refused(data: bytes) -> None:
    try:
        assert png_from_ppm(data).startswith(b"\x89PNG")
    except ValueError as error:
        assert str(error).startswith("it is not")  # noqa: PT017 (both are fine)


def test_a_console_without_end_is_refused(tmp_path: Path) -> None:
    write = ["sh", "-c", "head -c 34000000 /dev/zero >console.log"]
    machine = Machine(tmp_path, lambda _monitor: write, descriptors=())
    try:
        machine.wait(60)
        with pytest.raises(Rejected, match="more than 32 MiB were written there"):
            list(takewhile(bool, iter(machine.read_console, None)))
    finally:
        machine.close()


def test_the_script_of_a_layer_tells_its_first_failure(tmp_path: Path) -> None:
    recipe = InstallRecipe(base="x", run=("echo it\\'s", "exit 3", "touch never"), memory=512 * MIB)
    script = user_data(recipe).decode().replace("/dev/console", "/dev/stdout").replace("poweroff", "true")
    said = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert find_end(said.stdout) == LayerEnd(2, 3)
    assert "it's" in said.stdout
    assert not (tmp_path / "never").exists()


def test_a_layer_that_is_complete_says_so() -> None:
    assert find_end("noise\nuecwatchd-layer: done\n") == LayerEnd()
    assert find_end("still at it") is None
    assert find_end("+ tell uecwatchd-layer: done\r\n") is None
    assert find_end(
        "uecwatchd-layer: done\r\nuecwatchd-layer: step 2 failed with exit code 7\r\n"
    ) == LayerEnd(2, 7)
