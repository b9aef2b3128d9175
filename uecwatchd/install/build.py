"""One build: prepare, install, and boot the new disk a second time. Only the second boot proves anything.

An installer that fails exits like one that succeeds, by switching its machine off. So the new disk is started
alone, in a machine without the ISO, and must show on its console that the system is up. That machine writes
to a snapshot: the disk that goes on to the cloud has never been booted.

A build that was interrupted begins its stage again.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from uecwatchd.errors import Deferred, Rejected, Stopped, UecError
from uecwatchd.images.console import judge_console, last_lines
from uecwatchd.install.accelerator import AcceleratorTrial
from uecwatchd.install.command import MachineMedia, machine_command, processor_of
from uecwatchd.install.disks import WHAT, flush_disk, has_boot_loader
from uecwatchd.install.files import OpenFiles, opened
from uecwatchd.install.layer import find_end, layer_steps
from uecwatchd.install.machine import Machine
from uecwatchd.install.prepare import Preparation, find_trial_kernel, prepare
from uecwatchd.install.progress import BuildProgress, no_folder
from uecwatchd.install.recipe import InstallRecipe
from uecwatchd.install.request import (
    CANCEL,
    CONSOLE,
    DISK,
    REQUEST,
    SCREENSHOT,
    STATUS,
    BuildRequest,
    BuildStatus,
    is_withdrawn,
    read_status,
)
from uecwatchd.system.disk_space import check_space_for
from uecwatchd.system.text import quoted

LOOK_SECONDS = 0.2
# A system that has not come up by then does not, even where it is emulated on a busy host.
SECOND_BOOT_SECONDS = 1800.0
# The last words of a BIOS.
NO_BOOT = "No bootable device"
# What stays of a build that is over.
RESULTS = (REQUEST, STATUS, CANCEL, CONSOLE, DISK, SCREENSHOT)
TAIL_BYTES = 64 * 1024
LOOK_HINT = "See the last lines of its console."

Judge = Callable[[Machine], bool]


@dataclass(frozen=True, slots=True)
class BuildTools:
    """Tools of builds. `program` is QEMU's; `tell` takes sentences for the journal."""

    builds: Path
    program: str
    trial: AcceleratorTrial
    is_stopping: Callable[[], bool]
    tell: Callable[[str], None]
    now: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic


@dataclass(slots=True)
class _Build:
    """A build that is being carried out."""

    request: BuildRequest
    tools: BuildTools
    progress: BuildProgress
    accelerator: str = ""
    is_last_start: bool = False  #: the next restart ends the installation

    @property
    def folder(self) -> Path:
        return self.tools.builds / self.request.key

    def check(self) -> None:
        """Raise Stopped if the build was withdrawn, or the worker has to stop."""
        if self.tools.is_stopping() or is_withdrawn(self.tools.builds, self.request.key):
            raise Stopped(self.request.set_name, "its installation was stopped", "It begins its stage again.")


def carry_out(request: BuildRequest, tools: BuildTools) -> BuildStatus:
    """Carry out a build, and return its last status. Raises Stopped."""
    build = _Build(request, tools, BuildProgress(tools.builds, request.key, now=tools.now))
    try:
        before = read_status(tools.builds, request.key)
        with opened(request.files) as files:
            if not _is_installed(build, before):
                _install(build, files)
            build.check()
            _boot_again(build, files)
            files.check_unchanged()
    except Stopped:
        raise
    except UecError as error:
        return _failed(build, error)
    except OSError as error:
        return _failed(build, no_folder(build.folder, error))
    _tidy(build.folder, but=SCREENSHOT)
    return build.progress.finish(disk=DISK)


def _is_installed(build: _Build, before: BuildStatus | None) -> bool:
    """Tell if an interrupted build has its disk, and only the second boot is left."""
    if before is None or before.stage != "second boot" or not (build.folder / DISK).exists():
        return False
    build.accelerator = before.accelerator
    build.progress.resume(before)
    return True


def _install(build: _Build, files: OpenFiles) -> None:
    request, folder = build.request, build.folder
    for earlier in (CONSOLE, SCREENSHOT):
        (folder / earlier).unlink(missing_ok=True)
    build.progress.enter("prepare")
    work = Preparation(request, files, folder, build.check)
    media = prepare(work)
    build.accelerator = build.tools.trial.choose(
        request.accelerator,
        processor=processor_of(request.recipe),
        find_kernel=partial(find_trial_kernel, work),
    )
    build.progress.enter("install", accelerator=build.accelerator)
    build.tools.tell(f"{request.set_name}: the installation has begun ({build.accelerator})")
    with _machine(build, media, files, restarts=request.recipe.restarts > 0) as machine:
        _watch(build, machine, partial(_is_installer_over, build), limit=request.recipe.time_limit)
        _check_end(build, machine)
    if not has_boot_loader(folder):
        what = "the installed system does not come up"
        why = "there is no boot loader on its disk: the installer has failed, or has not come to its end"
        raise Rejected(what, why, LOOK_HINT)
    flush_disk(folder)


def _is_installer_over(build: _Build, machine: Machine) -> bool:
    recipe = build.request.recipe
    if NO_BOOT in machine.text:
        raise _no_start(recipe)
    if recipe.restarts and not build.is_last_start and machine.starts > recipe.restarts:
        build.is_last_start = machine.monitor.command("set-action", reboot="shutdown")
    return machine.is_over


def _no_start(recipe: InstallRecipe) -> Rejected:
    why = f"the firmware says: {NO_BOOT}"
    if recipe.iso is None:
        hint = "Use the whole disk of a system that boots on a PC with a BIOS: a partition alone does not."
        return Rejected("its base does not start", why, hint)
    hint = "Use an image that starts on a PC with a BIOS, or name kernel and initrd in it."
    return Rejected("its installer does not start", why, hint)


