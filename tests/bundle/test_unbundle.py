"""Every check of the way back, each with a bundle that is wrong in exactly that."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

from uecwatchd.bundle.bundler import Part, Secret
from uecwatchd.bundle.keys import public_key
from uecwatchd.bundle.manifest import seal_secret
from uecwatchd.bundle.unbundle import (
    CHUNK_BYTES,
    FETCHES,
    HELD_BYTES,
    NullSink,
    inflate,
    open_secret,
    unbundle,
)
from uecwatchd.errors import Rejected

IMAGE = hashlib.shake_256(b"karmic").digest(200_000)


def archive(
    *members: tuple[str, bytes], format: int = tarfile.GNU_FORMAT, kind: bytes = tarfile.REGTYPE
) -> bytes:
    """A tar stream as Python's own library writes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


GOOD = archive(("karmic.img", b"boot" * 128))
ZIPPED = gzip.compress(GOOD, mtime=0)


def refused(made, why: str, *, what: str = "karmic.img") -> None:
    with pytest.raises(Rejected) as caught:
        made.unbundle()
    assert caught.value.what == what
    assert why in caught.value.why
    assert caught.value.hint


def test_a_correct_bundle_by_other_tools_is_accepted(wrap: Callable) -> None:
    found, sink = wrap(GOOD, size=512).unbundle()
    assert sink.data == b"boot" * 128
    assert found.tar_sha1 == hashlib.sha1(GOOD).hexdigest()
    assert found.digest == hashlib.sha256(b"boot" * 128).hexdigest()


@pytest.mark.parametrize("at", [0, 1, 30_000, 65_535])
@pytest.mark.parametrize("index", [0, 1, 3])
def test_a_part_with_one_flipped_bit_is_refused_by_its_name(bundle: Callable, index: int, at: int) -> None:
    made = bundle(IMAGE, part_size=65_536)
    name = f"k.part.{index}"
    damaged = bytearray(made.objects[name])
    damaged[at % len(damaged)] ^= 4
    made.objects[name] = bytes(damaged)
    refused(made, "its SHA-1 is", what=name)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b""])
def test_a_part_that_is_shorter_or_longer_is_refused(bundle: Callable, change) -> None:
    made = bundle(IMAGE, part_size=65_536)
    made.objects["k.part.3"] = change(made.objects["k.part.3"])
    refused(made, "its SHA-1 is", what="k.part.3")


def test_parts_in_another_order_are_refused(bundle: Callable) -> None:
    made = bundle(IMAGE, part_size=65_536)
    first, second, *others = made.manifest.parts
    refused(made.but(parts=(second, first, *others)), "not gzip, or not with this key")


def test_a_missing_last_part_is_refused(bundle: Callable) -> None:
    made = bundle(IMAGE, part_size=65_536)
    refused(
        made.but(parts=made.manifest.parts[:-1]), "its parts are 196608 bytes together, its manifest says"
    )


@pytest.mark.parametrize("off", [-1, 1])
def test_parts_that_do_not_add_up_to_the_bundled_size_are_refused(bundle: Callable, off: int) -> None:
    made = bundle(IMAGE)
    refused(made.but(bundled_size=made.manifest.bundled_size + off), "bytes together, its manifest says")


def test_damage_is_reported_for_the_part_and_not_for_its_consequences(bundle: Callable) -> None:
    made = bundle(IMAGE)
    made.objects["k.part.0"] = b"\0" * 16 + made.objects["k.part.0"][16:]
    refused(made, "its SHA-1 is", what="k.part.0")


def test_another_key_is_refused(bundle: Callable) -> None:
    made = bundle(IMAGE)
    with pytest.raises(Rejected, match=r"karmic\.img: what was decrypted is not gzip, or not with this key"):
        unbundle(made.manifest, made.fetch, secret=Secret.random(), sink=NullSink())


PADDED = ZIPPED + bytes([16 - len(ZIPPED) % 16]) * (16 - len(ZIPPED) % 16)


@pytest.mark.parametrize(
    "plaintext",
    [ZIPPED + bytes(-len(ZIPPED) % 16 or 16), PADDED[:-1] + b"\x11", PADDED[:-2] + b"\xff" + PADDED[-1:]],
    ids=["zeros", "more than a block", "uneven"],
)
def test_improper_padding_is_refused(wrap: Callable, plaintext: bytes) -> None:
    refused(wrap(GOOD, size=512, plaintext=plaintext), "does not end in proper padding")


