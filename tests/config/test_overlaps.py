"""Two names of one folder in a configuration, and folders inside one another."""

import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

import pytest

from tests.support.daemon import daemon_process, wait_for_line
from tests.support.host import Host
from uecwatchd.config.load import load
from uecwatchd.config.overlaps import FolderLocation, locate
from uecwatchd.errors import Halted
from uecwatchd.system.mounts import parse_mounts


@pytest.fixture
def mounts() -> Iterator[Callable[[Path, Path], None]]:
    """Give a function that mounts one folder over another, until the test is over."""
    made: list[Path] = []

    def bind(source: Path, target: Path) -> None:
        target.mkdir()
        subprocess.run(["mount", "--bind", source, target], check=True)
        made.append(target)

    yield bind
    for target in reversed(made):
        subprocess.run(["umount", "--lazy", target], check=True)


Second = Callable[[Path, Callable[[Path, Path], None]], str]


def a_link(real: Path, bind: Callable[[Path, Path], None]) -> str:
    del bind
    real.with_name("other").symlink_to(real)
    return "other"


def a_link_above(real: Path, bind: Callable[[Path, Path], None]) -> str:
    del bind
    real.with_name("way").symlink_to(real.parent)
    return "way/real"


def a_bind_mount(real: Path, bind: Callable[[Path, Path], None]) -> str:
    bind(real, real.with_name("other"))
    return "other"


def dots(real: Path, bind: Callable[[Path, Path], None]) -> str:
    del real, bind
    return "real/../real"


def a_slash(real: Path, bind: Callable[[Path, Path], None]) -> str:
    del real, bind
    return "real/"


def a_relative_path(real: Path, bind: Callable[[Path, Path], None]) -> str:
    del bind
    return f"../{real.parent.name}/./real"


SAME: Mapping[str, Second] = {
    made.__name__: made for made in (a_link, a_link_above, a_bind_mount, dots, a_slash, a_relative_path)
}


def configured(folder: Path, *folders: str, state: str = "state") -> Path:
    config = folder / "uecwatchd.toml"
    names = ", ".join(f'"{name}"' for name in folders)
    config.write_text(f'[spool]\nfolders = [{names}]\n[state]\ndir = "{state}"\nwork = "work"\n')
    return config


def complaint(config: Path) -> str:
    with pytest.raises(Halted) as halted:
        load(config, environ={})
    assert halted.value.exit_code == 78
    return str(halted.value)


@pytest.mark.parametrize("way", SAME)
def test_two_paths_to_one_folder_are_reported_as_the_same(
    tmp_path: Path, mounts: Callable[[Path, Path], None], way: str
) -> None:
    (tmp_path / "real").mkdir()
    other = SAME[way](tmp_path / "real", mounts)
    message = complaint(configured(tmp_path, "real", other))
    assert f"{tmp_path}/real and {Path(tmp_path, other)} are the same folder" in message


def inside_by_name(outer: Path, bind: Callable[[Path, Path], None]) -> str:
    del bind
    (outer / "inner").mkdir()
    return "real/inner"


def inside_by_link(outer: Path, bind: Callable[[Path, Path], None]) -> str:
    del bind
    (outer / "inner").mkdir()
    outer.with_name("way").symlink_to(outer / "inner")
    return "way"


def inside_by_mount(outer: Path, bind: Callable[[Path, Path], None]) -> str:
    (outer / "inner").mkdir()
    bind(outer / "inner", outer.with_name("way"))
    return "way"


def inside_and_not_there_yet(outer: Path, bind: Callable[[Path, Path], None]) -> str:
    del outer, bind
    return "real/later"


INSIDE = (inside_by_name, inside_by_link, inside_by_mount, inside_and_not_there_yet)


