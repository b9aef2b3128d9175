"""Everything that is read of what others wrote, with whatever may stand there.

Each target is a strategy and a check. Here each is tried a few times, to keep it from rotting; by hand, with
`python -m tests.bench.fuzz`, as often as there is time for.
"""

import json
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.metadata_text import read_checksums, read_sidecar
from tests.support.sizes import MIB
from uecwatchd.bundle.folder import BundleCredentials, ImageProperties, bundle_to_folder
from uecwatchd.bundle.manifest import Manifest, check_signature, read_manifest
from uecwatchd.cli.status.rows import LedgerFacts, rows
from uecwatchd.cli.status.text import row_json, table
from uecwatchd.clouds.credentials.account import gather
from uecwatchd.clouds.credentials.shell import read_script
from uecwatchd.config.records import CloudSettings
from uecwatchd.errors import Rejected, UecError
from uecwatchd.images import detect, file_names, suitability
from uecwatchd.images.file_facts import Facts
from uecwatchd.intake.sets.assemble import assemble
from uecwatchd.intake.sets.candidates import named_files, stem_of
from uecwatchd.intake.sets.records import FolderSets, Refused, Rules, Waiting
from uecwatchd.intake.sidecar import KEYS, Sidecar
from uecwatchd.intake.spool import file_kinds, output_files, scan
from uecwatchd.sandbox.server import Sandbox
from uecwatchd.system.text import printable
from uecwatchd.types import FileStamp, Role

# So few that the whole file takes some seconds; what a rule is worth is found out by hand.
EXAMPLES = 150


@dataclass(frozen=True)
class Target:
    """`check` gets what `strategy` draws, and returns the outcome as a word, or raises what it must not."""

    strategy: st.SearchStrategy[Any]
    check: Callable[[Any], str]


def mutated(*seeds: bytes) -> st.SearchStrategy[bytes]:
    """Something real with some bytes replaced, left out, doubled or put elsewhere."""
    edit = st.tuples(
        st.sampled_from("=-+<"), st.integers(0, 1 << 20), st.integers(0, 40), st.binary(max_size=12)
    )
    return st.builds(_edited, st.sampled_from(seeds), st.lists(edit, max_size=6))


def _edited(data: bytes, edits: list[tuple[str, int, int, bytes]]) -> bytes:
    for kind, place, length, new in edits:
        at = place % (len(data) + 1)
        if kind == "=":
            data = data[:at] + new + data[at + len(new) :]
        elif kind == "-":
            data = data[:at] + data[at + length :]
        elif kind == "+":
            data = data[:at] + data[at : at + length] + data[at:]
        else:
            data = data[at:] + data[:at]
    return data


# --- metadata ---------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(KEYS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TABLES = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), VALUES, max_size=8)
TOML = b"""name = "{stem}-{sha8}"
description = 'a "web" server'
kernel = "vmlinuz-1"
clouds = ["default", "other"]
share = ["210987654321"]
public = true
[tags]
team = "web"
[sha256]
"a.img" = "0000000000000000000000000000000000000000000000000000000000000000"
"""
JSON = b'{"name": "x", "kernel": "eki-12345678", "tags": {"a": "b\\u0041"}, "public": false, "share": []}'
SUMS = b"# of today\n" + b"ab" * 32 + b"  a.img\n" + b"cd" * 32 + b" *./b.img\r\n"
NESTED = st.builds(
    lambda opening, times, rest: opening * times + rest,
    st.sampled_from(
        [b"[", b'{"a":', b"a=[", b"a={a=", b"[a.", b"[[a]]\n", b"a.", b'"""', b"\\u", b"1e", b"0x"]
    ),
    st.integers(0, 9000),
    st.binary(max_size=6),
)
BYTES = st.binary(max_size=300) | st.text(max_size=200).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)


def outcome(read: Callable[[], Any]) -> Any:
    """Return the result, or the refusal, which must be a sentence of ours and no copy of the input."""
    try:
        return read()
    except Rejected as error:
        found = error
    assert str(found).isprintable()
    assert len(str(found)) < 5000
    return found


