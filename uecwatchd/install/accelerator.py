"""KVM or emulation: found by a trial, because a /dev/kvm that opens need not work.

In a nested machine a guest may hang at its first change of the processor's mode. So a kernel has to reach its
first line, where one is at hand; otherwise a boot sector that writes on the serial port. That one is enough
to see a firmware that hangs. It is tried with the processor of the machine: QEMU may fail with one, and not
with another.
"""

import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from uecwatchd.install.child import ERRORS, start_child
from uecwatchd.install.request import Accelerator

# With KVM a kernel is there in half a second, and a firmware in less; a busy host needs more.
TRIAL_SECONDS = 8.0
LOOK_SECONDS = 0.05
KVM_DEVICE = Path("/dev/kvm")
KERNEL_LINE, SECTOR_LINE = b"Linux version", b"UECWATCHD"
HOST_KERNELS = ("/boot", "vmlinuz-*")

# For each letter: mov dx, 0x3f8 (the first serial port); mov al, LETTER; out dx, al. Then cli; hlt.
_CODE = b"".join(b"\xba\xf8\x03\xb0" + bytes([letter]) + b"\xee" for letter in SECTOR_LINE + b"\n")
BOOT_SECTOR = (_CODE + b"\xfa\xf4").ljust(510, b"\0") + b"\x55\xaa"


class AcceleratorTrial:
    """The accelerator for the machines of one worker. Safe to use from any thread.

    Each model of a processor is tried once.
    """

    def __init__(
        self,
        program: str,
        *,
        tell: Callable[[str], None],
        device: Path = KVM_DEVICE,
        seconds: float = TRIAL_SECONDS,
        host_kernel: Callable[[], Path | None] | None = None,
    ) -> None:
        """`tell` takes a sentence about a device that is not used."""
        self._program = program
        self._tell = tell
        self._device = device
        self._seconds = seconds
        self._host_kernel = host_kernel or find_host_kernel
        self._lock = threading.Lock()  # guards _works (by processor), and lets others wait for the trial
        self._works: dict[str, bool] = {}

    def choose(self, wanted: Accelerator, *, processor: str, find_kernel: Callable[[], Path | None]) -> str:
        """Return "kvm" or "tcg". `find_kernel` finds a kernel to be tried."""
        if wanted != "auto":
            return wanted
        with self._lock:
            if processor not in self._works:
                trouble = self._find_trouble(processor, find_kernel)
                self._works[processor] = not trouble
                if trouble:
                    self._tell(f"{self._device}: {trouble}. Machines are emulated, some ten times slower.")
            return "kvm" if self._works[processor] else "tcg"

    def _find_trouble(self, processor: str, find_kernel: Callable[[], Path | None]) -> str:
        """Return why the device is not used; empty if a machine has started with it."""
        if not self._device.exists():
            return "there is no such device"
        if not os.access(self._device, os.R_OK | os.W_OK):
            return "the worker may not open it (see its group)"
        kernel = find_kernel() or self._host_kernel()
        if self._try(processor, kernel):
            return ""
        return f"it does not work: {'a kernel' if kernel else 'a boot sector'} has not written its first line"

    def _try(self, processor: str, kernel: Path | None) -> bool:
        with TemporaryDirectory(prefix="uecwatchd-trial-") as scratch:
            folder = Path(scratch)
            (folder / "sector.img").write_bytes(BOOT_SECTOR.ljust(1 << 20, b"\0"))
            command = trial_command(self._program, processor, kernel)
            try:
                with (folder / ERRORS).open("wb") as errors:
                    process = start_child(command, folder, errors=errors.fileno())
            except OSError:
                return False
            try:
                return self._says_its_line(process, folder / "serial.log")
            finally:
                process.kill()
                process.wait()

    def _says_its_line(self, process: "subprocess.Popen[bytes]", log: Path) -> bool:
        looks = int(self._seconds / LOOK_SECONDS)
        for _ in range(looks):
            with suppress(FileNotFoundError):
                said = log.read_bytes()
                if KERNEL_LINE in said or SECTOR_LINE in said:
                    return True
            with suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_SECONDS)
                return False
        return False


def trial_command(program: str, processor: str, kernel: Path | None) -> Sequence[str]:
    """Return the command of a trial, in a folder with the boot sector; its console is in serial.log there."""
    start = ["-drive", "file=sector.img,format=raw"]
    if kernel is not None:
        start = ["-kernel", str(kernel), "-append", "console=ttyS0 earlyprintk=ttyS0 panic=-1"]
    machine = [
        "-accel",
        "kvm",
        "-cpu",
        processor,
        "-m",
        "256",
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
    ]
    return [program, *machine, "-display", "none", "-nic", "none", "-serial", "file:serial.log", *start]


def find_host_kernel() -> Path | None:
    """Return a kernel of this host that may be read."""
    folder, pattern = HOST_KERNELS
    return next((path for path in sorted(Path(folder).glob(pattern)) if os.access(path, os.R_OK)), None)
