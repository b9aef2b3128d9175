"""Every kind of bad input, all of it at once beside one good set: each is reported in words, none stops the others.

One spool, one run of the program, one cloud for each way in which our own side can be wrong.
"""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.host import Host
from tests.support.listener import Recorder
from uecwatchd.config.load import load
from uecwatchd.demo.material import RealSet
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.service.daemon import Service
from uecwatchd.system.clocks import Clocks


@dataclass(frozen=True)
class Bad:
    """One set that cannot succeed. `make` puts its files into the spool; the rest is what must be said."""

    name: str
    state: str
    what: str
    why: str
    hint: str
    make: Callable[[Host, RealSet], None]


def _stem(name: str, **changes: Callable[[Path], object]) -> Callable[[Host, RealSet], None]:
    """A good set of one stem, but for one file: `img`, `vmlinuz` or `initrd`, or a sidecar's `toml`."""

    def make(host: Host, made: RealSet) -> None:
        for source, ending in ((made.machine, "img"), (made.kernel, "vmlinuz"), (made.ramdisk, "initrd")):
            target = host.spool / f"{name}.{ending}"
            target.hardlink_to(_copied(host, source))
            if change := changes.get(ending):
                target.unlink()
                shutil.copy(source, target)
                change(target)
        if "toml" in changes:
            changes["toml"](host.spool / f"{name}.toml")

    return make


def _copied(host: Host, source: Path) -> Path:
    """One copy of each file for all the sets that use it unchanged: hard links are allowed in a spool."""
    copy = host.folder / source.name
    if not copy.exists():
        shutil.copy(source, copy)
    return copy


def _text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _old_qcow(path: Path) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow", path, "8M"], check=True)


def _two_kernels(host: Host, made: RealSet) -> None:
    folder = host.spool / "two-kernels"
    folder.mkdir()
    for source, name in ((made.machine, "disk"), (made.kernel, "a"), (made.kernel, "b"), (made.ramdisk, "c")):
        (folder / name).hardlink_to(_copied(host, source))


def _on(cloud: str, more: str = "") -> Callable[[Path], object]:
    return _text(f'clouds = ["{cloud}"]\n{more}')


LONG = "x" * 140
SHOWN = "rejected"
BAD = (
    Bad("empty", "rejected", "empty.img", "empty", "Copy", _stem("empty", img=_empty)),
    Bad("short", "rejected", "short.img", "claims 8 MiB, the file has 4 MiB", "Copy", _stem("short", img=_halve)),
    Bad("short-kernel", "rejected", "short-kernel.vmlinuz", "claims", "Copy", _stem("short-kernel", vmlinuz=_halve)),
    Bad("dir", "rejected", "dir.img: it is a folder", "regular files", "Copy", _stem("dir", img=_folder)),
    Bad("link", "rejected", "link.img: it is a symbolic link", "regular files", "Copy", _stem("link", img=_link)),
    Bad("pipe", "rejected", "pipe.img: it is a named pipe", "regular files", "Copy", _stem("pipe", img=_pipe)),
    Bad("qcow", "rejected", "qcow.img", "its format, qcow", "qemu-img convert", _stem("qcow", img=_old_qcow)),
    Bad("toml", "rejected", "toml.toml", "line 2, column 9", "Correct", _stem("toml", toml=_text('name="x"\nkernel ='))),
    Bad("typo", "rejected", "typo.toml", "kernal", "Correct", _stem("typo", toml=_text('kernal = "none"'))),
    Bad("typo2", "rejected", "typo2.toml", "did you mean kernel?", "", _stem("typo2", toml=_text('kernal = "none"'))),
    Bad("up", "rejected", "up.toml", '"../x" is a path', "", _stem("up", toml=_text('machine = "../x"'))),
    Bad("shadow", "rejected", "shadow.toml", "/etc/shadow", "", _stem("shadow", toml=_text('kernel = "/etc/shadow"'))),
    Bad("two-kernels", "rejected", "two kernels in two-kernels/", "a and b", "Name one in image.toml", _two_kernels),
    Bad("no-kernel", "rejected", "no-kernel.vmlinuz", "a text file", "", _stem("no-kernel", vmlinuz=_text("hello\n"))),
    Bad("größe", "rejected", "größe: its name", "not plain ASCII", "Rename", _stem("größe")),
    Bad(LONG, "rejected", f"{LONG}: its name", "characters", "Rename", _stem(LONG)),
    Bad("bucket", "rejected", "bucket 'Not A Bucket'", "name", "Choose", _stem("bucket", toml=_text('bucket = "Not A Bucket"'))),
    Bad("theirs", "rejected", "theirs", "another", "bucket", _stem("theirs", toml=_text('bucket = "theirs"'))),
    Bad("nocloud", "rejected", "nocloud: there is no cloud named moon", "default", "", _stem("nocloud", toml=_on("moon"))),
    Bad("nocert", "halted", "certificate", "no such file", "", _stem("nocert", toml=_on("nocert"))),
    Bad("eccert", "halted", "certificate", "RSA", "", _stem("eccert", toml=_on("eccert"))),
    Bad("wrongkey", "halted", "key", "not the key of the certificate", "", _stem("wrongkey", toml=_on("wrongkey"))),
    Bad("wrongsecret", "halted", "cloud wrongsecret", "secret", "", _stem("wrongsecret", toml=_on("wrongsecret"))),
    Bad("away", "deferred", "cloud away", "", "", _stem("away", toml=_on("away"))),
)  # fmt: skip