def _check_end(build: _Build, machine: Machine) -> None:
    """Raise the error of a machine without an end by itself, or of a failed layer."""
    recipe = build.request.recipe
    if complaint := machine.complaint():
        raise _failed_machine(build, complaint)
    steps = list(layer_steps(recipe))
    if not steps:
        return
    end = find_end(machine.text)
    if end is None:
        hint = "The base needs cloud-init, or something like it, which runs user data at its first boot."
        raise Rejected("nothing was added to the base", "it has run no user data", hint)
    if end.failed_step:
        step = steps[end.failed_step - 1] if end.failed_step <= len(steps) else ""
        is_packages = bool(recipe.packages) and end.failed_step == 1
        what = f"installing {', '.join(recipe.packages)}" if is_packages else step
        why = f"{quoted(what)} has failed with exit code {end.exit_code}"
        raise Rejected("the layer is not complete", why, LOOK_HINT)


def _failed_machine(build: _Build, complaint: str) -> Deferred:
    hint = "It is tried again by itself."
    if build.accelerator == "kvm":
        hint = f'{hint} It does without KVM by accelerator = "tcg" under [install] in the configuration.'
    return Deferred("QEMU has failed", complaint, hint)


def _boot_again(build: _Build, files: OpenFiles) -> None:
    """Start the new disk alone, and wait until its system is up. Raises Rejected if it does not come up."""
    (build.folder / SCREENSHOT).unlink(missing_ok=True)  # of the installer
    build.progress.enter("second boot", accelerator=build.accelerator)
    build.tools.tell(f"{build.request.set_name}: starting the new disk ({build.accelerator})")
    media = MachineMedia(DISK, snapshot=True)
    with _machine(build, media, files, restarts=False) as machine:
        limit = min(build.request.recipe.time_limit, SECOND_BOOT_SECONDS)
        _watch(build, machine, partial(_is_up, build), limit=limit)


def _is_up(build: _Build, machine: Machine) -> bool:
    expect = build.request.recipe.expect
    what = "the installed system does not come up"
    if NO_BOOT in machine.text:
        why = "its disk does not boot: the installer has not finished, or has installed no boot loader"
        raise Rejected(what, why, LOOK_HINT)
    verdict = judge_console(machine.text, expect=expect or "")
    if verdict.state == "failed":
        raise Rejected(what, f"{verdict.why}: {verdict.line}", LOOK_HINT)
    if verdict.state == "up":
        return True
    if machine.is_over:
        if complaint := machine.complaint():
            raise _failed_machine(build, complaint)
        raise Rejected(what, "it restarts, or switches itself off, instead of coming up", LOOK_HINT)
    return False


# --- one machine ------------------------------------------------------------------------------------------


@contextmanager
def _machine(build: _Build, media: MachineMedia, files: OpenFiles, *, restarts: bool) -> Iterator[Machine]:
    """Run a machine for the length of a block. After an error there is a picture of its screen."""
    command = partial(
        machine_command,
        build.request.recipe,
        media,
        program=build.tools.program,
        accelerator=build.accelerator,
        restarts=restarts,
    )
    machine = Machine(build.folder, command, descriptors=files.descriptors)
    try:
        yield machine
    except Rejected:
        machine.take_picture()
        raise
    finally:
        machine.close()


def _watch(build: _Build, machine: Machine, is_over: Judge, *, limit: float) -> None:
    """Follow a machine until `is_over`. Raises Rejected after `limit` seconds, and what `is_over` raises."""
    began = build.tools.clock()
    while True:
        build.check()
        # One piece a turn: a guest may write without a pause, and the checks are for it as well.
        if machine.read_console():
            build.progress.take(machine.text)
        build.progress.show()
        machine.let_go()
        if is_over(machine):
            return
        check_space_for(build.folder, 0, WHAT)  # the ledger may be on the same disk
        if machine.monitor.count("no space"):
            hint = "Free some space there; it is tried again by itself."
            raise Deferred(f"{build.folder}: no room for the disk", "its file system is full", hint)
        if build.tools.clock() - began > limit:
            raise _too_late(build, limit)
        machine.wait(LOOK_SECONDS)


def _too_late(build: _Build, limit: float) -> Rejected:
    recipe = build.request.recipe
    if build.progress.status.stage == "install":
        hint = "See on its console or screen where it waits, and answer that; or raise time_limit."
        return Rejected("its installation does not end", f"it still runs after {limit:.0f} s", hint)
    wanted = quoted(recipe.expect) if recipe.expect else "a login, or the end of cloud-init,"
    hint = "Let the system use its serial port (console=ttyS0), or say in expect what it writes there."
    why = f"its console does not have {wanted} after {limit:.0f} s"
    return Rejected("the installed system does not come up", why, hint)


# --- its end ----------------------------------------------------------------------------------------------


def _failed(build: _Build, error: UecError) -> BuildStatus:
    tail = _tail(build.folder)
    _tidy(build.folder, but=DISK)
    has_picture = (build.folder / SCREENSHOT).exists()
    return build.progress.fail(error, console=tail, screenshot=SCREENSHOT if has_picture else "")


def _tail(folder: Path) -> tuple[str, ...]:
    """Return the last lines of the console, of all stages: the second boot shows no installer's reason."""
    with suppress(OSError), (folder / CONSOLE).open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
        return last_lines(file.read().decode("utf-8", "replace"))
    return ()


def _tidy(folder: Path, *, but: str = "") -> None:
    """Remove what only the machines have needed; `but` is a result that is removed too."""
    for path in folder.iterdir():
        if path.name in RESULTS and path.name != but:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
