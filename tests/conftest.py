"""Fixtures of several wings: a real kernel and set, an embedded cloud, the program itself."""

import compileall
import fcntl
import gc
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import uecwatchd
from tests.support.cloud_keys import with_keys
from tests.support.host import NOBODY, Host, open_way
from tests.support.listener import Recorder
from tests.support.postgres import DatabaseServer, run_server
from tests.support.small_set import make_small_set
from uecwatchd.demo.material import DebianKernel, RealSet, kernel, make_set
from uecwatchd.sandbox.server import Sandbox


def pytest_configure(config: pytest.Config) -> None:
    """Compile the package once, before the workers start, also where Python is told to write no bytecode.

    Otherwise each of some thousand runs of the program compiles what it imports.
    """
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(Path(uecwatchd.__file__).parent, quiet=1, workers=0)


def pytest_collection_finish() -> None:
    """Have the garbage collector look at what tests make, and not at all that was loaded before them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def real_kernel(tmp_path_factory: pytest.TempPathFactory) -> DebianKernel:
    """Debian's cloud kernel, installed here or fetched from Debian by one worker for all."""
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with (shared / "kernel.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (shared / "kernel").mkdir(exist_ok=True)
        return kernel(shared / "kernel")


@pytest.fixture(scope="session")
def real_set(real_kernel: DebianKernel, tmp_path_factory: pytest.TempPathFactory) -> RealSet:
    """A bootable set named `tiny`: kernel, initrd and ext4 partition image. To be copied, not changed."""
    return make_set(tmp_path_factory.mktemp("set"), kernel=real_kernel)


@pytest.fixture(scope="session")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> RealSet:
    """A set in the form of the real one, with little in it, that boots nowhere. To be copied, not changed."""
    return make_small_set(tmp_path_factory.mktemp("small-set"))


@pytest.fixture(scope="session")
def database_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabaseServer]:
    """A PostgreSQL server with a database that each test copies."""
    with tempfile.TemporaryDirectory(prefix="pg") as folder, run_server(Path(folder)) as server:
        server.make_template(tmp_path_factory.mktemp("template"))
        yield server


@pytest.fixture
def embedded_cloud(tmp_path: Path) -> Iterator[Sandbox]:
    with Sandbox(with_keys(tmp_path / "cloud")) as cloud:
        yield cloud


@pytest.fixture
def listener() -> Recorder:
    return Recorder()


@pytest.fixture
def make_host(tmp_path: Path, embedded_cloud: Sandbox) -> Callable[..., Host]:
    """Makes build hosts of the embedded cloud, each in a folder of its name."""
    return lambda name="host": Host.made(tmp_path / name, embedded_cloud)


@pytest.fixture(scope="session")
def host_class() -> type[Host]:
    """For fixtures of a wider scope than one test."""
    return Host


@pytest.fixture
def host(make_host: Callable[..., Host]) -> Host:
    return make_host()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB, to be filled. Needs root, as installing the tests' packages did."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def fuse(tmp_path: Path) -> Iterator[Path]:
    """A file system served by a process: NTFS, by way of ntfs-3g."""
    if not Path("/dev/fuse").exists() or not shutil.which("ntfs-3g"):
        pytest.skip("there is no FUSE here")
    image, folder = tmp_path / "ntfs", tmp_path / "fuse"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(4 << 20)
    subprocess.run(["mkfs.ntfs", "-F", "-q", str(image)], check=True, capture_output=True)
    if subprocess.run(["ntfs-3g", str(image), str(folder)], check=False, capture_output=True).returncode:
        pytest.skip("FUSE may not be used here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def as_nobody(tmp_path: Path) -> Iterator[None]:
    """The test runs as a user without rights of its own on `tmp_path`, which it can still reach."""
    open_way(tmp_path)
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
