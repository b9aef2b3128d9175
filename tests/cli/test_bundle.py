"""The verbs one uses by hand, and how they say no."""

import ast
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.host import Host
from uecwatchd.demo.material import RealSet

PACKAGE = Path(__file__).parents[2] / "uecwatchd"


@pytest.fixture
def disk(tmp_path: Path, small_set: RealSet) -> Path:
    """A file system that any machine could be."""
    copy = tmp_path / "karmic.img"
    copy.write_bytes(small_set.machine.read_bytes())
    return copy


def refused(ended: "subprocess.CompletedProcess[str]", code: int) -> str:
    """Return the messages of a verb that ended with this code, and printed no data."""
    assert "Traceback" not in ended.stderr
    assert (ended.returncode, ended.stdout) == (code, "")
    return ended.stderr


# --- what is bundled --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--kernel", "true"), "'true' is not an id like eki-"),
        (("--kernel", ""), "'' is not an id like eki-"),
        (("--kernel", "eri-12345678"), "'eri-12345678' is not an id like eki-"),
        (("--ramdisk", "../x"), "'../x' is not an id like eri-"),
        (("--ramdisk", "aki-12345678"), "'aki-12345678' is not an id like eri-"),
        (("--kernel", "eki-12345678", "--type", "kernel"), "only a machine image boots with others"),
        (("--ramdisk", "ari-12345678", "--type", "ramdisk"), "only a machine image boots with others"),
    ],
    ids=" ".join,
)
def test_only_valid_registered_ids_are_accepted_for_a_machine(
    host: Host, disk: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    assert said in refused(host.run("bundle", str(disk), str(tmp_path / "b"), *options), 64)
    assert not (tmp_path / "b").exists()


def test_a_kernel_file_is_refused_together_with_a_kernel_id(
    host: Host, small_set: RealSet, tmp_path: Path
) -> None:
    ended = host.run("bundle", str(small_set.kernel), str(tmp_path / "b"), "--kernel", "eki-12345678")
    assert "it is bundled as a kernel" in refused(ended, 64)


def cut_off(disk: Path) -> None:
    with disk.open("r+b") as file:
        file.truncate(disk.stat().st_size // 2)


def lengthen(disk: Path) -> None:
    with disk.open("ab") as file:
        file.write(b"\0")


def write_text(disk: Path) -> None:
    disk.write_text("buildhost\n")


@pytest.mark.parametrize(
    ("spoil", "said"), [(lengthen, "is not a multiple of 512"), (write_text, "it is a text file, not a disk")]
)
def test_an_unbootable_image_is_bundled_only_with_an_option(
    host: Host, disk: Path, tmp_path: Path, spoil: Any, said: str
) -> None:
    spoil(disk)
    words = refused(host.run("bundle", str(disk), str(tmp_path / "b")), 65)
    assert f"karmic.img: it cannot be a machine image: {said}" in words.replace(
        f"its size of {disk.stat().st_size} bytes ", ""
    )
    assert "add --keep" in words
    assert "sidecar" not in words
    assert not (tmp_path / "b").exists()
    kept = host.run("bundle", str(disk), str(tmp_path / "b"), "--keep")
    assert kept.returncode == 0, kept.stderr


def test_a_truncated_image_is_never_bundled(host: Host, disk: Path, tmp_path: Path) -> None:
    cut_off(disk)
    for keep in ([], ["--keep"]):
        words = refused(host.run("bundle", str(disk), str(tmp_path / "b"), *keep), 65)
        assert "its ext4 file system claims" in words
        assert "add --keep" not in words


def test_a_kernel_is_not_bundled_as_a_machine_image(host: Host, small_set: RealSet, tmp_path: Path) -> None:
    ended = host.run("bundle", str(small_set.kernel), str(tmp_path / "b"), "--type", "machine")
    words = refused(ended, 65)
    assert "it is a Linux kernel, not a disk" in words
    assert "Leave --type out" in words


def test_a_link_is_followed(host: Host, disk: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.img"
    link.symlink_to(disk)
    ended = host.run("bundle", str(link), str(tmp_path / "b"))
    assert ended.returncode == 0, ended.stderr


# --- where from, and where to -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "said"),
    [("nonesuch.img", "nonesuch.img: there is no such file in"), (".", "it is a folder")],
    ids=["missing", "folder"],
)
@pytest.mark.parametrize(
    "options", [(), ("--type", "machine", "--arch", "i386")], ids=["as seen", "as asked"]
)
def test_only_a_file_is_bundled(
    host: Host, tmp_path: Path, source: str, said: str, options: tuple[str, ...]
) -> None:
    words = refused(host.run("bundle", str(tmp_path / source), str(tmp_path / "b"), *options), 66)
    assert said in words
    assert "since it was listed" not in words
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("folder", "said"),
    [("/proc/x", "/proc/x: cannot write there: No such file"), ("karmic.img", "it is not a folder")],
)
@pytest.mark.parametrize("verb", ["bundle", "unbundle"])
def test_a_folder_that_cannot_be_created_is_reported(
    host: Host, disk: Path, tmp_path: Path, verb: str, folder: str, said: str
) -> None:
    source = disk
    if verb == "unbundle":
        source = Path(host.run("bundle", str(disk), str(tmp_path / "b")).stdout.strip())
    assert said in refused(host.run(verb, str(source), str(tmp_path / folder)), 73)


def test_a_bundle_for_another_user_is_reported_as_such(host: Host, disk: Path, tmp_path: Path) -> None:
    manifest = host.run("bundle", str(disk), str(tmp_path / "b")).stdout.strip()
    other = tmp_path / "other.pem"
    subprocess.run(["openssl", "genrsa", "-out", str(other), "2048"], check=True, capture_output=True)
    words = refused(host.run("unbundle", manifest, str(tmp_path / "t"), "--cloud-key", str(other)), 65)
    assert "it was not encrypted for this key" in words
    assert "bundle the image again" not in words


def test_an_archive_without_a_digest_is_reported_as_a_warning(host: Host, disk: Path, tmp_path: Path) -> None:
    manifest = Path(host.run("bundle", str(disk), str(tmp_path / "b")).stdout.strip())
    digest = re.compile("(?<=<digest algorithm='SHA1'>)[0-9a-f]{40}")
    manifest.write_text(digest.sub(hashlib.sha1().hexdigest(), manifest.read_text(), count=1))
    key = str(host.cloud.folder / "cloud-pk.pem")
    ended = host.run("unbundle", str(manifest), str(tmp_path / "t"), "--cloud-key", key)
    assert ended.returncode == 0
    assert "warning:" in ended.stderr
    assert "SHA-1 of no data" in ended.stderr
    assert (tmp_path / "t" / "karmic.img").read_bytes() == disk.read_bytes()


# --- the output ------------------------------------------------------------------------------------------


def test_the_result_is_reported_as_json(host: Host, disk: Path, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(disk.read_bytes()).hexdigest()
    printed = json.loads(
        host.run("bundle", str(disk), str(tmp_path / "b"), "--kernel", "eki-1234ABCD", "--json").stdout
    )
    manifest = Path(printed["manifest"])
    assert manifest.parent == tmp_path / "b"
    assert (printed["role"], printed["arch"], printed["kernel"], printed["ramdisk"]) == (
        "machine",
        "x86_64",
        "eki-1234ABCD",
        None,
    )
    assert (printed["size"], printed["sha256"]) == (disk.stat().st_size, sha256)
    assert f"<digest algorithm='SHA1'>{printed['tar_sha1']}</digest>" in manifest.read_text()
    parts = [manifest.with_name(part["name"]).read_bytes() for part in printed["parts"]]
    assert [len(part) for part in parts] == [part["size"] for part in printed["parts"]]
    assert [hashlib.sha1(part).hexdigest() for part in parts] == [part["sha1"] for part in printed["parts"]]
    assert sum(map(len, parts)) == printed["bundled_size"]

    back = json.loads(host.run("unbundle", str(manifest), str(tmp_path / "t"), "--json").stdout)
    image = str(tmp_path / "t" / "karmic.img")
    assert back == {"image": image, "size": disk.stat().st_size, "sha256": sha256}


@pytest.mark.parametrize("verb", ["check", "status --json"])
def test_a_full_standard_output_is_an_error(host: Host, verb: str) -> None:
    program = [sys.executable, "-m", "uecwatchd", *verb.split(), "--config", str(host.config)]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 74
    assert "standard output: cannot write to it: No space left on device" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


def test_hints_name_only_verbs_that_exist() -> None:
    known = subprocess.run(
        [sys.executable, "-m", "uecwatchd", "--help"], capture_output=True, text=True, check=True
    ).stdout
    verbs = set(re.findall(r"^    (\w+) ", known, re.MULTILINE))
    assert {"run", "check", "bundle"} <= verbs
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                sent_to = re.findall(r"(?:`|: )uecwatchd ([a-z]+)", node.value)
                assert set(sent_to) <= verbs, f"{path}:{node.lineno}"


# --- the demo ---------------------------------------------------------------------------------------------


def demo(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "uecwatchd", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_demo_does_not_begin_without_its_files(tmp_path: Path) -> None:
    words = refused(demo(str(tmp_path / "nonesuch.img"), "--dir", str(tmp_path / "d")), 66)
    assert "nonesuch.img: there is no such file in" in words
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("used", "used: there is a spool in it already"),
        ("file", "file: cannot write there: Not a directory"),
        ("/proc/x", "/proc/x: cannot write there: No such file or directory"),
    ],
)
def test_the_demo_refuses_a_folder_with_other_files(tmp_path: Path, folder: str, said: str) -> None:
    (tmp_path / "used" / "spool").mkdir(parents=True)
    (tmp_path / "file").touch()
    assert said in refused(demo("--dir", str(tmp_path / folder)), 73)
