"""A recipe under the real program: from an installation CD to an image that its cloud has booted."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.boot_code import HANG, POWER_OFF, installer, make_iso, say
from tests.support.boots import living
from tests.support.cloud_keys import with_keys
from tests.support.host import Host
from tests.support.program_runs import Run
from tests.support.waiting import PATIENCE_SECONDS, until
from uecwatchd.demo.material import USERSPACE_LINE, DebianKernel
from uecwatchd.demo.mini_iso import INSTALLED_LINE
from uecwatchd.demo.recipe import ISO_NAME, make_recipe
from uecwatchd.sandbox.server import Sandbox

pytestmark = pytest.mark.exhaustive

# An installation takes ten seconds on two idle cores without KVM; other tests may hold them.
INSTALL_SECONDS = 600
BOOT_SECONDS = 300
LAYER = """
kernel = "from-image"
layout = "partition"
test = true
expect = "the layer is there"

[install]
base = "karmic"
memory = "256M"
keep = false
run = ["echo 'echo the layer is there >/dev/console' >>/etc/startup"]
"""
TINY = """
[install]
iso = "tiny.iso"
disk = "4M"
memory = "32M"
time_limit = "{time_limit}"
"""
# mov dx, 0x3fd; again: in al, dx; test al, 1; jz again: until a byte has arrived at the serial port.
WAIT_FOR_A_KEY = b"\xba\xfd\x03\xec\xa8\x01\x74\xfb"


@pytest.fixture(scope="module")
def recipe(real_kernel: DebianKernel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return make_recipe(tmp_path_factory.mktemp("recipe"), "karmic", kernel=real_kernel)


@pytest.fixture
def installing(tmp_path: Path) -> Iterator[Host]:
    assert shutil.which("qemu-system-x86_64"), "it is missing: apt-get install qemu-system-x86 qemu-utils"
    with Sandbox(with_keys(tmp_path / "cloud"), boot=True) as cloud:
        host = Host.made(tmp_path / "host", cloud)
        more = f'boot_seconds = {BOOT_SECONDS}\nboot_every = 0.3\n\n[install]\nbuilds = "{builds_of(host)}"\n'
        host.configure(f'{host.config.read_text()}{more}accelerator = "tcg"\n')
        yield host


@contextmanager
def daemon(host: Host) -> Iterator[Run]:
    """Run the service. It says more than a pipe takes that nobody reads: the lines of the consoles."""
    with (host.folder / "stderr").open("w") as stderr:
        process = host.start("run", stderr=stderr)
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE_SECONDS)


def builds_of(host: Host) -> Path:
    return host.folder / "builds"


def left_of(host: Host) -> list[str]:
    """Return what is in the folder of builds beside its lock and its queue."""
    return sorted(one.name for one in builds_of(host).iterdir() if one.name not in ("queue", ".worker.lock"))


def machines(host: Host) -> list[str]:
    """Return the processes that work in a folder of this host's builds."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink().parent == builds_of(host):
                found.append(process.name)
    return found


def test_a_recipe_and_a_layer_on_it_become_images_that_boot(
    installing: Host, recipe: tuple[Path, ...]
) -> None:
    host = installing
    host.drop(*recipe)
    (host.spool / "layered.toml").write_text(LAYER)
    with daemon(host):
        until(
            lambda: (host.spool / "layered.emi").exists(),
            patience=2 * INSTALL_SECONDS,
            detail=lambda: told(host),
        )
        kept = [host.report("karmic")["build"]["key"]]
        until(lambda: left_of(host) == kept, "only the disk to be left that is kept")
    log = (host.spool / "karmic.uec.log").read_text()
    assert f"console: {INSTALLED_LINE}" in log
    assert "its system boots from the new disk" in log
    assert "has passed its test boot: its console says karmic login:" in log
    assert USERSPACE_LINE in log
    assert (host.spool / ISO_NAME).exists(), "what was dropped stays"
    layered = (host.spool / "layered.uec.log").read_text()
    assert "has passed its test boot: its console says the layer is there" in layered
    origins = {name: host.report(name)["members"][-1]["origin"] for name in ("karmic", "layered")}
    assert origins == {
        "karmic": "disk installed from mini.iso",
        "layered": "disk installed on karmic",
    }
    assert (machines(host), living(host.cloud)) == ([], [])


def told(host: Host) -> str:
    files = sorted(host.spool.glob("*.uec.*"))
    return "\n".join(file.read_text(errors="replace")[-3000:] for file in files)


def drop_tiny(host: Host, code: bytes, *, time_limit: str) -> None:
    """Drop a recipe for a CD with this code as its installer."""
    make_iso(host.folder / "tiny.iso", code).rename(host.spool / "tiny.iso")
    (host.spool / "karmic.toml").write_text(TINY.format(time_limit=time_limit))


def test_an_installation_that_hangs_shows_its_console_and_its_screen(installing: Host) -> None:
    host = installing
    drop_tiny(host, installer(None, HANG, lines=("Which language?",)), time_limit="8s")
    host.ask("once", code=65)
    error = host.report("karmic")["error"]
    assert "Which language?" in error["console"]
    assert error["what"].startswith("karmic: ")
    assert (host.spool / "karmic.uec.png").read_bytes().startswith(b"\x89PNG")
    assert (machines(host), left_of(host)) == ([], [])


def test_a_set_that_is_held_in_the_middle_leaves_no_machine_and_goes_on_when_released(
    installing: Host,
) -> None:
    host = installing
    drop_tiny(host, installer(None, HANG, lines=("Partitioning",)), time_limit="1h")
    with daemon(host):
        until(lambda: "Partitioning" in log(host), "the console in the log")
        assert len(machines(host)) == 1
        row = json.loads(host.ask("status", "karmic", "--json")[0])[0]
        assert row["state"] == "waiting"
        assert row["detail"].startswith("for its system to be installed; install for ")
        host.ask("hold", "karmic")
        until(lambda: (machines(host), left_of(host)) == ([], []), "nothing to be left")
        host.ask("release", "karmic")
        until(lambda: machines(host), "another installation")
    assert machines(host) == [], "the worker ends with the service"
    assert len(left_of(host)) == 1, "to be gone on with"


def test_a_service_that_is_killed_takes_its_machines_along(installing: Host) -> None:
    host = installing
    drop_tiny(host, installer(None, HANG, lines=("Partitioning",)), time_limit="1h")
    with daemon(host) as process:
        until(lambda: "Partitioning" in log(host), "the console in the log")
        assert len(machines(host)) == 1
        process.kill()
        until(lambda: machines(host) == [], "the machine to end")
    assert len(left_of(host)) == 1, "to be gone on with"


def log(host: Host) -> str:
    path = host.spool / "karmic.uec.log"
    return path.read_text() if path.exists() else ""


def test_what_is_typed_on_the_console_reaches_the_machine(installing: Host) -> None:
    host = installing
    drop_tiny(host, installer(None, WAIT_FOR_A_KEY + say("thank you") + POWER_OFF), time_limit="1h")
    with daemon(host):
        until(lambda: "INSTALLING" in log(host), "the console in the log")
        typed = host.popen("console", "karmic", stdin=subprocess.PIPE)
        data, talk = typed.communicate("y\n", timeout=PATIENCE_SECONDS)
    assert "\nthank you\n" in data
    assert typed.returncode == 65, talk
