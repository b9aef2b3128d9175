import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.metadata import DIGEST as SUM
from tests.support.metadata import full
from tests.support.metadata_text import read_checksums, read_sidecar
from uecwatchd.config.retention import RetentionRule
from uecwatchd.errors import Halted, Rejected
from uecwatchd.install.recipe import InstallRecipe
from uecwatchd.intake.misnamed_sidecars import keys_in
from uecwatchd.intake.sidecar import (
    KEYS,
    SIDECAR_LIMIT_BYTES,
    Sidecar,
    is_image_id,
    read_defaults,
    render_name,
    with_defaults,
)

DIGEST = "0123456789abcdef" * 4
WHEN = datetime(2009, 10, 29, 23, 30, 5, tzinfo=UTC)

WHOLE = f"""
name        = "{{stem}}-{{sha8}}"
version     = "9.10.3"
description = "Karmic server, nightly"
machine     = "karmic.img"
kernel      = "vmlinuz-2.6.31-14"
ramdisk     = "initrd.img-2.6.31-14"
arch        = "x86_64"
platform    = "linux"
virtualization = "paravirtual"
hypervisor = "xen"
convert     = "raw"
layout      = "disk"
require     = "ready"
prepare     = true
test        = true
expect      = "login:"
clouds      = ["default", "lab"]
best_effort = ["lab"]
bucket      = "images"
on_existing = "replace"
public      = true
share       = ["123456789012"]
tags        = {{ team = "infra" }}
retention   = {{ keep = 3, min_age = "30d" }}
sha256      = {{ "karmic.img" = "{DIGEST.upper()}" }}
"""


def toml(text: str) -> Sidecar:
    return read_sidecar("karmic.toml", text.encode())


def complaint(text: str, name: str = "karmic.toml") -> str:
    with pytest.raises(Rejected) as caught:
        read_sidecar(name, text.encode())
    assert caught.value.what == f"{name}: it cannot be used"
    return caught.value.why


def outcome(read: Callable[[], object]) -> str:
    """Return a reader's message: nothing, or why it refuses. Any other exception is the test's failure."""
    try:
        read()
    except Rejected as error:
        return str(error)
    return ""


# --- what is accepted -------------------------------------------------------------------------------------


def test_everything_is_optional() -> None:
    assert toml("") == Sidecar()


def test_every_key_is_read() -> None:
    sidecar = toml(WHOLE)
    assert sidecar == Sidecar(
        name="{stem}-{sha8}",
        version="9.10.3",
        description="Karmic server, nightly",
        machine="karmic.img",
        kernel="vmlinuz-2.6.31-14",
        ramdisk="initrd.img-2.6.31-14",
        arch="x86_64",
        platform="linux",
        hypervisor="xen",
        virtualization="paravirtual",
        convert="raw",
        layout="disk",
        require="ready",
        prepare=True,
        test=True,
        expect="login:",
        clouds=("default", "lab"),
        best_effort=("lab",),
        bucket="images",
        on_existing="replace",
        public=True,
        share=("123456789012",),
        tags={"team": "infra"},
        retention=RetentionRule(keep=3, min_age=30 * 86400.0),
        sha256={"karmic.img": DIGEST},
        given=frozenset(KEYS) - {"install"},  # which goes with no file
    )
    recipe = toml('[install]\niso = "karmic.iso"\ndisk = "5G"\n')
    assert recipe.install == InstallRecipe(iso="karmic.iso", disk=5 << 30)
    assert recipe.given == {"install"}


@pytest.mark.parametrize(
    "kernel", ["vmlinuz-2.6.31", "eki-3C9F10E7", "aki-0123456789abcdef0", "none", "from-image", "köln kernel"]
)
def test_a_kernel_is_a_file_an_id_or_a_word(kernel: str) -> None:
    assert toml(f'kernel = "{kernel}"').kernel == kernel


