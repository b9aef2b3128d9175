import dataclasses
import re
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uecwatchd.bundle.bundler import Part
from uecwatchd.bundle.keys import public_key
from uecwatchd.bundle.manifest import (
    LIMIT_BYTES,
    BlockDevice,
    Manifest,
    SealedSecret,
    check_signature,
    read_manifest,
    signed_bytes,
    write_manifest,
)
from uecwatchd.errors import Rejected

# Laid out and quoted as minidom's toprettyxml does, with the elements that euca2ools 1.2 wrote for a kernel.
FOREIGN = """<?xml version="1.0" ?>
<manifest>
\t<version>
\t\t2007-10-10
\t</version>
\t<bundler><name>euca-tools</name><version>2007-10-10</version><release>31337</release></bundler>
\t<machine_configuration>
\t\t<architecture>
\t\t\ti386
\t\t</architecture>
\t\t<kernel_id>true</kernel_id>
\t</machine_configuration>
\t<image>
\t\t<name>vmlinuz-2.6.28</name>
\t\t<user>000100000001</user>
\t\t<type>machine</type>
\t\t<ancestry><ancestor_ami_id>emi-1</ancestor_ami_id></ancestry>
\t\t<digest algorithm="SHA1">DA39A3EE5E6B4B0D3255BFEF95601890AFD80709</digest>
\t\t<size>3000</size>
\t\t<bundled_size>2000</bundled_size>
\t\t<ec2_encrypted_key algorithm="AES-128-CBC">aa</ec2_encrypted_key>
\t\t<user_encrypted_key algorithm="AES-128-CBC">bb</user_encrypted_key>
\t\t<ec2_encrypted_iv>cc</ec2_encrypted_iv>
\t\t<user_encrypted_iv>dd</user_encrypted_iv>
\t\t<parts count="2">
\t\t\t<part index="0">
\t\t\t\t<filename>vmlinuz-2.6.28.part.0</filename>
\t\t\t\t<digest algorithm="SHA1">da39a3ee5e6b4b0d3255bfef95601890afd80709</digest>
\t\t\t</part>
\t\t\t<part index="1">
\t\t\t\t<filename>vmlinuz-2.6.28.part.1</filename>
\t\t\t\t<digest algorithm="SHA1">da39a3ee5e6b4b0d3255bfef95601890afd80708</digest>
\t\t\t</part>
\t\t</parts>
\t</image>
\t<signature>ee</signature>
</manifest>
"""
EMPTY_SHA1 = "da39a3ee5e6b4b0d3255bfef95601890afd80709"

words = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30)
names = words.map(lambda word: word.replace("/", "-")).filter(lambda word: word not in (".", ".."))
hexes = st.binary(min_size=1, max_size=40).map(bytes.hex)
sha1s = st.binary(min_size=20, max_size=20).map(bytes.hex)
sizes = st.integers(0, 16 * 1024**4)
ids = st.none() | st.from_regex(r"e[kr]i-[0-9A-F]{8}", fullmatch=True)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    kind = draw(st.sampled_from(["machine", "kernel", "ramdisk"]))
    machine = kind == "machine"
    files = draw(st.lists(names, min_size=1, max_size=6, unique=True))
    return Manifest(
        name=draw(names),
        user=draw(words),
        kind=kind,
        arch=draw(st.sampled_from(["i386", "x86_64"])),
        tar_sha1=draw(sha1s),
        size=draw(sizes),
        bundled_size=draw(sizes),
        for_cloud=SealedSecret(draw(hexes), draw(hexes)),
        for_user=SealedSecret(draw(hexes), draw(hexes)),
        parts=tuple(Part(index, name, 0, draw(sha1s)) for index, name in enumerate(files)),
        kernel_id=draw(ids) if machine else None,
        ramdisk_id=draw(ids) if machine else None,
        block_devices=tuple(draw(st.lists(st.builds(BlockDevice, words, words), max_size=3)))
        if machine
        else (),
        product_codes=tuple(draw(st.lists(words, max_size=3))) if machine else (),
    )


@settings(max_examples=100, deadline=None)
@given(manifest=manifests())
def test_a_written_manifest_is_read_back_and_its_signature_is_valid(user, manifest: Manifest) -> None:
    data = write_manifest(manifest, key=user.key)
    assert read_manifest(data) == manifest
    check_signature(data, public_key(user.certificate))