def check_sidecar(drawn: tuple[str, bytes]) -> str:
    found = outcome(lambda: read_sidecar(*drawn))
    return "refused" if isinstance(found, Rejected) else "read"


def check_sums(data: bytes) -> str:
    found = outcome(lambda: read_checksums("k.sha256", data))
    if isinstance(found, Rejected):
        return "refused"
    for name, digest in found.items():
        assert len(bytes.fromhex(digest)) == 32
        assert name == Path(name).name
        assert name.isprintable()
    return "read"


EUCARC = b"""EUCA_KEY_DIR=$(cd $(dirname ${BASH_SOURCE:-$0}); pwd -P)
export EC2_URL=http://192.168.1.1:8773/services/Eucalyptus # the front end
export EC2_PRIVATE_KEY=${EUCA_KEY_DIR}/euca2-admin-pk.pem
export EC2_USER_ID='000100729354'
export EC2_ACCESS_KEY="WKy3\\"x"
alias ec2-bundle-image="ec2-bundle-image --cert ${EC2_CERT} --user 1"
"""


def check_eucarc(data: bytes) -> str:
    text = data.decode("utf-8", "replace")
    found = read_script(text, path=Path("/etc/eucarc"), home=Path("/root")).variables
    assert all(isinstance(value, str) for value in found.values())
    return "some" if found else "none"


# --- manifests --------------------------------------------------------------------------------------------


@cache
def real_manifest() -> tuple[bytes, rsa.RSAPublicKey]:
    """One of a small image, as we write it, and the key that it is signed with."""
    with tempfile.TemporaryDirectory() as name, Sandbox(Path(name, "cloud")) as cloud:
        file = Path(name, "a.img")
        file.write_bytes(os.urandom(4096))
        account = gather(CloudSettings(name="default", dialect="sandbox", eucarc=cloud.eucarc))
        credentials = BundleCredentials(
            account.account, account.user_key, account.user_cert, account.cloud_cert
        )
        made = bundle_to_folder(
            file, Path(name, "b"), ImageProperties("machine", "x86_64", "eki-1", None), credentials
        )
        return made.path.read_bytes(), account.user_key.public_key()


def check_manifest(data: bytes) -> str:
    original, key = real_manifest()
    found = outcome(lambda: read_manifest(data))
    signed = found if isinstance(found, Rejected) else outcome(lambda: check_signature(data, key))
    if isinstance(signed, Rejected):
        return "refused" if isinstance(found, Rejected) else "read, not signed"
    assert isinstance(found, Manifest)
    assert read_manifest(data) == read_manifest(original), "signed is only what was written"
    return "accepted"


# --- images -----------------------------------------------------------------------------------------------


@cache
def real_heads() -> tuple[bytes, ...]:
    """The first bytes of images as programs make them."""
    makers = (
        "truncate -s 8M a; mke2fs -q -F -t ext4 a",
        "truncate -s 64M a; mkfs.vfat -F 32 a",
        "truncate -s 16M a; mkntfs -q -F -Q a",
        "truncate -s 8M a; echo 'label: gpt\n,4096,U\n,,L' | sfdisk -q a",
        "truncate -s 8M a; echo 'label: dos\n2048,4096,L,*\n,,E\n,1024,L' | sfdisk -q a",
        *(f"qemu-img create -q -f {form} a 8M" for form in ("qcow2", "vmdk", "vpc", "vdi", "vhdx", "qcow")),
        "echo /etc/hostname | cpio -o -H newc >a; gzip a; mv a.gz a",
        "head -c 100000 /dev/zero | xz >a",
        "head -c 100000 /dev/zero | zstd -q >a",
        "cp /bin/true a",
        "cp /usr/lib/syslinux/memdisk a",
    )
    heads = []
    for maker in makers:
        with tempfile.TemporaryDirectory() as name:
            path = f"/usr/sbin:/sbin:{os.environ['PATH']}"
            subprocess.run(
                ["sh", "-c", f"set -e; {maker}"],
                cwd=name,
                check=True,
                capture_output=True,
                env={"PATH": path},
            )
            heads.append(Path(name, "a").read_bytes()[: detect.HEAD_BYTES])
    return tuple(heads)