def _clouds(host: Host, tools: Path) -> str:
    """One more cloud for each way in which our own side can be wrong; all of them are the embedded one."""
    key, cert = tools / "ec.key", tools / "ec.pem"
    new_key = ["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", key]
    subprocess.run(new_key, check=True, capture_output=True)
    _certificate(key, cert)
    other = tools / "other.key"
    subprocess.run(["openssl", "genrsa", "-out", other, "2048"], check=True, capture_output=True)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    keys = {
        "nocert": f'cloud_cert = "{tools}/nonesuch.pem"',
        "eccert": f'cloud_cert = "{cert}"',
        "wrongkey": f'user_key = "{other}"',
        "wrongsecret": 'secret_key = "this is not the secret"',
        "away": f's3_url = "http://127.0.0.1:{port}/services/Walrus"',
    }
    eucarc = f'dialect = "sandbox"\neucarc = "{host.cloud.eucarc}"'
    return "".join(f"[cloud.{name}]\n{eucarc}\n{key}\n" for name, key in keys.items())


def _certificate(key: Path, cert: Path) -> None:
    subject = ["-subj", "/CN=cloud", "-days", "9"]
    command = ["openssl", "req", "-new", "-x509", "-key", key, "-out", cert, *subject]
    subprocess.run(command, check=True, capture_output=True)


@dataclass(frozen=True)
class Ran:
    """The state after the one run."""

    host: Host
    returncode: int
    log: str
    rows: Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="module")
def ran(
    small_set: RealSet, tmp_path_factory: pytest.TempPathFactory, host_class: type[Host]
) -> Iterator[Ran]:
    from uecwatchd.sandbox.server import Sandbox

    folder = tmp_path_factory.mktemp("bad")
    with Sandbox(folder / "cloud") as cloud:
        cloud.grant_bucket_to_other("theirs")
        host = host_class.made(folder / "host", cloud)
        host.configure(host.config.read_text() + _clouds(host, folder))
        for bad in BAD:
            bad.make(host, small_set)
        _stem("good")(host, small_set)
        ended = host.run("once")
        rows = {row["name"]: row for row in json.loads(host.run("status", "--json").stdout)}
        yield Ran(host, ended.returncode, ended.stderr, rows)


IDS = [bad.name[:20] for bad in BAD]


def test_the_good_set_among_them_is_registered(ran: Ran) -> None:
    assert (ran.host.spool / "good.emi").read_text().startswith("emi-")
    assert ran.rows["good"]["state"] == "done"