def test_a_ciphertext_that_is_not_whole_blocks_is_refused(wrap: Callable) -> None:
    refused(wrap(GOOD, size=512, cut_off=1), "does not end in proper padding")


@pytest.mark.parametrize(
    ("zipped", "why"),
    [
        (ZIPPED[:-9], "its gzip member is cut off"),
        (ZIPPED[:-1], "its gzip member is cut off"),
        (b"", "its gzip member is cut off"),
        (ZIPPED + ZIPPED, "something follows its gzip member"),
        (ZIPPED + b"\0", "something follows its gzip member"),
        (ZIPPED + bytes(70_000), "something follows its gzip member"),
        (gzip.compress(GOOD[:700], mtime=0) + gzip.compress(GOOD[700:], mtime=0), "something follows"),
        (ZIPPED[:-8] + b"\0\0\0\0" + ZIPPED[-4:], "ncorrect "),
        (ZIPPED[:-4] + b"\0\0\0\0", "ncorrect "),
        (GOOD, "what was decrypted is not gzip"),
    ],
    ids=[
        "cut in the data",
        "cut in the trailer",
        "nothing",
        "twice",
        "one byte more",
        "much more",
        "in two members",
        "wrong CRC",
        "wrong length",
        "not gzip",
    ],
)
def test_exactly_one_complete_gzip_member_is_accepted(wrap: Callable, zipped: bytes, why: str) -> None:
    refused(wrap(GOOD, size=512, zipped=zipped), why)


@pytest.mark.parametrize(
    ("tar", "why"),
    [
        (archive(("../karmic.img", bytes(512))), "not a plain file name"),
        (archive(("/etc/shadow", bytes(512))), "not a plain file name"),
        (archive(("a/karmic.img", bytes(512))), "not a plain file name"),
        (archive(("..", bytes(512))), "not a plain file name"),
        (archive(("a", bytes(512)), ("b", bytes(512))), "something after the image"),
        (archive(("karmic", b""), kind=tarfile.DIRTYPE), "begins with a directory"),
        (archive(("karmic", b""), kind=tarfile.SYMTYPE), "begins with a symbolic link"),
        (archive(("k" * 101, bytes(512))), "begins with a GNU long name"),
        (archive(("ë.img", bytes(512)), format=tarfile.PAX_FORMAT), "begins with a PAX header"),
        (archive(), "there is no tar archive inside"),
        (GOOD[:1000], "ends before the image does"),
        (GOOD[:1024], "the end of its archive is cut off"),
        (GOOD[: 1024 + 512], "the end of its archive is cut off"),
        (GOOD[:-1], "the end of its archive is cut off"),
        (GOOD[:-1] + b"x", "something after the image"),
        (GOOD[:1024] + b"x" + GOOD[1025:], "something after the image"),
    ],
    ids=[
        "..",
        "absolute",
        "folder",
        "only dots",
        "two members",
        "directory",
        "symlink",
        "long name",
        "PAX",
        "none",
        "cut in the image",
        "no trailer",
        "half a trailer",
        "odd length",
        "junk at the end",
        "junk behind the image",
    ],
)
def test_exactly_one_plain_tar_member_is_accepted(wrap: Callable, tar: bytes, why: str) -> None:
    refused(wrap(tar, size=512), why)


def test_holes_stay_holes_also_where_no_map_entry_marks_the_end(wrap: Callable) -> None:
    block = bytearray(archive(("karmic.img", b"boot" * 128))[:512])
    block[156:157] = b"S"
    block[386:410] = b"%011o\0%011o\0" % (4096, 512)
    block[483:495] = b"%011o\0" % 20_000
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    made = wrap(bytes(block) + b"boot" * 128 + bytes(1024), size=20_000)
    found, sink = made.unbundle()
    assert sink.holes == [(0, 4096), (4608, 15_392)]
    assert sink.data == bytes(4096) + b"boot" * 128 + bytes(15_392)
    assert found.digest == hashlib.sha256(sink.data).hexdigest()