def check_image(drawn: tuple[bytes, bytes, int, str]) -> str:
    head, tail, size, name = drawn
    facts = detect.detect(head[: detect.HEAD_BYTES], tail[-detect.TAIL_BYTES :], size=size)
    assert facts.claimed is None or facts.claimed >= 0
    for text in (facts.format, facts.version or "", facts.inside or ""):
        assert isinstance(text, str)
    for role in ("machine", "kernel", "ramdisk"):
        for keep in (False, True):
            why, hint = suitability.reason_unsuitable(role, facts, size=size, keep=keep, name=name) or (
                "x",
                "",
            )
            assert why
            assert not why.endswith(".")
            assert hint.endswith(".") or hint.startswith("Try: ") or not hint
    return facts.format


# --- a folder ---------------------------------------------------------------------------------------------

FACTS: Mapping[str, Facts] = {
    "partition": Facts("ext4", "machine", None, "partition", None, None),
    "disk": Facts("mbr", "machine", None, "disk", None, None),
    "cut short": Facts("ext4", "machine", None, "partition", 48 * MIB, None),
    "kernel": Facts("bzimage", "kernel", "x86_64", None, None, "6.1.0-9-amd64"),
    "ramdisk": Facts("gzip", "ramdisk", None, None, None, None),
    "text": Facts("text", None, None, None, None, None),
}
KINDS = ("folder", "symlink", "fifo", "socket", "device")
TROUBLE = Rejected("it", "cannot be read", "Try.")
STEMS = st.sampled_from(["a", "b", "A", "ä", "a.b", "vmlinuz-1", "initrd-1", "vmlinuz", "x\n", "done"])
ENDINGS = st.sampled_from(
    [".img", ".raw", ".IMG", ".vmlinuz", ".initrd", ".toml", ".json", ".sha256", "", ".txt", ".qcow2"]
)
NAMES = st.builds(lambda stem, ending: stem + ending, STEMS, ENDINGS) | st.sampled_from(
    ["image.toml", "image.json"]
)
PATHS = NAMES | st.builds(lambda folder, name: f"{folder}/{name}", st.sampled_from(["a", "b", "c"]), NAMES)
TEXTS = st.builds(
    lambda key, value: f'{key} = "{value}"\n',
    st.sampled_from(["machine", "kernel", "ramdisk", "virtualization", "platform", "clouds", "name"]),
    st.sampled_from(
        ["a.img", "b.raw", "vmlinuz-1", "initrd-1", "none", "hvm", "windows", "eki-12345678", "a", "done"]
    ),
)
SIDECARS = st.lists(TEXTS, max_size=3).map("".join)
CONTENTS = st.sampled_from([*FACTS, *KINDS, "trouble"])
PLANTED = st.sampled_from(["a.emi", "b.uec.json", "a.uec.log", "c.emi"])
SOME: frozenset[Role] = frozenset({"kernel"})
BOTH: frozenset[Role] = frozenset({"kernel", "ramdisk"})
RULES = st.builds(
    lambda needs, alone, strange: Rules(
        5.0,
        Sidecar(),
        {"default": needs},
        {"default": BOTH},
        frozenset({"default"} if alone else ()),
        {"default": "away"} if strange else {},
    ),
    st.sampled_from([SOME, BOTH, frozenset[Role]()]),
    st.booleans(),
    st.booleans(),
)


@dataclass(frozen=True)
class Lying:
    """Contents of a folder, by path: content, the text of a sidecar, and since when."""

    files: tuple[tuple[str, tuple[str, str, float]], ...]
    planted: tuple[str, ...]
    order: int
    rules: Rules