@pytest.mark.parametrize("bad", BAD, ids=IDS)
def test_each_bad_input_ends_in_the_expected_state(ran: Ran, bad: Bad) -> None:
    assert ran.rows[bad.name]["state"] == bad.state, ran.rows[bad.name]


@pytest.mark.parametrize("bad", BAD, ids=IDS)
def test_the_error_file_says_what_why_and_what_to_do(ran: Ran, bad: Bad) -> None:
    what, why, hint = (ran.host.spool / f"{bad.name}.uec.error").read_text().split("\n\n")
    assert bad.what in what
    assert bad.why in why.removeprefix("Why: ")
    assert bad.hint in hint
    assert len(hint.splitlines()) == 2, "the hint, and when it is tried again"


@pytest.mark.parametrize("bad", BAD, ids=IDS)
def test_the_log_beside_the_file_the_journal_and_status_say_the_same(ran: Ran, bad: Bad) -> None:
    what = (ran.host.spool / f"{bad.name}.uec.error").read_text().split(".\n\n")[0]
    assert what in (ran.host.spool / f"{bad.name}.uec.log").read_text()
    assert f"{bad.name} is {bad.state}: {what}" in ran.log
    assert what in ran.rows[bad.name]["detail"]
    report = json.loads((ran.host.spool / f"{bad.name}.uec.json").read_text())
    assert (report["state"], report["error"]["what"]) == (bad.state, what)


@pytest.mark.parametrize("bad", BAD, ids=IDS)
def test_a_bad_set_gets_no_id(ran: Ran, bad: Bad) -> None:
    assert not (ran.host.spool / f"{bad.name}.emi").exists()


def test_the_exit_code_is_that_of_the_worst_set(ran: Ran) -> None:
    assert ran.returncode == 78


def test_only_the_good_set_reached_the_cloud(ran: Ran) -> None:
    assert len(ran.host.cloud.images) == 3


def test_a_second_run_repeats_none_of_it(ran: Ran) -> None:
    logs = {path: path.read_text() for path in ran.host.spool.glob("*.uec.log") if _is_final(path)}
    again = ran.host.run("once")
    assert again.returncode == 78
    assert {path: path.read_text() for path in logs} == logs


def _is_final(path: Path) -> bool:
    """Rejected sets stay as they are; a halted one is tried once by each new process, as is its right."""
    name = path.name.removesuffix(".uec.log")
    return any(bad.state == "rejected" for bad in BAD if bad.name == name)


def test_a_corrected_file_starts_another_attempt(ran: Ran, small_set: RealSet) -> None:
    shutil.copy(small_set.machine, ran.host.spool / "short.img")
    (ran.host.spool / "typo.toml").unlink()
    ran.host.run("once")
    for name in ("short", "typo"):
        assert (ran.host.spool / f"{name}.emi").exists()
        assert not (ran.host.spool / f"{name}.uec.error").exists()


def test_check_says_what_is_wrong_with_each_cloud(ran: Ran) -> None:
    ended = ran.host.run("check")
    assert ended.returncode == 78
    for cloud in ("nocert", "eccert", "wrongkey", "wrongsecret", "away"):
        assert any(line.startswith("bad") and cloud in line for line in ended.stdout.splitlines()), cloud
    assert "this is not the secret" not in ended.stdout + ended.stderr + ran.log


def test_a_file_that_may_not_be_read_names_the_chmod(host: Host, small_set: RealSet) -> None:
    _stem("private")(host, small_set)
    (host.spool / "private.img").unlink()
    shutil.copy(small_set.machine, host.spool / "private.img")
    (host.spool / "private.img").chmod(0o600)
    ended = host.run_as_nobody("once")
    assert ended.returncode == 65, ended.stderr
    error = (host.spool / "private.uec.error").read_text()
    assert "private.img: cannot read it" in error
    assert "mode 0600, owner root" in error
    assert "Try: chmod g+r private.img" in error


