"""Machines: instances that really run, each a process of QEMU without hardware acceleration.

Each has a folder with its files, the console among them, which is removed when the machine ends. A machine is
ended by its process id: when its instance is terminated, when the cloud stops, and at the next start over the
same folder if the cloud was killed.
"""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PROGRAM = "qemu-system-x86_64"
MEMORY_MIB = 256  # what m1.small had at first; a node gives as much as the type says
STOP_SECONDS = 5.0
CONSOLE, PROCESS = "console", "pid"
# A node starts a partition as the first disk's, and tells the kernel where its root is.
COMMAND_LINE = "root=/dev/vda ro console=tty0 console=ttyS0 panic=-1"


@dataclass(frozen=True, slots=True)
class MachineFiles:
    """The unbundled files of a machine. Without a kernel it boots its disk."""

    disk: Path
    kernel: Path | None = None
    ramdisk: Path | None = None


@dataclass(slots=True)
class _Machine:
    folder: Path
    process: "subprocess.Popen[bytes] | None" = None
    ended: threading.Event = field(default_factory=threading.Event)
    console: bytes = b""  # after its end


class Machines:
    """The machines of one cloud, safe to use from any thread. `program` is that of QEMU."""

    def __init__(self, folder: Path, *, program: str) -> None:
        self._folder = folder
        self._program = program
        self._lock = threading.Lock()  # guards _machines and the end of each
        self._machines: dict[str, _Machine] = {}
        _sweep(folder)

    def start(self, instance_id: str, unbundle: Callable[[Path], MachineFiles]) -> None:
        """Start a machine in a thread of its own, with the files that `unbundle` makes in a folder."""
        machine = _Machine(self._folder / instance_id)
        machine.folder.mkdir(parents=True)
        with self._lock:
            self._machines[instance_id] = machine
        threading.Thread(target=self._run, args=(machine, unbundle), daemon=True).start()

    def _run(self, machine: _Machine, unbundle: Callable[[Path], MachineFiles]) -> None:
        try:
            files = unbundle(machine.folder)
            with self._lock:
                if machine.ended.is_set():
                    return
                machine.process = subprocess.Popen(
                    _command(self._program, files, machine.folder / CONSOLE),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
                (machine.folder / PROCESS).write_text(str(machine.process.pid))
            machine.process.wait()
        finally:
            self._end(machine)

    def is_begun(self, instance_id: str) -> bool:
        """Tell if the machine has its files and was started."""
        with self._lock:
            machine = self._machines.get(instance_id)
            return machine is not None and machine.process is not None

    def has_ended(self, instance_id: str) -> bool:
        """Tell if the machine has ended, also if it belonged to an earlier cloud over this folder."""
        with self._lock:
            machine = self._machines.get(instance_id)
        return machine is None or machine.ended.is_set()

    def console(self, instance_id: str) -> bytes:
        """Return what the machine has written on its serial port."""
        with self._lock:
            machine = self._machines.get(instance_id)
            return _console_of(machine) if machine else b""

    def stop(self, instance_id: str) -> None:
        """End a machine, and wait until it has ended."""
        with self._lock:
            machine = self._machines.get(instance_id)
        if machine:
            self._end(machine)

    def close(self) -> None:
        """End all machines."""
        with self._lock:
            machines = list(self._machines.values())
        for machine in machines:
            self._end(machine)

    def _end(self, machine: _Machine) -> None:
        with self._lock:
            if machine.ended.is_set():
                return
            if machine.process:
                machine.process.terminate()
                try:
                    machine.process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    machine.process.kill()
                    machine.process.wait()
            machine.console = _console_of(machine)
            machine.ended.set()
        shutil.rmtree(machine.folder, ignore_errors=True)


def _console_of(machine: _Machine) -> bytes:
    with suppress(OSError):
        return (machine.folder / CONSOLE).read_bytes()
    return machine.console


def _command(program: str, files: MachineFiles, console: Path) -> Sequence[str]:
    command = [program, "-accel", "tcg", "-m", str(MEMORY_MIB), "-display", "none", "-monitor", "none"]
    command += ["-nic", "none", "-no-reboot", "-serial", f"file:{console}", "-snapshot"]
    command += ["-drive", f"file={files.disk},format=raw,if=virtio"]
    if files.kernel:
        command += ["-kernel", str(files.kernel), "-append", COMMAND_LINE]
    if files.ramdisk:
        command += ["-initrd", str(files.ramdisk)]
    return command


def _sweep(folder: Path) -> None:
    """End the machines that a killed cloud has left: processes with files in the folder."""
    for note in folder.glob(f"*/{PROCESS}"):
        with suppress(OSError, ValueError):
            number = int(note.read_text())
            if os.fsencode(note.parent) in Path(f"/proc/{number}/cmdline").read_bytes():
                os.kill(number, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)