@pytest.mark.parametrize("size", [0, 511, 513])
def test_an_image_of_another_size_than_the_manifest_says_is_refused(wrap: Callable, size: int) -> None:
    refused(wrap(GOOD, size=size), f"its archive holds 512 bytes of image, its manifest says {size}")


def test_another_archive_than_the_manifest_says_is_refused(wrap: Callable) -> None:
    refused(wrap(GOOD, size=512).but(tar_sha1="0" * 40), "its archive's SHA-1 is")


def test_a_bundle_is_refused_if_only_its_padding_blocks_differ_from_the_digest(
    wrap: Callable,
) -> None:
    longer = wrap(GOOD + bytes(10240), size=512)
    assert longer.unbundle()
    refused(longer.but(tar_sha1=hashlib.sha1(GOOD).hexdigest()), "its archive's SHA-1 is")


@pytest.mark.parametrize("side", ["user", "cloud"])
def test_each_side_opens_the_bundle_with_its_own_key_only(bundle: Callable, user, cloud, side) -> None:
    secret = Secret.random()
    made = bundle(IMAGE, secret=secret).but(
        for_user=seal_secret(secret, public_key(user.certificate)),
        for_cloud=seal_secret(secret, public_key(cloud.certificate)),
    )
    ours, theirs = (user, cloud) if side == "user" else (cloud, user)
    assert open_secret(made.manifest, ours.key, side=side) == secret
    with pytest.raises(Rejected, match=r"karmic\.img: it was not encrypted for this key"):
        open_secret(made.manifest, theirs.key, side=side)


@pytest.mark.parametrize("field", ["key", "iv"])
def test_a_key_text_that_is_not_32_hex_digits_is_refused(bundle: Callable, user, field: str) -> None:
    sealed = seal_secret(Secret.random(), public_key(user.certificate))
    short = user.key.public_key().encrypt(b"0" * 31, PKCS1v15()).hex()
    made = bundle(IMAGE).but(for_user=replace(sealed, **{field: short}))
    with pytest.raises(Rejected, match="not encrypted for this key"):
        open_secret(made.manifest, user.key, side="user")


def test_only_a_few_parts_are_fetched_in_advance(bundle: Callable) -> None:
    made = bundle(hashlib.shake_256().digest(40 * CHUNK_BYTES), part_size=CHUNK_BYTES)
    asked, read = 0, 0
    ahead: list[int] = []

    def fetch(part: Part) -> Iterator[bytes]:
        nonlocal asked
        asked += 1
        return made.fetch(part)

    class Watching(NullSink):
        def write(self, data: bytes) -> None:
            nonlocal read
            read += len(data)
            ahead.append(asked - read // CHUNK_BYTES)

    unbundle(made.manifest, fetch, secret=made.secret, sink=Watching())
    assert asked == len(made.objects) > 40
    assert max(ahead) <= FETCHES + 2


def test_a_huge_part_is_read_without_being_kept_in_memory(bundle: Callable) -> None:
    image = hashlib.shake_256().digest(HELD_BYTES + 3 * CHUNK_BYTES)
    made = bundle(image, part_size=len(image) * 2)
    assert made.unbundle()[1].data == image
    made.objects["k.part.0"] += b"x"
    refused(made, "its SHA-1 is", what="k.part.0")


def test_an_endless_part_is_not_read_for_ever(bundle: Callable) -> None:
    made = bundle(IMAGE)
    data, read = made.objects["k.part.0"], 0

    def fetch(_part: Any) -> Iterator[bytes]:
        nonlocal read
        yield data
        while True:
            read += CHUNK_BYTES
            yield bytes(CHUNK_BYTES)

    with pytest.raises(Rejected, match="something follows its gzip member"):
        unbundle(made.manifest, fetch, secret=made.secret, sink=NullSink())
    assert read < 4 * HELD_BYTES


def test_data_that_expands_a_thousandfold_comes_in_chunks(wrap: Callable) -> None:
    size = 64 * CHUNK_BYTES
    made = wrap(archive(("karmic.img", bytes(size))), size=size)
    assert len(made.objects["k.part.0"]) < size / 900
    pieces = list(inflate(iter([gzip.compress(bytes(size))])))
    assert max(map(len, pieces)) <= CHUNK_BYTES
    assert made.unbundle()[0].size == size