def test_a_full_state_directory_defers_a_set_which_resumes_by_itself(
    host: Host, small_set: RealSet, small_disk: Path, listener: Recorder
) -> None:
    host.configure(host.config.read_text().replace(str(host.state), str(small_disk)))
    settings = load(host.config, environ={})
    with closing(open_ledger(settings.state.dir)) as book:
        _stem("karmic")(host, small_set)
        filler = small_disk / "filler"
        filler.write_bytes(bytes(os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize))
        (record,) = Service(
            settings, listener=listener, ledger=book, clocks=Clocks(now=lambda: 1000.0)
        ).once()
        assert record.state == "deferred"
        error = (host.spool / "karmic.uec.error").read_text()
        assert "disk is full" in error
        assert "Free some space" in error
        assert any("karmic is deferred" in event.sentence for event in listener.events)
        assert not (host.spool / "karmic.emi").exists()
        filler.unlink()
        (record,) = Service(
            settings, listener=listener, ledger=book, clocks=Clocks(now=lambda: 1100.0)
        ).once()
    assert record.state == "done"
    assert (host.spool / "karmic.emi").exists()
    assert len(host.cloud.calls("RegisterImage")) == 3


def test_a_ledger_that_cannot_be_opened_for_want_of_space_ends_with_75(host: Host, small_disk: Path) -> None:
    host.configure(host.config.read_text().replace(str(host.state), str(small_disk / "state")))
    (small_disk / "filler").write_bytes(bytes(1 << 20))
    ended = host.run("once")
    assert ended.returncode == 75
    assert "Free some space" in ended.stderr


def test_a_spool_that_may_not_be_listed_ends_with_77(host: Host) -> None:
    host.spool.chmod(0o700)
    ended = host.run_as_nobody("once", spool_mode=0o700)
    assert ended.returncode == 77, ended.stderr
    assert "cannot list the spool folder" in ended.stderr


def test_a_missing_spool_ends_with_75_and_the_other_folders_are_served(
    host: Host, small_set: RealSet
) -> None:
    text = host.config.read_text()
    host.configure(text.replace("folders = [", f'folders = ["{host.folder}/none", '))
    _stem("karmic")(host, small_set)
    for verb in ("once", "status"):
        ended = host.run(verb)
        assert ended.returncode == 75
        assert "none: cannot open the spool folder" in ended.stderr
    assert (host.spool / "karmic.emi").exists()
    assert "karmic" in ended.stdout


def test_no_cloud_at_all_is_our_own_mistake(host: Host, small_set: RealSet) -> None:
    host.configure(host.config.read_text().split("[cloud")[0])
    _stem("karmic")(host, small_set)
    assert host.run("once").returncode == 78
    assert "there is no cloud named default" in (host.spool / "karmic.uec.error").read_text()
    checked = host.run("check")
    assert checked.returncode == 78
    assert "no cloud is configured" in checked.stdout


def test_a_key_that_may_not_be_read_ends_with_77(host: Host, small_set: RealSet) -> None:
    _stem("karmic")(host, small_set)
    key = next(path for path in host.cloud.folder.glob("*admin-pk.pem"))
    ended = host.run_as_nobody("once", closed=key)
    assert ended.returncode == 77, ended.stderr
    assert key.name in ended.stderr


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[spool]\nsetle = 1", "did you mean settle?"),
        ("[spool\n", "line 1"),
        ('[defaults]\nkernal = "x"', "kernal"),
        ('[cloud.default]\ndialect = "euca"', "dialect"),
    ],
    ids=["unknown key", "no TOML", "unknown default", "unknown dialect"],
)
@pytest.mark.parametrize("verb", ["run", "once", "check", "status"])
def test_a_mistake_in_the_configuration_ends_with_78_and_the_word_to_change(
    host: Host, text: str, word: str, verb: str
) -> None:
    host.configure(text)
    ended = host.run(verb, environ={"UECWATCHD_STATE__DIR": str(host.state)})
    assert ended.returncode == 78
    assert word in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["once", "--nonsense"], ["verify"]])
def test_a_slip_on_the_command_line_ends_with_64(host: Host, arguments: list[str]) -> None:
    assert host.run(*arguments).returncode == 64
