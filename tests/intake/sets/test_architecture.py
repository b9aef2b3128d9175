"""The architecture of a set: by evidence, in a fixed order, and never against it."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.support.cloud_keys import with_keys
from tests.support.host import Host, cloud_host
from tests.support.metadata_text import read_sidecar
from tests.support.sizes import MIB
from uecwatchd.clouds.dialects import DIALECTS
from uecwatchd.errors import Rejected
from uecwatchd.images.file_facts import Facts
from uecwatchd.intake.sets.assemble import assemble
from uecwatchd.intake.sets.records import Rules
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool.scan import Entry, Listing
from uecwatchd.sandbox.server import Sandbox
from uecwatchd.types import Arch, FileStamp

RULES = Rules(5.0, Sidecar(), {"default": frozenset()}, {"default": frozenset()}, frozenset())
INITRD = Facts("cpio", "ramdisk")
OLD_KERNEL = Facts("bzimage", "kernel")


def disk(arch: Arch | None = None) -> Facts:
    return Facts("gpt", "machine", arch, "disk")


def kernel(arch: Arch | None = None) -> Facts:
    return Facts("bzimage" if arch in ("i386", "x86_64") else "elf", "kernel", arch)


def decide(files: Mapping[str, Facts], sidecar: bytes = b"") -> tuple[str, str] | Rejected:
    """The architecture and how it is known, or the refusal."""
    facts_by_path: dict[str, Any] = {
        path: facts for path, facts in files.items() if "/" in path or "." in path
    }
    entries = {
        path: Entry(path.rsplit("/", 1)[-1], "file", MIB, FileStamp(1, n, MIB, 7), 0.0)
        for n, path in enumerate(facts_by_path)
    }
    for folder in {path.split("/")[0] for path in facts_by_path if "/" in path}:
        entries[folder] = Entry(folder, "folder", 0, FileStamp(1, 99, 0, 7), 0.0)
    found = Listing(Path("/spool"), 100.0, entries, {}, facts_by_path, {}, {})
    if sidecar:
        place = next(iter(facts_by_path)).partition("/")
        name = f"{place[0]}/image.toml" if place[1] else f"{place[0].rpartition('.')[0]}.toml"
        entries[name] = Entry(name.rsplit("/", 1)[-1], "file", 10, FileStamp(1, 98, 10, 7), 0.0)
        found.sidecars[name] = read_sidecar(name, sidecar)  # type: ignore[index]
    assembly = assemble(found, rules=RULES)
    if assembly.refused:
        error = assembly.refused[0].error
        assert isinstance(error, Rejected)
        return error
    (ready,) = assembly.ready
    return ready.arch, ready.arch_known_by


@pytest.mark.parametrize(
    ("files", "sidecar", "expected"),
    [
        ({"web.img": disk("arm64")}, b"", ("arm64", "content")),
        ({"web-x86_64.img": disk("arm64")}, b"", ("arm64", "content")),
        ({"debian-arm64.img": disk()}, b"", ("arm64", "name")),
        ({"raspios_arm_64.img": disk()}, b"", ("arm64", "name")),
        ({"alpine-armv8.img": disk()}, b"", ("arm64", "name")),
        ({"nocloud-AA64.img": disk()}, b"", ("arm64", "name")),
        ({"alarm-64.img": disk()}, b"", ("x86_64", "nothing")),
        ({"debian-ppc64el.img": disk()}, b"", ("ppc64le", "name")),
        ({"debian-s390x/disk.raw": disk()}, b"", ("s390x", "name")),
        (
            {"web.img": disk(), "web.vmlinuz": kernel("riscv64"), "web.initrd": INITRD},
            b"",
            ("riscv64", "content"),
        ),
        (
            {"w-amd64.img": disk(), "w-amd64.vmlinuz": kernel("i386"), "w-amd64.initrd": INITRD},
            b"",
            ("i386", "content"),
        ),
        ({"w.img": disk("x86_64"), "w.vmlinuz": OLD_KERNEL, "w.initrd": INITRD}, b"", ("x86_64", "content")),
        (
            {"w-i386.img": disk(), "w-i386.vmlinuz": OLD_KERNEL, "w-i386.initrd": INITRD},
            b"",
            ("i386", "content"),
        ),
        (
            {"w-arm64.img": disk(), "w-arm64.vmlinuz": OLD_KERNEL, "w-arm64.initrd": INITRD},
            b"",
            ("x86_64", "content"),
        ),
        ({"web.img": disk()}, b"", ("x86_64", "nothing")),
        ({"i386-tools-for-amd64.img": disk()}, b"", ("x86_64", "nothing")),
        ({"web-arm64.img": disk()}, b'arch = "s390x"', ("s390x", "told")),
        ({"web-arm64-s390x.img": disk()}, b'arch = "arm64"', ("arm64", "told")),
        ({"web.img": disk("x86_64")}, b'arch = "i386"', ("i386", "told")),
    ],
)
def test_a_declared_architecture_precedes_content_and_content_precedes_names(
    files: Mapping[str, Facts], sidecar: bytes, expected: tuple[str, str]
) -> None:
    assert decide(files, sidecar) == expected


@pytest.mark.parametrize(
    ("files", "sidecar", "what", "why", "hint"),
    [
        (
            {"web.img": disk("arm64")},
            b'arch = "x86_64"',
            "web: it cannot be for x86_64",
            "arch says so, and web.img says that it is for arm64",
            'Say arch = "arm64" in web.toml.',
        ),
        (
            {"w.img": disk(), "w.vmlinuz": OLD_KERNEL, "w.initrd": INITRD},
            b'arch = "ppc64le"',
            "w: it cannot be for ppc64le",
            "arch says so, and w.vmlinuz says that it is for x86",
            'Say arch = "x86_64" in w.toml.',
        ),
        (
            {"w.img": disk("x86_64"), "w.vmlinuz": kernel("arm64"), "w.initrd": INITRD},
            b"",
            "w: its files are for different architectures",
            "w.vmlinuz is for arm64, w.img for x86_64",
            "Replace one of them.",
        ),
        (
            {"web/d-arm64-ppc64le.img": disk()},
            b"",
            "web: its architecture is not known",
            "names have arm64 and ppc64le, and nothing in the files says which",
            'Say arch = "arm64" in image.toml, or another.',
        ),
        (
            {"web-s390x/arm64.img": disk()},
            b"",
            "web-s390x: its architecture is not known",
            "names have arm64 and s390x, and nothing in the files says which",
            'Say arch = "arm64" in image.toml, or another.',
        ),
    ],
)
def test_what_contradicts_the_evidence_is_refused(
    files: Mapping[str, Facts], sidecar: bytes, what: str, why: str, hint: str
) -> None:
    error = decide(files, sidecar)
    assert isinstance(error, Rejected)
    assert (error.what, error.why, error.hint) == (what, why, hint)


@pytest.mark.parametrize(
    "arch", sorted({arch for dialect in DIALECTS.values() for arch in dialect.architectures})
)
def test_a_sidecar_may_name_any_architecture_that_some_cloud_has(arch: str) -> None:
    assert arch in get_args(Arch)
    assert read_sidecar("web.toml", f'arch = "{arch}"'.encode()).arch == arch


# --- on clouds --------------------------------------------------------------------------------------------


def dropped(host: Host, name: str, *, sidecar: str = "") -> None:
    """A whole disk that its name alone says something of."""
    (host.spool / name).write_bytes(bytes(510) + b"\x55\xaa" + bytes(MIB - 512))
    with (host.spool / name).open("r+b") as file:
        file.seek(0x1BE)
        file.write(bytes([0x80, 0, 0, 0, 0x83, 0, 0, 0, 1, 0, 0, 0, 100, 0, 0, 0]))
    if sidecar:
        (host.spool / f"{name.rpartition('.')[0]}.toml").write_text(sidecar)


@pytest.mark.parametrize(
    ("dialect", "name", "word"),
    [
        ("aws", "debian-arm64.raw", "arm64"),
        ("aws", "debian-i386.raw", "i386"),
        ("openstack", "debian-arm64.raw", "aarch64"),
        ("openstack", "debian-ppc64el.raw", "ppc64le"),
        ("openstack", "debian-s390x.raw", "s390x"),
    ],
)
def test_an_architecture_that_the_cloud_knows_is_registered_as_such(
    tmp_path: Path, dialect: str, name: str, word: str
) -> None:
    with cloud_host(tmp_path, dialect) as host:
        dropped(host, name)
        host.ask("once")
        (listed,) = [
            line.split("\t") for line in host.ask("images")[0].splitlines() if line.startswith("IMAGE")
        ]
        assert word in listed


@pytest.mark.parametrize(
    ("dialect", "name", "sidecar", "why", "hint"),
    [
        ("euca5", "debian-arm64.raw", "", "that is what its name says", "If the name misleads"),
        ("sandbox", "debian-riscv64.raw", "", "that is what its name says", "If the name misleads"),
        ("aws", "web.raw", 'arch = "ppc64le"', "that is what `arch` says", "Correct `arch`"),
        ("openstack", "debian-riscv64.raw", "", "that is what its name says", "If the name misleads"),
    ],
)
def test_an_architecture_that_the_cloud_lacks_is_refused_before_the_upload(
    tmp_path: Path, host_class: type[Host], dialect: str, name: str, sidecar: str, why: str, hint: str
) -> None:
    with ExitStack() as running:
        cloud = running.enter_context(Sandbox(with_keys(tmp_path / "cloud"), dialect=dialect))
        host = host_class.made(tmp_path / "host", cloud)
        host.configure(host.config.read_text().replace('"sandbox"', f'"{dialect}"'))
        dropped(host, name, sidecar=sidecar)
        host.ask("once", code=65)
        error = host.report(name.rpartition(".")[0])["error"]
        assert "takes no images for" in error["what"]
        assert error["why"].startswith(why)
        assert error["hint"].startswith(hint)
        assert not cloud.calls("PutObject")


def test_another_name_within_one_family_of_architectures_is_reported(host: Host, small_set: Any) -> None:
    host.drop_set(small_set, "w")
    (host.spool / "w.toml").write_text('arch = "i386"')
    host.ask("once")
    assert (
        "w.vmlinuz is for x86_64 by its content; registered for i386"
        in (host.spool / "w.uec.log").read_text()
    )