@pytest.fixture
def machine() -> Manifest:
    return Manifest(
        name="karmic.img",
        user="000100000001",
        kind="machine",
        arch="x86_64",
        tar_sha1=EMPTY_SHA1,
        size=512,
        bundled_size=208,
        for_cloud=SealedSecret("aa", "cc"),
        for_user=SealedSecret("bb", "dd"),
        parts=(Part(0, "karmic.part.0", 208, EMPTY_SHA1),),
        kernel_id="eki-AAAA0001",
        ramdisk_id="eri-BBBB0002",
    )


def test_the_text_of_a_manifest_is_exactly_the_expected_one(user, machine: Manifest) -> None:
    text = write_manifest(machine, key=user.key).decode()
    text = re.sub("<bundler>.*</bundler>", "<bundler/>", text)
    text = re.sub("<signature>[0-9a-f]{512}</signature>", "<signature/>", text)
    assert text == (
        "<?xml version='1.0'?><manifest><version>2007-10-10</version><bundler/>"
        "<machine_configuration><architecture>x86_64</architecture>"
        "<kernel_id>eki-AAAA0001</kernel_id><ramdisk_id>eri-BBBB0002</ramdisk_id></machine_configuration>"
        "<image><name>karmic.img</name><user>000100000001</user><type>machine</type>"
        f"<digest algorithm='SHA1'>{EMPTY_SHA1}</digest><size>512</size><bundled_size>208</bundled_size>"
        "<ec2_encrypted_key algorithm='AES-128-CBC'>aa</ec2_encrypted_key>"
        "<user_encrypted_key algorithm='AES-128-CBC'>bb</user_encrypted_key>"
        "<ec2_encrypted_iv>cc</ec2_encrypted_iv><user_encrypted_iv>dd</user_encrypted_iv>"
        "<parts count='1'><part index='0'><filename>karmic.part.0</filename>"
        f"<digest algorithm='SHA1'>{EMPTY_SHA1}</digest></part></parts></image><signature/></manifest>"
    )


def test_a_block_device_mapping_directly_follows_the_architecture(user, machine: Manifest) -> None:
    disk = dataclasses.replace(
        machine, block_devices=(BlockDevice("ami", "sda"),), product_codes=("A79EC0DB",)
    )
    assert (
        b"<architecture>x86_64</architecture><block_device_mapping><mapping><virtual>ami</virtual>"
        b"<device>sda</device></mapping></block_device_mapping><product_codes><product_code>A79EC0DB"
    ) in write_manifest(disk, key=user.key)


@pytest.mark.parametrize(
    ("kind", "marks"),
    [
        ("kernel", b"<kernel_id>true</kernel_id></m"),
        ("ramdisk", b"</architecture><ramdisk_id>true</ramdisk_id></m"),
    ],
)
def test_kernels_and_ramdisks_carry_both_marks(user, machine: Manifest, kind, marks: bytes) -> None:
    marked = dataclasses.replace(machine, kind=kind, kernel_id=None, ramdisk_id=None)
    data = write_manifest(marked, key=user.key)
    assert marks in data
    assert f"<type>{kind}</type>".encode() in data


def test_a_machine_without_kernel_and_ramdisk_names_none(user, machine: Manifest) -> None:
    data = write_manifest(dataclasses.replace(machine, kernel_id=None, ramdisk_id=None), key=user.key)
    assert b"_id>" not in data


def test_a_manifest_by_another_tool_is_read(user) -> None:
    found = read_manifest(FOREIGN.encode())
    assert (found.kind, found.arch, found.name, found.user) == (
        "kernel",
        "i386",
        "vmlinuz-2.6.28",
        "000100000001",
    )
    assert (found.kernel_id, found.ramdisk_id) == (None, None)
    assert (found.size, found.bundled_size, found.tar_sha1) == (3000, 2000, EMPTY_SHA1)
    assert (found.for_cloud, found.for_user) == (SealedSecret("aa", "cc"), SealedSecret("bb", "dd"))
    assert [part.name for part in found.parts] == ["vmlinuz-2.6.28.part.0", "vmlinuz-2.6.28.part.1"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\t\t<type>machine</type>\n", ""),
        ("<kernel_id>true<", "<kernel_id>yes<"),
        ("<type>machine<", "<type>kernel<"),
        (
            "<bundler><name>euca-tools</name><version>2007-10-10</version><release>31337</release></bundler>",
            "",
        ),
        ("\t<version>\n\t\t2007-10-10\n\t</version>\n", ""),
        ('<digest algorithm="SHA1">DA', "<digest>DA"),
    ],
    ids=["no type", "the word yes", "type kernel", "no bundler", "no version", "no algorithm"],
)
def test_elements_that_other_tools_omit_are_optional(old: str, new: str) -> None:
    assert FOREIGN.count(old) == 1
    assert read_manifest(FOREIGN.replace(old, new).encode()) == read_manifest(FOREIGN.encode())


