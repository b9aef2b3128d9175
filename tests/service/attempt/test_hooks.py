"""Programs of the administrator decide about sets: before the upload, and after the registration."""

import json
import random
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.host import Host
from tests.support.site_programs import make_program
from tests.support.spool_files import KEEP, drop_image
from uecwatchd.demo.material import RealSet
from uecwatchd.ledger.records import BundleRecord
from uecwatchd.ledger.sqlite import open_ledger

SIDECAR = KEEP


@pytest.fixture(autouse=True)
def quick(host: Host) -> None:
    host.configure(host.config.read_text().replace("settle = 0.3", "settle = 0.05"))


def hook(host: Host, name: str, script: str, *, timeout: float = 60) -> Path:
    """Configure a hook. It replaces an earlier one of this name."""
    path = make_program(host.folder / name, script)
    if "[hooks]" not in host.config.read_text():
        host.configure(f"{host.config.read_text()}\n[hooks]\ntimeout = {timeout}\n")
    if f"{name} =" not in host.config.read_text():
        host.configure(f'{host.config.read_text()}{name} = ["{path}", "strict"]\n')
    return path


def drop(host: Host, name: str = "karmic", *, seed: int = 1) -> None:
    noise = random.Random(seed).randbytes(4096)  # noqa: S311 (only to be another image)
    drop_image(host.spool, name, noise, sidecar=SIDECAR)


def once(host: Host, code: int = 0) -> str:
    return host.ask("once", code=code)[1]


def images(host: Host) -> list[str]:
    return sorted(image.id for image in host.cloud.images)


def bundles(host: Host) -> tuple[BundleRecord, ...]:
    with closing(open_ledger(host.state)) as book:
        return book.all_bundles()


def log(host: Host, name: str = "karmic") -> str:
    return (host.spool / f"{name}.uec.log").read_text()


def test_hooks_get_the_facts_of_the_set(host: Host) -> None:
    hook(host, "pre", f'cat > {host.folder}/pre.json; echo "$1 $UEC_HOOK $UEC_SET $UEC_FILE $UEC_EMI"')
    hook(host, "registered", f"cat > {host.folder}/registered.json; echo $UEC_EMI")
    drop(host)
    once(host)
    before = json.loads((host.folder / "pre.json").read_bytes())
    after = json.loads((host.folder / "registered.json").read_bytes())
    (member,) = before["members"]
    assert (before["hook"], before["set"], before["cloud"]) == ("pre", "karmic", "default")
    assert before["files"] == {"machine": str(host.spool / "karmic.img")}
    assert (member["sha256"], member["size"]) == (after["members"][0]["sha256"], 4096)
    assert (before["ids"]["machine"], [after["emi"]]) == (None, images(host))
    assert f"karmic: hooks.pre: strict pre karmic {host.spool}/karmic.img\n" in log(host)
    assert f"karmic: hooks.registered: {after['emi']}\n" in log(host)


def test_what_the_hook_before_the_upload_refuses_is_rejected_and_not_uploaded(host: Host) -> None:
    hook(host, "pre", 'echo looking at $UEC_SET; echo "no owner in the sidecar"; exit 1')
    drop(host)
    once(host, code=65)
    error = host.report("karmic")["error"]
    assert error["class"] == "rejected"
    assert error["what"] == "karmic: refused by hooks.pre"
    assert error["why"] == "no owner in the sidecar (it ended with code 1)"
    assert "karmic: hooks.pre: looking at karmic\n" in log(host)
    assert host.cloud.calls("PutObject") == ()
    assert bundles(host) == ()


def test_a_refused_set_is_tried_again_on_request(host: Host) -> None:
    refuses = hook(host, "pre", "exit 1")
    drop(host)
    once(host, code=65)
    refuses.unlink()
    make_program(refuses, "exit 0")
    host.ask("retry", "karmic")
    once(host)
    assert (host.spool / "karmic.emi").read_text().split() == images(host)


def test_what_the_hook_after_the_registration_refuses_is_withdrawn(host: Host) -> None:
    hook(host, "registered", "echo it does not boot; exit 2")
    drop(host)
    once(host, code=65)
    assert (images(host), bundles(host), host.cloud.objects("uec-images")) == ([], (), ())
    report = host.report("karmic")
    assert (report["state"], report["ids"]["machine"]) == ("rejected", None)
    assert report["error"]["why"] == "it does not boot (it ended with code 2)"
    assert not (host.spool / "karmic.emi").exists()
    assert "karmic: deregistered emi-" in log(host)


