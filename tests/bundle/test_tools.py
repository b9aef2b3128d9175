"""The format held against programs that know nothing of us: openssl, tar, gzip, split, sha1sum.

Our bundles are taken apart by them, and theirs are taken by us.
"""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from uecwatchd.bundle.folder import BundleCredentials, ImageProperties, bundle_to_folder, unbundle_to_folder
from uecwatchd.bundle.keys import public_key
from uecwatchd.errors import Rejected

BLOCKS = [hashlib.shake_256(bytes([n])).digest(8192) for n in range(60)]
DENSE = b"".join(BLOCKS) * 25  # 12 MiB that deflate to about as much, since they repeat outside its window


def run(*command: str | Path, stdin: bytes | None = None, cwd: Path | None = None) -> bytes:
    return subprocess.run(
        [str(word) for word in command], input=stdin, cwd=cwd, check=True, capture_output=True
    ).stdout


def text(pattern: str, document: str) -> str:
    found = re.findall(pattern, document)
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory, user, cloud) -> Path:
    folder = tmp_path_factory.mktemp("pems")
    for name, pair in (("user", user), ("cloud", cloud)):
        key = pair.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        (folder / f"{name}-pk.pem").write_bytes(key)
        certificate = folder / f"{name}-cert.pem"
        certificate.write_bytes(pair.certificate.public_bytes(Encoding.PEM))
        (folder / f"{name}-pub.pem").write_bytes(
            run("openssl", "x509", "-in", certificate, "-pubkey", "-noout")
        )
    return folder


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, user, cloud) -> Path:
    """A bundle of two parts, made by the code under test; the manifest's path."""
    folder = tmp_path_factory.mktemp("ours")
    source = folder / "karmic.img"
    source.write_bytes(DENSE)
    credentials = BundleCredentials("000100000001", user.key, user.certificate, cloud.certificate)
    return bundle_to_folder(source, folder / "bundle", ImageProperties("machine", "x86_64"), credentials).path


@pytest.mark.parametrize(("side", "tag"), [("user", "user"), ("cloud", "ec2")])
def test_openssl_gzip_and_tar_unpack_our_bundle(
    ours: Path, pems: Path, tmp_path: Path, side: str, tag: str
) -> None:
    document = ours.read_text("ascii")
    sealed = (text(rf"<{tag}_encrypted_{what}[^>]*>([0-9a-f]+)<", document) for what in ("key", "iv"))
    opening = ("openssl", "pkeyutl", "-decrypt", "-inkey", pems / f"{side}-pk.pem")
    key, iv = (run(*opening, stdin=bytes.fromhex(hexes)).decode("ascii") for hexes in sealed)
    assert re.fullmatch("[0-9a-f]{32}", key)
    assert re.fullmatch("[0-9a-f]{32}", iv)

    names = re.findall("<filename>([^<]+)<", document)
    digests = re.findall("</filename><digest algorithm='SHA1'>([0-9a-f]{40})<", document)
    assert len(names) == 2
    assert run("sha1sum", *names, cwd=ours.parent).decode().split()[::2] == digests
    assert (ours.parent / names[0]).stat().st_size == 10 * 1024 * 1024

    encrypted = run("cat", *names, cwd=ours.parent)
    assert len(encrypted) == int(text("<bundled_size>([0-9]+)<", document))
    (tmp_path / "k.tar.gz").write_bytes(
        run("openssl", "enc", "-d", "-aes-128-cbc", "-K", key, "-iv", iv, stdin=encrypted)
    )
    run("gzip", "-t", "k.tar.gz", cwd=tmp_path)
    tar = run("gzip", "-dc", "k.tar.gz", cwd=tmp_path)
    assert run("sha1sum", stdin=tar).split()[0].decode() == text(
        "</type><digest algorithm='SHA1'>([0-9a-f]{40})<", document
    )

    listed = run("tar", "-tvzf", "k.tar.gz", "--numeric-owner", "--utc", cwd=tmp_path).decode().split()
    assert listed == ["-rw-r--r--", "0/0", str(len(DENSE)), "1970-01-01", "00:00", "karmic.img"]
    run("tar", "-xzf", "k.tar.gz", cwd=tmp_path)
    assert (tmp_path / "karmic.img").read_bytes() == DENSE