MANDATORY = [
    "machine_configuration",
    "architecture",
    "image",
    "name",
    "user",
    "digest",
    "size",
    "bundled_size",
    "ec2_encrypted_key",
    "user_encrypted_key",
    "ec2_encrypted_iv",
    "user_encrypted_iv",
    "parts",
    "filename",
    "signature",
]


@pytest.mark.parametrize("tag", MANDATORY)
def test_a_mandatory_element_that_is_missing_is_refused(tag: str) -> None:
    text = re.sub(r"<bundler>.*</bundler>", "", FOREIGN)
    without = re.sub(rf"<{tag}[ >].*?</{tag}>", "", text, count=1, flags=re.DOTALL)
    assert without != text
    with pytest.raises(Rejected, match=f"<{tag}>"):
        read_manifest(without.encode())


@pytest.mark.parametrize("tag", [*MANDATORY, "type", "kernel_id", "version"])
def test_a_repeated_element_is_refused(tag: str) -> None:
    text = re.sub(r"<bundler>.*</bundler>", "", FOREIGN)
    doubled = re.sub(rf"<{tag}[ >].*?</{tag}>", lambda found: found[0] * 2, text, count=1, flags=re.DOTALL)
    with pytest.raises(Rejected, match=f"<{tag}>"):
        read_manifest(doubled.encode())


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("<manifest>", "<!DOCTYPE manifest><manifest>", "must not contain a DOCTYPE"),
        ("<manifest>", '<!DOCTYPE m [<!ENTITY a "b">]><manifest>', "must not contain a DOCTYPE"),
        ("<size>3000", "<size>&a;", "not well-formed"),
        ("<size>3000", "<size><!-- -->3000", "must not contain a comment"),
        ("<size>3000", "<size><?php ?>3000", "must not contain a processing instruction"),
        ("<size>3000", "<size><![CDATA[3000]]>", "must not contain a CDATA section"),
        ("<size>3000", "<size><b/>3000", "holds elements where text should be"),
        ("<size>3000", "<size>-3000", "not a plain number"),
        ("<size>3000", "<size>3e3", "not a plain number"),
        ("<size>3000", "<size>0x10", "not a plain number"),
        ("<size>3000", "<size>" + "9" * 20, "not a plain number"),
        ("<size>3000", "<size>" + "9" * 19, "no more than"),
        ("<size>3000", "<size>3 000", "not a plain number"),
        ("<bundled_size>2000", "<bundled_size>", "is empty"),
        ("<image>", '<image id="1">', "exactly one element <image>"),
        ("<image>", "<image >", "exactly one element <image>"),
        ("<signature>", "<image></image><signature>", "exactly one element <image>"),
        ("<machine_configuration>", '<machine_configuration a="b">', "exactly one element <machine_conf"),
        ("<signature>ee", "<signature>e", "not hex digits"),
        ("<signature>ee", "<signature>xx", "not hex digits"),
        (">aa<", ">a-<", "not hex digits"),
        (">aa<", "><", "is empty"),
        ("i386", "i686", "its <architecture> is i686"),
        ("<type>machine", "<type>floppy", "its <type> is floppy"),
        ("<type>machine", "<type>ramdisk", "both that this is a kernel and that it is a ramdisk"),
        ("</kernel_id>", "</kernel_id><ramdisk_id>true</ramdisk_id>", "both that this is a kernel"),
        ("\t\t2007-10-10", "\t\t2030-01-01", "format version 2030-01-01"),
        ('"SHA1">DA', '"SHA256">DA', "is made with SHA256"),
        ('"SHA1">DA', '"SHA1">ZZ', "not 40 hex digits"),
        ('"AES-128-CBC">aa', '"AES-256-CBC">aa', "is made with AES-256-CBC"),
        ('count="2"', 'count="3"', "announces 3 parts and lists 2"),
        ('count="2"', 'count="1"', "announces 1 parts and lists 2"),
        ('count="2"', "", "announces None parts"),
        ('index="1"', 'index="2"', "part 2 stands where part 1 should"),
        ('index="1"', 'index="0"', "part 0 stands where part 1 should"),
        ('index="1"', "", "part None stands where part 1 should"),
        ("8.part.1<", "8.part.0<", "two parts of one name"),
        ("vmlinuz-2.6.28.part.0", "../vmlinuz", "not a plain file name"),
        ("vmlinuz-2.6.28.part.0", "/etc/shadow", "not a plain file name"),
        ("<name>vmlinuz-2.6.28<", "<name>..<", "not a plain file name"),
        ("<name>vmlinuz", "<name>vmlinüz", "plain ASCII"),
        ("</manifest>", "", "not well-formed"),
        ("</manifest>", "</manifest><manifest/>", "not well-formed"),
    ],
)
def test_a_hostile_or_broken_manifest_is_refused_with_the_reason(old: str, new: str, why: str) -> None:
    assert FOREIGN.count(old) == 1
    with pytest.raises(Rejected) as caught:
        read_manifest(FOREIGN.replace(old, new).encode(), name="k.manifest.xml")
    assert caught.value.what == "k.manifest.xml"
    assert why in caught.value.why