LYING = st.builds(
    Lying,
    st.dictionaries(PATHS, st.tuples(CONTENTS, SIDECARS, st.sampled_from([0.0, 98.0])), max_size=10).map(
        lambda files: tuple(files.items())
    ),
    st.lists(PLANTED, max_size=2, unique=True).map(tuple),
    st.integers(0, 1 << 30),
    RULES,
)


def listing_of(lying: Lying) -> scan.Listing:
    found = scan.Listing(Path("/spool"), 100.0, {}, {}, {}, {}, {}, {})
    paths = {path for path, _ in lying.files}
    for number, (path, (content, text, since)) in enumerate(sorted(lying.files)):
        if "/" in path and path.split("/")[0] in paths:
            content = content if dict(lying.files)[path.split("/")[0]][0] == "folder" else ""
        if content:
            _lay(found, path, content, text, since=since, number=number)
    for path in list(found.entries):
        if "/" in path and path.split("/")[0] not in found.entries:
            _lay(found, path.split("/")[0], "folder", "", since=0.0, number=500)
    for name in lying.planted:
        found.planted[name] = scan.Entry(name, "fifo", 0, FileStamp(1, 1, 0, 0), 0.0)  # type: ignore[index]
        found.ignored[name] = "*"  # type: ignore[index]
    return found


def _lay(found: Any, path: str, content: str, text: str, *, since: float, number: int) -> None:
    kind = content if content in KINDS else "file"
    found.entries[path] = scan.Entry(path.rsplit("/", 1)[-1], kind, MIB, FileStamp(1, number, MIB, 7), since)
    if kind != "file":
        return
    if file_kinds.is_sidecar(path):
        found.sidecars[path] = _read(lambda: read_sidecar("k.toml", text.encode()))
    elif file_kinds.is_sums(path):
        found.checksums[path] = TROUBLE if content == "trouble" else {"a.img": "ab" * 32}
    else:
        found.facts[path] = FACTS.get(content, TROUBLE)


def _read(read: Callable[[], Sidecar]) -> Sidecar | UecError:
    try:
        return read()
    except UecError as error:
        return error


def outcomes_of(assembly: FolderSets) -> tuple[Any, ...]:
    """All that an assembly says, in no order."""
    return (
        {(s.name, s.form, s.stamp, tuple(m.path for m in s.members), s.files) for s in assembly.ready},
        {(w.name, w.reason, w.ready_at) for w in assembly.waiting},
        {(r.name, str(r.error), r.stamp) for r in assembly.refused},
        {(m.path, m.reason) for m in assembly.unmatched},
    )


def check_listing(lying: Lying) -> str:
    found = listing_of(lying)
    assembly = assemble(found, rules=lying.rules)
    names = Counter(
        one.name for group in (assembly.ready, assembly.waiting, assembly.refused) for one in group
    )
    assert all(number == 1 for number in names.values()), "a set is one thing at a time"
    unmatched = Counter(misfit.path for misfit in assembly.unmatched)
    assert all(number == 1 for number in unmatched.values())
    for path in (*found.entries, *found.planted):
        assert _is_answered(path, found, assembly), (path, assembly)
    _order_does_not_matter(lying, found, assembly)
    return (
        "+".join(key for key in ("ready", "waiting", "refused", "unmatched") if getattr(assembly, key))
        or "nothing"
    )


def _is_answered(path: str, found: scan.Listing, assembly: FolderSets) -> bool:
    """Tell if a user who asks for this name learns what happens to it."""
    used = {file for one in assembly.ready for file in (*one.files, *one.left_out)}
    unready: list[Waiting | Refused] = [*assembly.waiting, *assembly.refused]
    used |= {file for one in unready for file in one.files}
    open_sets = {one.name for one in unready}
    every_set = open_sets | {one.name for one in assembly.ready}
    claimed = {
        ("" if "/" not in at else at.split("/")[0] + "/") + name
        for at, said in found.sidecars.items()
        if isinstance(said, Sidecar)
        for name in named_files(said).values()
    }
    folder = path.split("/")[0]
    kind = found.entries[path].kind if path in found.entries else "file"
    return (
        path in used
        or path in {misfit.path for misfit in assembly.unmatched}
        or file_names.fold_name(stem_of(path)) in {file_names.fold_name(name) for name in open_sets}
        or ("/" in path and folder in open_sets)
        or (path in claimed and bool(open_sets))
        or (kind == "folder" and path in every_set)
    )