def test_the_gzip_header_is_dated_1970_and_bears_no_name(ours: Path, pems: Path, tmp_path: Path) -> None:
    document = ours.read_text("ascii")
    opening = ("openssl", "pkeyutl", "-decrypt", "-inkey", pems / "user-pk.pem")
    sealed = (text(rf"<user_encrypted_{what}[^>]*>([0-9a-f]+)<", document) for what in ("key", "iv"))
    key, iv = (run(*opening, stdin=bytes.fromhex(hexes)).decode() for hexes in sealed)
    first = (ours.parent / text("<filename>([^<]+part.0)<", document)).read_bytes()[:64]
    plain = run("openssl", "enc", "-d", "-nopad", "-aes-128-cbc", "-K", key, "-iv", iv, stdin=first)
    assert plain[:8] == b"\x1f\x8b\x08\0" + bytes(4)


def test_openssl_verifies_our_signature_over_what_a_server_cuts_out(
    ours: Path, pems: Path, tmp_path: Path
) -> None:
    document = ours.read_text("ascii")
    cut = "".join(
        document[document.find(f"<{tag}>") : document.find(f"</{tag}>") + len(f"</{tag}>")]
        for tag in ("machine_configuration", "image")
    )
    signature = tmp_path / "signature"
    signature.write_bytes(bytes.fromhex(text("<signature>([0-9a-f]+)<", document)))
    verifying = ("openssl", "dgst", "-sha1", "-verify", pems / "user-pub.pem", "-signature", signature)
    assert run(*verifying, stdin=cut.encode()) == b"Verified OK\n"
    with pytest.raises(subprocess.CalledProcessError):
        run(*verifying, stdin=cut.replace("x86_64", "i386").encode())


def made_by_tools(image: Path, folder: Path, pems: Path, *options: str, digest: str = "") -> Path:
    """A bundle of `image` as a shell script would make it; the manifest's path.

    `digest` is what the manifest says of the archive, its SHA-1 if that is empty.
    """
    tar = run("tar", "--format=gnu", *options, "-cf-", "-C", image.parent, image.name)
    key, iv = os.urandom(16).hex(), os.urandom(16).hex()
    encrypted = run(
        "openssl", "enc", "-aes-128-cbc", "-K", key, "-iv", iv, stdin=run("gzip", "-c", stdin=tar)
    )
    run("split", "-b", "100000", "-d", "-a1", "-", f"{image.name}.part.", stdin=encrypted, cwd=folder)

    def sealed(side: str, secret: str) -> str:
        sealing = ("openssl", "pkeyutl", "-encrypt", "-certin", "-inkey", pems / f"{side}-cert.pem")
        return run(*sealing, stdin=secret.encode()).hex()

    def sha1(data: bytes) -> str:
        return run("sha1sum", stdin=data).split()[0].decode()

    parts = sorted(folder.glob("*.part.*"))
    listed = "".join(
        f'<part index="{index}"><filename>{part.name}</filename>'
        f'<digest algorithm="SHA1">{sha1(part.read_bytes())}</digest></part>\n'
        for index, part in enumerate(parts)
    )
    machine = "<machine_configuration>\n  <architecture>i386</architecture>\n</machine_configuration>"
    described = f"""<image>
        <name>{image.name}</name> <user>000100000001</user> <type>machine</type>
        <digest algorithm="SHA1">{digest or sha1(tar)}</digest>
        <size>{image.stat().st_size}</size>
        <bundled_size>{len(encrypted)}</bundled_size>
        <ec2_encrypted_key algorithm="AES-128-CBC">{sealed("cloud", key)}</ec2_encrypted_key>
        <user_encrypted_key algorithm="AES-128-CBC">{sealed("user", key)}</user_encrypted_key>
        <ec2_encrypted_iv>{sealed("cloud", iv)}</ec2_encrypted_iv>
        <user_encrypted_iv>{sealed("user", iv)}</user_encrypted_iv>
        <parts count="{len(parts)}">{listed}</parts>
    </image>"""
    signature = run(
        "openssl", "dgst", "-sha1", "-sign", pems / "user-pk.pem", stdin=(machine + described).encode()
    )
    manifest = folder / f"{image.name}.manifest.xml"
    manifest.write_text(
        '<?xml version="1.0" ?>\n'
        f"<manifest>\n{machine}\n{described}\n<signature>{signature.hex()}</signature></manifest>\n"
    )
    return manifest