def test_a_declared_encoding_cannot_change_what_the_bytes_mean() -> None:
    declared = FOREIGN.replace('<?xml version="1.0" ?>', '<?xml version="1.0" encoding="UTF-16"?>')
    assert read_manifest(declared.encode()) == read_manifest(FOREIGN.encode())


def test_another_root_is_refused() -> None:
    with pytest.raises(Rejected, match="it is a <manifold>"):
        read_manifest(FOREIGN.replace("manifest>", "manifold>").encode())


def test_parts_listed_out_of_order_are_refused() -> None:
    first, second = re.findall(r"<part .*?</part>", FOREIGN, flags=re.DOTALL)
    swapped = FOREIGN.replace(first, "@").replace(second, first).replace("@", second)
    with pytest.raises(Rejected, match="part 1 stands where part 0 should"):
        read_manifest(swapped.encode())


def test_a_manifest_without_parts_is_refused() -> None:
    empty = re.sub(r'<parts count="2">.*</parts>', '<parts count="0"></parts>', FOREIGN, flags=re.DOTALL)
    with pytest.raises(Rejected, match="announces 0 parts and lists 0"):
        read_manifest(empty.encode())


def test_a_manifest_longer_than_any_server_reads_is_refused_unparsed() -> None:
    with pytest.raises(Rejected, match="too long"):
        read_manifest(b"<" * (LIMIT_BYTES + 1))


@settings(max_examples=200)
@given(data=st.binary(max_size=300) | st.text("<>/?!-[]image \"'&;", max_size=100).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(Rejected):
        read_manifest(data)


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, len(FOREIGN) - 1), byte=st.integers(0, 255))
def test_a_manifest_with_one_changed_byte_is_read_or_refused(at: int, byte: int) -> None:
    data = bytearray(FOREIGN.encode())
    data[at] = byte
    with suppress(Rejected):
        assert isinstance(read_manifest(bytes(data)), Manifest)


def test_the_signature_covers_both_elements_byte_by_byte(user, machine: Manifest) -> None:
    data = write_manifest(machine, key=user.key)
    signed = signed_bytes(data)
    assert signed.startswith(b"<machine_configuration><architecture>")
    assert signed.endswith(b"</parts></image>")
    assert b"</machine_configuration><image>" in signed
    assert signed in data


@pytest.mark.parametrize(
    ("old", "new"), [(b"x86_64", b"i386"), (b"<size>512", b"<size>513"), (b"karmic.part.0", b"karmic.part.1")]
)
def test_a_change_inside_what_is_signed_breaks_the_signature(user, machine: Manifest, old, new) -> None:
    data = write_manifest(machine, key=user.key).replace(old, new)
    assert read_manifest(data)
    with pytest.raises(Rejected, match=r"k\.xml: its signature was not made with"):
        check_signature(data, public_key(user.certificate), name="k.xml")


def test_a_signature_by_another_key_is_invalid(user, cloud, machine: Manifest) -> None:
    with pytest.raises(Rejected, match="its signature was not made with"):
        check_signature(write_manifest(machine, key=cloud.key), public_key(user.certificate))
