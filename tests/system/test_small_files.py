"""Only short regular files are read whole: no pipe, device or archive that a setting names."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.host import Host
from uecwatchd.system.small_files import LIMIT_BYTES, read_small, read_small_text


def bind(path: Path) -> None:
    folder = os.open(path.parent, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(f"/proc/self/fd/{folder}/{path.name}")  # a path of its own may be too long
    finally:
        os.close(folder)


ODD: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a device without an end": lambda path: path.symlink_to("/dev/zero"),
    "an empty device": lambda path: path.symlink_to("/dev/null"),
    "a folder": Path.mkdir,
    "a socket": bind,
    "a long file": lambda path: path.write_bytes(b"#" * 2 * 1024 * 1024),
}
ODD_FILES = pytest.mark.parametrize("make", ODD.values(), ids=ODD)


@ODD_FILES
def test_a_file_that_is_not_small_or_not_regular_is_an_error_with_its_name(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    make(tmp_path / "odd")
    with pytest.raises(OSError, match="odd") as caught:
        read_small(tmp_path / "odd")
    assert caught.value.strerror


def test_a_small_file_is_read_whole_whatever_ends_its_lines(tmp_path: Path) -> None:
    (tmp_path / "most").write_bytes(b"x" * LIMIT_BYTES)
    assert len(read_small(tmp_path / "most")) == LIMIT_BYTES
    (tmp_path / "lines").write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n\xff")
    assert read_small_text(tmp_path / "lines", encoding="utf-8-sig", errors="replace") == "a\nb\nc\n\ufffd"


@ODD_FILES
@pytest.mark.parametrize(
    "named", ["config", "credential", "eucarc", "euca2ools_files", "user_key", "cloud_cert", "ca_bundle"]
)
def test_a_setting_that_names_something_else_than_a_small_file_is_reported(
    host: Host, named: str, make: Callable[[Path], object]
) -> None:
    credentials = host.folder / "credentials"
    credentials.mkdir()
    odd = host.config if named == "config" else credentials / "uecwatchd_work__sets"
    if named == "config":
        odd.unlink()
    elif named != "credential":
        odd = host.folder / "odd.ini"
        of_kind = f'["{odd}"]\neuca2ools = "lab"' if named == "euca2ools_files" else f'"{odd}"'
        text = "\n".join(line for line in host.config.read_text().splitlines() if f"{named} =" not in line)
        host.configure(f"{text}\n[cloud.default]\n{named} = {of_kind}\n".replace("[cloud.default]", "", 1))
    make(odd)
    ended = host.run("check", environ={"CREDENTIALS_DIRECTORY": str(credentials)})
    assert ended.returncode == 78, ended.stderr
    assert str(odd) in ended.stdout + ended.stderr or str(odd.resolve()) in ended.stdout + ended.stderr
    assert "annot read" in ended.stdout + ended.stderr or named == "ca_bundle"