@pytest.fixture
def holey(tmp_path: Path) -> Path:
    """60 stretches of data with holes between them and at both ends: more than one header's map holds."""
    image = tmp_path / "holey.img"
    with image.open("wb") as file:
        for n, block in enumerate(BLOCKS):
            file.seek((n + 1) * 256 * 1024)
            file.write(block)
        file.truncate(70 * 256 * 1024)
    return image


@pytest.mark.parametrize("side", ["user", "cloud"])
@pytest.mark.parametrize("options", [(), ("-S",)], ids=["plain", "sparse"])
def test_a_bundle_made_by_tar_gzip_and_openssl_is_accepted(
    holey: Path, pems: Path, tmp_path: Path, user, cloud, side, options
) -> None:
    (tmp_path / "bundle").mkdir()
    manifest = made_by_tools(holey, tmp_path / "bundle", pems, *options)
    key = {"user": user, "cloud": cloud}[side].key
    out, _ = unbundle_to_folder(
        manifest, tmp_path / "out", key=key, side=side, signer=public_key(user.certificate)
    )
    assert out == tmp_path / "out" / "holey.img"
    run("cmp", holey, out)
    assert out.stat().st_blocks * 512 < 2 * len(BLOCKS) * 64 * 1024 < holey.stat().st_size


def test_the_empty_digest_of_early_euca2ools_is_accepted_with_a_remark(
    holey: Path, pems: Path, tmp_path: Path, user
) -> None:
    (tmp_path / "bundle").mkdir()
    manifest = made_by_tools(holey, tmp_path / "bundle", pems, digest=hashlib.sha1().hexdigest())
    out, found = unbundle_to_folder(
        manifest, tmp_path / "out", key=user.key, side="user", signer=public_key(user.certificate)
    )
    run("cmp", holey, out)
    assert not found.tar_checked


@pytest.mark.parametrize(
    "digest", ["0" * 40, hashlib.sha1(b"\0").hexdigest(), hashlib.sha1().hexdigest()[::-1]]
)
def test_any_other_wrong_digest_is_refused(
    holey: Path, pems: Path, tmp_path: Path, user, digest: str
) -> None:
    (tmp_path / "bundle").mkdir()
    manifest = made_by_tools(holey, tmp_path / "bundle", pems, digest=digest)
    with pytest.raises(Rejected, match="its archive's SHA-1 is"):
        unbundle_to_folder(manifest, tmp_path / "out", key=user.key, side="user")


def flipped(part: Path) -> None:
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)


def cut(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-16])


@pytest.mark.parametrize("number", [0, 3, -1])
@pytest.mark.parametrize("damage", [flipped, cut])
def test_without_a_digest_of_the_archive_damage_is_found_by_the_parts(
    holey: Path, pems: Path, tmp_path: Path, user, damage, number: int
) -> None:
    (tmp_path / "bundle").mkdir()
    manifest = made_by_tools(holey, tmp_path / "bundle", pems, digest=hashlib.sha1().hexdigest())
    part = sorted((tmp_path / "bundle").glob("*.part.*"), key=lambda one: int(one.suffix[1:]))[number]
    damage(part)
    with pytest.raises(Rejected, match=rf"{part.name}: its SHA-1 is"):
        unbundle_to_folder(manifest, tmp_path / "out", key=user.key, side="user")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_a_pax_sparse_bundle_is_refused(holey: Path, pems: Path, tmp_path: Path, user, version: str) -> None:
    (tmp_path / "bundle").mkdir()
    options = ("-S", "--format=pax", f"--sparse-version={version}")
    manifest = made_by_tools(holey, tmp_path / "bundle", pems, *options)
    with pytest.raises(Rejected, match=r"holey\.img: its archive begins with a PAX header"):
        unbundle_to_folder(manifest, tmp_path / "out", key=user.key, side="user")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_tools_for_comparison_are_installed() -> None:
    for tool in ("openssl", "tar", "gzip", "split", "sha1sum", "cmp"):
        assert shutil.which(tool)