@pytest.mark.parametrize("way", INSIDE)
@pytest.mark.parametrize("order", [1, -1], ids=["outer first", "inner first"])
def test_a_folder_inside_another_is_refused_by_any_path(
    tmp_path: Path, mounts: Callable[[Path, Path], None], way: Second, order: int
) -> None:
    (tmp_path / "real").mkdir()
    inner = way(tmp_path / "real", mounts)
    message = complaint(configured(tmp_path, *["real", inner][::order]))
    assert f"must be apart: {tmp_path}/{inner} is in {tmp_path}/real" in message


@pytest.mark.parametrize("way", [*INSIDE, a_link, a_bind_mount, dots])
def test_the_state_directory_is_never_in_a_spool(
    tmp_path: Path, mounts: Callable[[Path, Path], None], way: Second
) -> None:
    (tmp_path / "real").mkdir()
    message = complaint(configured(tmp_path, "real", state=way(tmp_path / "real", mounts)))
    assert "state.dir must be outside spool.folders" in message


@pytest.mark.parametrize("setting", ["page", "metrics"])
def test_a_folder_for_other_programs_is_never_in_a_spool(tmp_path: Path, setting: str) -> None:
    config = configured(tmp_path, "real")
    config.write_text(f'{config.read_text()}[outputs]\n{setting} = "real/inner"\n')
    assert f"outputs.{setting} must be outside spool.folders" in complaint(config)


def test_a_spool_may_be_in_the_state_directory_and_beside_a_name_that_begins_alike(tmp_path: Path) -> None:
    (tmp_path / "state" / "spool").mkdir(parents=True)
    (tmp_path / "state" / "spool2").mkdir()
    assert load(configured(tmp_path, "state/spool", "state/spool2"), environ={}).spool.folders


@pytest.mark.parametrize(
    ("folder", "location"),
    [
        ("/srv/a", FolderLocation("8:1", PurePosixPath("/srv/a"))),
        ("/mnt/b c/d", FolderLocation("8:2", PurePosixPath("/data/d"))),
        ("/mnt/b cd", FolderLocation("8:1", PurePosixPath("/mnt/b cd"))),
        ("/over/x", FolderLocation("0:9", PurePosixPath("/x"))),
    ],
)
def test_a_location_is_read_from_the_mounts(folder: str, location: FolderLocation) -> None:
    mountinfo = """1 0 8:1 / / rw - ext4 /dev/a rw
2 1 8:2 /data /mnt/b\\040c rw - ext4 /dev/b rw
3 1 8:3 / /over rw - ext4 /dev/c rw
4 3 0:9 / /over rw - tmpfs tmpfs rw"""
    assert locate(Path(folder), parse_mounts(mountinfo)) == location


@pytest.mark.parametrize("verb", ["run", "once", "check", "status"])
def test_each_verb_ends_with_78_for_overlapping_folders(host: Host, verb: str) -> None:
    (host.folder / "link").symlink_to(host.spool)
    host.configure(host.config.read_text().replace("folders = [", f'folders = ["{host.folder}/link", '))
    ended = host.run(verb)
    assert ended.returncode == 78
    assert f"{host.folder}/link and {host.spool} are the same folder" in ended.stdout + ended.stderr


def test_a_reload_keeps_the_old_configuration_and_says_why(host: Host) -> None:
    with daemon_process(host) as running:
        wait_for_line(running, "Watching")
        (host.folder / "link").symlink_to(host.spool)
        host.configure(host.config.read_text().replace("folders = [", f'folders = ["{host.folder}/link", '))
        running.send_signal(signal.SIGHUP)
        assert "are the same folder" in wait_for_line(running, "Kept the old configuration")


def test_a_folder_that_becomes_another_one_is_reported_and_left_alone(
    make_host: Callable[..., Host], tmp_path: Path
) -> None:
    host = make_host()
    other = host.folder / "other"
    other.mkdir()
    host.configure(host.config.read_text().replace("folders = [", f'folders = ["{other}", '))
    with daemon_process(host) as running:
        wait_for_line(running, "Watching")
        other.rename(host.folder / "away")
        other.symlink_to(host.spool)
        wait_for_line(running, "are the same folder")
        assert running.poll() is None