def test_an_older_image_stays_where_the_new_one_is_withdrawn(host: Host) -> None:
    accepts = hook(host, "registered", "exit 0")
    drop_image(host.spool, "karmic", b"1" * 4096, sidecar=f'{SIDECAR}on_existing = "replace"\n')
    once(host)
    older = images(host)
    accepts.unlink()
    make_program(accepts, "exit 1")
    (host.spool / "karmic.img").write_bytes(b"2" * 4096)
    once(host, code=65)
    assert images(host) == older


@pytest.mark.parametrize("hooked", [True, False], ids=["with a hook", "before there was a hook"])
def test_an_image_that_was_published_is_not_withdrawn(host: Host, *, hooked: bool) -> None:
    if hooked:
        hook(host, "registered", "exit 0").unlink()
        make_program(host.folder / "registered", "exit 0")
    drop(host)
    once(host)
    published = images(host)
    hook(host, "registered", "echo no; exit 1")
    (host.spool / "karmic.img").touch()
    once(host, code=65)
    assert images(host) == published
    assert not (host.spool / "karmic.emi").exists(), "a refused set has no ids"
    assert len(host.cloud.calls("RegisterImage")) == 1


def test_what_another_set_uses_is_not_withdrawn(host: Host) -> None:
    hook(host, "registered", '[ "$UEC_SET" = lucid ]')
    drop(host, "lucid")
    once(host)
    drop(host, "karmic")  # the same bytes
    once(host, code=65)
    assert (host.spool / "lucid.emi").read_text().split() == images(host)


def test_kernel_and_ramdisk_are_withdrawn_with_their_machine(host: Host, real_set: RealSet) -> None:
    hook(host, "registered", "echo no; exit 1")
    host.drop_set(real_set)
    once(host, code=65)
    assert (images(host), bundles(host), host.cloud.objects("uec-images")) == ([], (), ())
    assert log(host).count(" again, and deleted its bundle ") == 3


def test_a_kernel_that_two_sets_share_outlives_the_refusal_of_one(host: Host, real_set: RealSet) -> None:
    refused = f"while [ ! -e {host.spool}/lucid.emi ]; do sleep 0.1; done; exit 1"
    hook(host, "registered", f'[ "$UEC_SET" = lucid ] && exit 0; {refused}')
    for name in ("karmic", "lucid"):
        host.drop_set(real_set, name)
    with (host.spool / "lucid.img").open("ab") as image:
        image.write(b"1" * 4096)
    once(host, code=65)
    kept = [(host.spool / f"lucid{suffix}").read_text().strip() for suffix in (".eki", ".emi", ".eri")]
    assert images(host) == sorted(kept)
    assert host.report("karmic")["error"]["what"] == "karmic: refused by hooks.registered"


def test_a_hook_that_takes_too_long_refuses(host: Host) -> None:
    hook(host, "pre", "echo waiting for the scanner; sleep 1000", timeout=0.5)
    drop(host)
    began = time.monotonic()
    once(host, code=65)
    assert time.monotonic() - began < 60
    assert host.report("karmic")["error"]["why"] == "waiting for the scanner (it was not done after 0.5 s)"


def test_a_hook_that_cannot_be_started_halts_and_rejects_nothing(host: Host) -> None:
    path = hook(host, "pre", "exit 0")
    path.unlink()
    drop(host)
    once(host, code=78)
    error = host.report("karmic")["error"]
    assert (error["class"], error["what"]) == ("halted", f"hooks.pre: {path} cannot be started")
    make_program(path, "exit 0")
    once(host)
    assert (host.spool / "karmic.emi").exists()


def test_a_sidecar_cannot_name_a_hook(host: Host) -> None:
    drop_image(host.spool, "karmic", b"1" * 4096, sidecar=f'{SIDECAR}[hooks]\npre = ["/bin/true"]\n')
    once(host, code=65)
    assert "unknown key hooks" in host.report("karmic")["error"]["why"]