@pytest.mark.parametrize(
    ("text", "is_id"),
    [
        ("eki-3C9F10E7", True),
        ("aki-0123456789abcdef0", True),
        ("emi-3c9f10e7", True),
        ("eki-3C9F10E", False),
        ("eki-3C9F10E7 ", False),
        ("xki-3C9F10E7", False),
        ("vmlinuz", False),
    ],
)
def test_an_id_has_8_or_17_hex_digits(text: str, is_id: bool) -> None:  # noqa: FBT001 (a table's column)
    assert is_image_id(text) == is_id


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param('kernal = "x"', "unknown key kernal (did you mean kernel?)", id="unknown key"),
        pytest.param("given = []\npublic = true", "unknown key given", id="our own field"),
        pytest.param('machine = "../x"', 'machine = "../x" is a path, not the name of a file', id="path up"),
        pytest.param('kernel = "/etc/shadow"', 'kernel = "/etc/shadow" is a path', id="absolute path"),
        pytest.param('machine = ".."', 'machine = ".." is not the name of a file', id="dots"),
        pytest.param('machine = ""', 'machine = "" is not the name of a file', id="no name"),
        pytest.param('machine = ".x"', 'machine = ".x" is a hidden file', id="hidden"),
        pytest.param(r'machine = "a\u0000b"', r'machine = "a\x00b" holds characters', id="NUL"),
        pytest.param(r'machine = "a\nb"', r'machine = "a\nb" holds characters', id="newline"),
        pytest.param(f'machine = "{"ä" * 128}"', "machine is longer than the 255 bytes", id="long name"),
        pytest.param('machine = "emi-3C9F10E7"', 'machine = "emi-3C9F10E7" is an id', id="id for machine"),
        pytest.param('kernel = "eki-123"', 'kernel = "eki-123" is not an id, which has 8', id="short id"),
        pytest.param('ramdisk = "eki-3C9F10E7"', 'ramdisk = "eki-3C9F10E7" is the id of a kernel', id="kind"),
        pytest.param(
            'machine = "k"\nkernel = "k"', "machine and kernel are the same file, k", id="same file"
        ),
        pytest.param("version = 9.10", "version must be text in quotes", id="number for text"),
        pytest.param("version = 2009-10-29", "version must be text in quotes", id="date for text"),
        pytest.param('public = "yes"', "public must be true or false", id="text for flag"),
        pytest.param("public = 1", "public must be true or false", id="number for flag"),
        pytest.param('arch = "amd64"', "(did you mean x86_64?)", id="arch"),
        pytest.param("arch = 64", "arch must be i386, x86_64, arm64, ", id="arch as a number"),
        pytest.param('virtualization = "pv"', "(did you mean paravirtual?)", id="virtualization"),
        pytest.param("clouds = []", "clouds must not be empty", id="no cloud"),
        pytest.param('clouds = "lab"', "clouds must be a list", id="text for list"),
        pytest.param('clouds = ["lab", "lab"]', "clouds names one twice", id="cloud twice"),
        pytest.param('share = ["1234-5678-9012"]', 'share[0] = "1234-5678-9012" is no account', id="account"),
        pytest.param(f'share = ["{"8" * 38}"]', "is no account: 12 digits, 32 hex", id="number of an eucarc"),
        pytest.param('share = ["al ice"]', "or the name of a user", id="a name with a space"),
        pytest.param("tags = {a = 1}", "tags.a must be text in quotes", id="tag's value"),
        pytest.param('tags = {"aws:a" = "b"}', "tags.aws:a begins like the cloud's own tags", id="tag's key"),
        pytest.param(
            "tags = {" + ", ".join(f't{n} = ""' for n in range(11)) + "}",
            "tags must not have more than 10 entries",
            id="eleven tags",
        ),
        pytest.param('sha256 = {"a" = "12"}', "sha256.a is no SHA-256", id="digest"),
        pytest.param(f'sha256 = {{"../a" = "{DIGEST}"}}', "is a path", id="path in checksums"),
        pytest.param(
            'name = "{stm}"', 'name has an unknown placeholder "{stm}" (did you mean stem?)', id="name"
        ),
        pytest.param('name = "{stem.x}"', 'unknown placeholder "{stem.x}"', id="attribute in name"),
        pytest.param('name = "{}"', 'unknown placeholder "{}"', id="nothing in braces"),
        pytest.param('name = "{stem!r:>9}"', "write {stem} without a format", id="format in name"),
        pytest.param('name = "{stem"', "is no template", id="open brace"),
        pytest.param('name = "karmic*"', "characters that no cloud takes", id="characters in name"),
        pytest.param(f'description = "{"x" * 256}"', "description is longer than 255", id="description"),
        pytest.param(r'description = "a\nb"', "description must be one line", id="two lines"),
        pytest.param("machine = \n", "line 1, column 11: ", id="bad TOML"),
    ],
)
def test_a_mistake_is_answered_in_a_sentence(text: str, why: str) -> None:
    assert why in complaint(text)


def test_all_mistakes_are_reported_at_once() -> None:
    assert len(complaint('kernal = "x"\narch = "x"\npublic = "x"').split("; ")) == 3


def test_a_hint_names_the_file_without_its_folder() -> None:
    with pytest.raises(Rejected) as caught:
        read_sidecar("karmic/image.toml", b"x")
    assert caught.value.hint == "Correct image.toml and save it again."