def _order_does_not_matter(lying: Lying, found: scan.Listing, assembly: FolderSets) -> None:
    shuffled = sorted(found.entries, key=lambda path: hash((lying.order, path)))
    entries = {path: found.entries[path] for path in shuffled}
    others = {
        key: {path: getattr(found, key)[path] for path in sorted(getattr(found, key), reverse=True)}
        for key in ("facts", "sidecars", "checksums", "planted", "words")
    }
    assert outcomes_of(assemble(replace(found, entries=entries, **others), rules=lying.rules)) == outcomes_of(
        assembly
    )


RAW_NAMES = st.binary(min_size=1, max_size=60).map(
    lambda name: name.replace(b"/", b"_").replace(b"\0", b"_")
).filter(lambda name: name not in (b".", b"..")) | NAMES.map(str.encode)


def check_folder(files: Mapping[bytes, bytes]) -> str:
    """On a disk: every name has its row, whatever the bytes, and no row can be taken for another."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        for file, data in files.items():
            Path(os.fsdecode(os.fsencode(name) + b"/" + file)).write_bytes(data)
        folder = Path(name)
        listing = scan.scan(folder, now=100.0, seen=0.0)
        assembly = assemble(
            listing, rules=Rules(5.0, Sidecar(), {"default": SOME}, {"default": BOTH}, frozenset())
        )
        found = rows(listing, assembly, LedgerFacts(100.0))
        lines = table([("", found)])
        assert len(listing.entries) + len(listing.ignored) == len(files)
        assert all(printable(line).isprintable() for line in lines)
        shown = {row.name for row in found}
        for path in listing.entries:
            assert path in shown or _is_answered(path, listing, assembly)
        hidden = {path for path in listing.ignored if path not in shown}
        assert all(output_files.is_output(path) for path in hidden)
        json.dumps([row_json(row) for row in found]).encode()
    return f"{len(found)} rows"


NAMED_BYTES = BYTES | mutated(TOML, JSON, SUMS)
TARGETS: Mapping[str, Target] = {
    "sidecar bytes": Target(
        st.tuples(st.sampled_from(["k.toml", "k.json"]), BYTES | NESTED | mutated(TOML, JSON)), check_sidecar
    ),
    "sidecar tables": Target(
        TABLES.map(lambda table: ("k.json", json.dumps(table).encode("utf-8", "surrogatepass"))),
        check_sidecar,
    ),
    "sums": Target(BYTES | mutated(SUMS), check_sums),
    "eucarc": Target(BYTES | mutated(EUCARC), check_eucarc),
    "manifest": Target(st.deferred(lambda: BYTES | mutated(real_manifest()[0])), check_manifest),
    "image": Target(
        st.tuples(
            st.deferred(lambda: st.binary(max_size=3000) | mutated(*real_heads())),
            st.binary(max_size=600),
            st.integers(0, 1 << 50),
            st.text(max_size=20),
        ),
        check_image,
    ),
    "listing": Target(LYING, check_listing),
    "folder": Target(st.dictionaries(RAW_NAMES, NAMED_BYTES, max_size=6), check_folder),
}


def trial(target: Target, *, examples: int, outcomes: Counter[str]) -> Callable[[], None]:
    """A run of so many examples, which counts the outcomes."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(target.strategy)
    def run(drawn: Any) -> None:
        outcomes[target.check(drawn)] += 1

    return run


@pytest.mark.parametrize("name", TARGETS)
def test_any_untrusted_input_is_read_or_refused(name: str) -> None:
    outcomes: Counter[str] = Counter()
    trial(TARGETS[name], examples=EXAMPLES, outcomes=outcomes)()
    assert outcomes.total() >= EXAMPLES