def test_only_the_disk_of_a_linux_is_prepared() -> None:
    assert toml("prepare = true").prepare
    assert "prepare is for Linux" in complaint('prepare = true\nplatform = "windows"')
    assert 'convert = "keep"' in complaint('prepare = true\nconvert = "keep"')


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('layout = "partition"\nconvert = "keep"', 'with convert = "keep" that is not read'),
        ('layout = "partition"\nvirtualization = "hvm"', 'with virtualization = "hvm" a node boots one'),
        ('kernel = "from-image"\nconvert = "keep"', '"from-image" is read from the disk, and with convert'),
        ('ramdisk = "from-image"\nconvert = "keep"', 'with convert = "keep" that is not read'),
        ('kernel = "from-image"\nvirtualization = "hvm"', 'with virtualization = "hvm" there is none'),
        ('ramdisk = "from-image"\nvirtualization = "hvm"', 'with virtualization = "hvm" there is none'),
    ],
)
def test_keys_that_exclude_each_other_are_a_mistake(text: str, words: str) -> None:
    assert words in complaint(text)


def test_json_is_recognized_by_its_name_and_has_the_same_schema() -> None:
    assert read_sidecar("karmic.json", b'{"machine": "karmic.img"}') == toml('machine = "karmic.img"')
    assert "is a path" in complaint('{"machine": "../x"}', "karmic.json")
    assert "is given twice" in complaint('{"machine": "a", "machine": "b"}', "karmic.json")
    assert "kernel is null: leave it out instead" in complaint('{"kernel": null}', "karmic.json")


def test_a_sidecar_too_large_to_be_one_is_refused_unread() -> None:
    assert "larger than" in complaint("#" * (SIDECAR_LIMIT_BYTES + 1))
    assert toml("#" * SIDECAR_LIMIT_BYTES) == Sidecar()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a" + ".a" * 32_000 + " = 1", id="one key of many parts"),
        pytest.param(
            "[a" + ".a" * 900 + "]\nb" + ".b" * 900 + " = 1", id="table and key just below the limit"
        ),
        pytest.param("\n".join(f"k{n} = 1" for n in range(6_000)), id="thousands of unknown keys"),
        pytest.param("k" * 60_000 + " = 1\npublic = true", id="a long unknown key"),
        pytest.param("a = " + "[" * 60_000, id="nested lists"),
        pytest.param('machine = "' + "/" * 60_000 + '"', id="a long value"),
    ],
)
def test_no_sidecar_keeps_the_daemon_busy(text: str) -> None:
    begun = time.process_time()
    why = complaint(text)
    assert time.process_time() - begun < 2
    assert len(why) < 2_000


@pytest.mark.parametrize("before", ["", "[", '"'])
@pytest.mark.parametrize("filling", [" ", "\t", "[", "] ", "{ ", "a", "a "])
@pytest.mark.parametrize("behind", ["", "x"])
def test_no_text_of_another_name_keeps_the_daemon_busy(before: str, filling: str, behind: str) -> None:
    text = (before + filling * (60_000 // len(filling.encode())) + behind).encode()
    begun = time.process_time()
    keys_in(text)
    assert time.process_time() - begun < 1


# --- properties -------------------------------------------------------------------------------------------


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode), st.sampled_from(["k.toml", "k.json"]))
@example(b"\xff", "k.toml")
@example(b'{"\\ud800": 1}', "k.json")
@settings(max_examples=300)
def test_no_bytes_raise_anything_but_rejected(data: bytes, name: str) -> None:
    assert outcome(lambda: read_sidecar(name, data)).isprintable()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), json_values, max_size=6))
@settings(max_examples=300)
def test_no_values_raise_anything_but_rejected(table: dict[str, object]) -> None:
    assert outcome(lambda: read_sidecar("k.json", json.dumps(table).encode())).isprintable()


def written(value: Any) -> str:
    """TOML as this test writes it. JSON's escapes are TOML's, but for DEL, which TOML wants escaped."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{written(key)} = {written(one)}" for key, one in value.items()) + "}"
    return "[" + ", ".join(written(one) for one in value) + "]"


LINES = st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), min_size=1, max_size=40)
FILES = LINES.filter(
    lambda name: (
        not name.startswith(".")
        and "/" not in name
        and not name.startswith(("eki-", "emi-", "eri-", "aki-", "ami-", "ari-"))
    )
)
TEMPLATES = st.lists(
    st.sampled_from(
        ["{stem}", "{date}", "{time}", "{sha8}", "{arch}", "{version}", "karmic", "-", "9.10", "{{"]
    ),
    min_size=1,
    max_size=6,
).map(lambda pieces: "".join(pieces).replace("{{", ""))
TABLES = st.fixed_dictionaries(
    {},
    optional={
        "name": TEMPLATES.filter(bool),
        "version": LINES,
        "description": LINES,
        "machine": FILES.map(lambda name: f"m{name}"),
        "kernel": FILES.map(lambda name: f"k{name}")
        | st.sampled_from(["eki-3C9F10E7", "none", "from-image"]),
        "ramdisk": FILES.map(lambda name: f"r{name}")
        | st.sampled_from(["eri-3c9f10e7", "none", "from-image"]),
        "arch": st.sampled_from(["i386", "x86_64"]),
        "platform": st.sampled_from(["linux", "windows"]),
        "hypervisor": st.sampled_from(["kvm", "xen"]),
        "virtualization": st.sampled_from(["paravirtual", "hvm"]),
        "convert": st.sampled_from(["raw", "keep"]),
        "layout": st.sampled_from(["disk"]),  # "partition" contradicts some of the others
        "require": st.sampled_from(["ready"]),
        "prepare": st.sampled_from([False]),  # true does as well
        "test": st.booleans(),
        "expect": LINES,
        "clouds": st.lists(LINES, min_size=1, max_size=3, unique=True),
        "bucket": LINES,
        "on_existing": st.sampled_from(["reuse", "replace", "fail"]),
        "public": st.booleans(),
        "share": st.lists(st.from_regex(r"[0-9]{12}", fullmatch=True), max_size=3, unique=True),
        "tags": st.dictionaries(
            LINES.filter(lambda key: not key.lower().startswith(("aws:", "euca:"))),
            LINES | st.just(""),
            max_size=4,
        ),
        "sha256": st.dictionaries(FILES, st.from_regex(r"[0-9a-f]{64}", fullmatch=True), max_size=3),
    },
)


def is_consistent(table: dict[str, object]) -> bool:
    from_image = "from-image" in (table.get("kernel"), table.get("ramdisk"))
    return not (from_image and (table.get("virtualization") == "hvm" or table.get("convert") == "keep"))


@given(TABLES.filter(is_consistent), st.booleans(), st.booleans())
@settings(max_examples=200)
def test_what_was_written_is_read(table: dict[str, Any], as_json: bool, mark: bool) -> None:  # noqa: FBT001 (drawn)
    text = (
        json.dumps(table) if as_json else "\n".join(f"{key} = {written(one)}" for key, one in table.items())
    )
    data = text.encode("utf-8-sig" if mark else "utf-8")
    sidecar = read_sidecar("k.json" if as_json else "k.toml", data)
    assert sidecar.given == table.keys()
    for key in KEYS:
        value = getattr(sidecar, key)
        expected = table.get(key, getattr(Sidecar(), key))
        assert value == (tuple(expected) if isinstance(value, tuple) else expected)


# --- defaults, idle keys, names ---------------------------------------------------------------------------


def test_defaults_fill_in_what_the_sidecar_does_not_say() -> None:
    defaults = read_defaults({"bucket": "ours", "arch": "i386", "tags": {"a": "1"}})
    sidecar = with_defaults(toml('arch = "x86_64"\ntags = {b = "2"}'), defaults)
    assert (sidecar.bucket, sidecar.arch, sidecar.tags) == ("ours", "x86_64", {"b": "2"})
    assert sidecar.given == {"bucket", "arch", "tags"}


def test_a_sidecar_that_repeats_the_builtin_value_wins_over_the_default() -> None:
    defaults = read_defaults({"convert": "keep"})
    assert with_defaults(toml('convert = "raw"'), defaults).convert == "raw"


def test_a_mistake_in_the_defaults_is_ours_and_halts() -> None:
    with pytest.raises(Halted) as caught:
        read_defaults({"bukket": "x"})
    assert caught.value.what == "[defaults]"
    assert caught.value.why == "unknown key bukket (did you mean bucket?)"


def test_the_record_has_nothing_but_the_schema() -> None:
    assert {one.name for one in fields(Sidecar)} == {*KEYS, "given"}


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{stem}-{sha8}", "karmic-01234567"),
        ("{stem}-{version}-{arch}-{date}.{time}", "karmic-9.10-i386-20091029.233005"),
        ("plain", "plain"),
    ],
)
def test_a_name_is_rendered(template: str, name: str) -> None:
    made = render_name(template, stem="karmic", fingerprint=DIGEST, arch="i386", version="9.10", when=WHEN)
    assert made == name


def test_a_name_has_the_date_of_utc() -> None:
    east = WHEN.astimezone(timezone(timedelta(hours=9)))
    name = render_name("{date}", stem="karmic", fingerprint=DIGEST, arch=None, version=None, when=east)
    assert name == "20091029"


def test_a_name_that_needs_what_nobody_said_is_refused() -> None:
    with pytest.raises(Rejected) as caught:
        render_name("{stem}-{version}", stem="karmic", fingerprint=DIGEST, arch=None, version=None, when=WHEN)
    assert caught.value.why == "its name is to hold {version}, which nothing says"
    assert caught.value.hint == 'Add version = "…" to the sidecar, or change the name.'


# --- checksums --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["--text", "--binary"])
def test_what_sha256sum_writes_is_read(tmp_path: Path, mode: str) -> None:
    contents = {"karmic.img": b"image", "vm linuz": b"kernel", "köln": b""}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    done = subprocess.run(["sha256sum", mode, *contents], cwd=tmp_path, capture_output=True, check=True)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    assert read_checksums("karmic.sha256", done.stdout) == digests


def test_comments_blank_lines_and_the_folder_itself_are_left_out() -> None:
    data = f"# made by hand\n\n{DIGEST.upper()}  ./karmic.img\r\n".encode()
    assert read_checksums("karmic.sha256", data) == {"karmic.img": DIGEST}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("", "it holds no checksum", id="empty"),
        pytest.param(f"{DIGEST}\n", "line 1 is not a SHA-256, two spaces and a name", id="no name"),
        pytest.param(f"# x\n{DIGEST[:40]}  a\n", "line 2 is not a SHA-256", id="SHA-1"),
        pytest.param(f"{DIGEST} a\n", "line 1 is not a SHA-256", id="one space"),
        pytest.param(f"\\{DIGEST}  a\\nb\n", "line 1: a name with a newline", id="escaped name"),
        pytest.param(f"{DIGEST}  ../a\n", 'line 1: name = "../a" is a path', id="path"),
        pytest.param(
            f"{DIGEST}  a\n{'0' * 64}  a\n", "line 2: a second and different digest for a", id="two"
        ),
        pytest.param(f"{DIGEST}  a\n" * 2_000, "larger than", id="too large"),
    ],
)
def test_bad_checksums_are_refused_by_line(text: str, why: str) -> None:
    with pytest.raises(Rejected) as caught:
        read_checksums("karmic.sha256", text.encode())
    assert why in caught.value.why
    assert caught.value.what == "karmic.sha256: it cannot be used"


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_no_checksum_bytes_raise_anything_but_rejected(data: bytes) -> None:
    assert outcome(lambda: read_checksums("k.sha256", data)).isprintable()


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        (
            "k.toml",
            b"share = [" + b'"123456789012",' * 201 + b"]",
            "share must not have more than 200 entries",
        ),
        ("k.toml", b"clouds = [" + b'"a",' * 201 + b"]", "clouds must not have more than 200 entries"),
        ("k.toml", b"".join(b"[[machine]]\n" for _ in range(201)), "machine must not have more than 200"),
        ("k.toml", b"".join(b"tags.k%d = 'x'\n" % n for n in range(201)), "tags must not have more than 200"),
        (
            "k.toml",
            b"public = true\n" + b"".join(b"k%d = 1\n" % n for n in range(201)),
            "must not have more than 200 keys",
        ),
        ("k.json", full(lambda n: b'"k%d":1,' % n, head=b'{"sha256":{', tail=b'"z":1}}'), "sha256 must not"),
        ("k.toml", full(lambda _: b"1,", head=b"x=[", tail=b"]"), "it has more than 1000 commas"),
        ("k.toml", full(lambda _: b"[", head=b"x="), "it has more than 1000 brackets"),
        ("k.toml", full(lambda _: b"{a=", head=b"x="), "it has more than 1000 equals signs"),
    ],
)
def test_no_list_and_no_table_is_longer_than_any_set_needs(name: str, data: bytes, why: str) -> None:
    with pytest.raises(Rejected, match=why):
        read_sidecar(name, data)


def test_what_two_hundred_accounts_and_sums_take_is_read() -> None:
    accounts = ", ".join(f'"{n:012}"' for n in range(200))
    sums = ", ".join(f'"linux-6.1.0-{n}.img" = "{SUM.decode()}"' for n in range(200))
    read = read_sidecar("k.toml", f"share = [{accounts}]\nsha256 = {{ {sums} }}".encode())
    assert (len(read.share), len(read.sha256)) == (200, 200)
