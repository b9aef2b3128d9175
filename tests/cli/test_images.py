"""The list of a cloud's images, read by a script for euca-describe-images."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from tests.support.host import Host
from uecwatchd.cli.images import ListedImage, Origin, as_json, rows, with_origins
from uecwatchd.cli.options import MADE_HERE
from uecwatchd.cli.verbs import build_parser
from uecwatchd.clouds.images import Device, Image
from uecwatchd.demo.material import RealSet
from uecwatchd.ledger.records import BundleRecord, SetRecord, TargetImage, TargetRecord
from uecwatchd.sandbox.server import Sandbox
from uecwatchd.sandbox.state.registry import Tag
from uecwatchd.types import ContentDigest, SetId

ACCOUNT = "000100729354"
MEMDISK = Path("/usr/lib/syslinux/memdisk")
EMPTY: dict[str, Any] = {field.name: "" for field in fields(Image)} | {
    "public": False,
    "tags": (),
    "devices": (),
}


def image(**known: Any) -> Image:
    return Image(**EMPTY | known)


# As Eucalyptus 1.6 lists it, which has no names, no kinds of devices and no kinds of machines.
OLD = image(
    id="emi-3C9F10E7",
    location="images/karmic-1.manifest.xml",
    owner="admin",
    state="available",
    public=True,
    arch="x86_64",
    type="machine",
    kernel="eki-F6DD1103",
    ramdisk="eri-0B3E1166",
)
KERNEL = image(id="eki-F6DD1103", location="images/vmlinuz-1.manifest.xml", owner="admin", type="kernel")
NEW = image(
    id="ami-0a1b2c3d4e5f60718",
    location="amazon/windows-2012",
    name="windows-2012",
    owner=ACCOUNT,
    owner_alias="amazon",
    state="pending",
    arch="x86_64",
    type="machine",
    platform="windows",
    root_device="ebs",
    virtualization="hvm",
    hypervisor="xen",
    description="nobody prints it",
    devices=(
        Device(
            name="/dev/sda1",
            snapshot="snap-1",
            size="30",
            delete_on_termination="true",
            type="gp2",
        ),
        Device(name="xvdca", virtual_name="ephemeral0"),
    ),
    tags=(("team", "infra"), ("empty", "")),
)

# Written by hand in the order of euca2ools 3.4.
PRINTED = {
    OLD: [
        "IMAGE|emi-3C9F10E7|images/karmic-1.manifest.xml|admin|available|public|x86_64|machine"
        "|eki-F6DD1103|eri-0B3E1166||||"
    ],
    KERNEL: ["IMAGE|eki-F6DD1103|images/vmlinuz-1.manifest.xml|admin||private||kernel||||||"],
    NEW: [
        "IMAGE|ami-0a1b2c3d4e5f60718|amazon/windows-2012|amazon|pending|private|x86_64|machine"
        "|||windows|ebs|hvm|xen",
        "BLOCKDEVICEMAPPING|EBS|/dev/sda1|snap-1|30|true|gp2|",
        "BLOCKDEVICEMAPPING|EPHEMERAL|xvdca|ephemeral0",
        "TAG|image|ami-0a1b2c3d4e5f60718|team|infra",
        "TAG|image|ami-0a1b2c3d4e5f60718|empty|",
    ],
}


@pytest.mark.parametrize("listed", PRINTED, ids=lambda listed: listed.id)
def test_an_image_is_shown_in_the_columns_of_euca2ools(listed: Image) -> None:
    assert ["|".join(row) for row in rows(ListedImage(listed, None))] == PRINTED[listed]


@pytest.mark.parametrize("listed", PRINTED, ids=lambda listed: listed.id)
def test_an_image_of_this_host_has_one_more_column_at_the_end(listed: Image) -> None:
    first, *others = rows(ListedImage(listed, Origin("00", ("karmic",))))
    printed, *below = PRINTED[listed]
    assert "|".join(first) == f"{printed}|{MADE_HERE}"
    assert first.index(MADE_HERE) == 14
    assert ["|".join(row) for row in others] == below


def bundle(image_id: str, sha256: str, *, registered: float | None = 0.0) -> BundleRecord:
    return BundleRecord(
        cloud="default",
        bucket="images",
        identity=sha256,
        role="machine",
        digest=ContentDigest(sha256),
        prefix=sha256,
        state="registered",
        image_id=image_id,
        registered=registered,
    )


def record(name: str, *image_ids: str) -> SetRecord:
    images = tuple(TargetImage("kernel", image_id) for image_id in image_ids)
    return SetRecord(
        SetId("/spool", name),
        "stamp",
        "done",
        0.0,
        cloud="default",
        targets=(TargetRecord("default", images=images),),
    )


def test_images_are_ordered_by_id_and_listed_once() -> None:
    found = with_origins([OLD, NEW, KERNEL, OLD], bundles=(), sets=())
    assert [listed.image for listed in found] == [NEW, KERNEL, OLD]
    assert {listed.origin for listed in found} == {None}


def test_an_image_belongs_to_this_host_if_its_bundle_does() -> None:
    sets = [record("lucid", KERNEL.id), record("karmic", KERNEL.id), record("adopted", NEW.id)]
    found = with_origins(
        [OLD, NEW, KERNEL], bundles=[bundle(KERNEL.id, "aa"), bundle(OLD.id, "bb")], sets=sets
    )
    origins = {listed.image.id: listed.origin for listed in found}
    assert origins == {
        KERNEL.id: Origin(ContentDigest("aa"), ("karmic", "lucid")),
        OLD.id: Origin("bb", ()),
        NEW.id: None,
    }


def test_an_image_that_was_only_found_in_the_cloud_does_not_belong_to_this_host() -> None:
    (found,) = with_origins(
        [OLD], bundles=[bundle(OLD.id, "aa", registered=None)], sets=[record("karmic", OLD.id)]
    )
    assert found.origin is None


def test_json_has_more_fields_than_the_table() -> None:
    printed = as_json(ListedImage(NEW, Origin(ContentDigest("aa"), ("karmic",))))
    assert printed["location"] == "amazon/windows-2012"
    assert printed["description"] == "nobody prints it"
    assert printed["tags"] == {"team": "infra", "empty": ""}
    assert printed["made_here"] == {"sha256": "aa", "sets": ["karmic"]}
    assert as_json(ListedImage(OLD, None))["made_here"] is None


# --- the verb ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def busy(
    host_class: type[Host], small_set: RealSet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    """A host whose cloud has the set `tiny`, which it made itself, and a kernel that another host made."""
    folder = tmp_path_factory.mktemp("busy")
    with Sandbox(folder / "cloud") as cloud:
        host, other = (host_class.made(folder / name, cloud) for name in ("host", "other"))
        shutil.copy(MEMDISK, other.spool / "memdisk")
        (other.spool / "theirs.toml").write_text('kernel = "memdisk"')
        assert small_set.sidecar
        host.drop(small_set.machine, small_set.kernel, small_set.ramdisk, small_set.sidecar)
        for each in (other, host):
            ended = each.run("once")
            assert ended.returncode == 0, ended.stderr
        yield host


def ids_of(printed: str) -> set[str]:
    return {line.split("\t")[1] for line in printed.splitlines() if line.startswith("IMAGE\t")}


def test_cut_works_on_the_columns_and_only_our_own_images_have_a_fifteenth(busy: Host) -> None:
    ended = busy.run("images")
    assert ended.returncode == 0, ended.stderr
    mine = set(busy.report("tiny")["ids"].values())
    (theirs,) = {image.id for image in busy.cloud.images} - mine
    listed = [line.split("\t") for line in ended.stdout.splitlines() if line.startswith("IMAGE\t")]
    assert {line[1]: line[14:] for line in listed} == {
        image_id: [MADE_HERE] * (image_id in mine) for image_id in {*mine, theirs}
    }
    third = subprocess.run(["cut", "-f8"], input=ended.stdout, capture_output=True, text=True, check=True)
    assert sorted(third.stdout.split()) == ["kernel", "kernel", "machine", "ramdisk"]
    (machine,) = (line for line in listed if line[7] == "machine")
    assert machine[8:10] == [busy.report("tiny")["ids"][role] for role in ("kernel", "ramdisk")]


def test_tags_are_listed_below_their_image(busy: Host) -> None:
    emi = busy.report("tiny")["ids"]["machine"]
    busy.cloud.backend.registry.add_tags([Tag(emi, "team", "in\tfra\n")], limit=50)
    lines = busy.run("images").stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith(f"IMAGE\t{emi}"))
    below = list(takewhile(lambda line: not line.startswith("IMAGE"), lines[place + 1 :]))
    assert f"TAG\timage\t{emi}\tteam\tin\\tfra\\n" in below
    assert all(line.startswith(f"TAG\timage\t{emi}\t") for line in below)


def test_only_what_was_made_here_is_shown_where_that_is_asked_for(busy: Host) -> None:
    mine = set(busy.report("tiny")["ids"].values())
    assert ids_of(busy.run("images", "--made-here").stdout) == mine
    printed = json.loads(busy.run("images", "default", "--made-here", "--json").stdout)
    assert {one["id"] for one in printed} == mine
    sums = {member["id"]: member["sha256"] for member in busy.report("tiny")["members"]}
    assert {one["id"]: one["made_here"] for one in printed} == {
        image_id: {"sha256": sha256, "sets": ["tiny"]} for image_id, sha256 in sums.items()
    }


def test_an_empty_cloud_and_a_host_without_a_ledger_are_no_error(host: Host) -> None:
    ended = host.run("images")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert "lists no such image" in ended.stderr
    assert json.loads(host.run("images", "--json").stdout) == []
    assert not host.state.exists()


def test_an_unknown_cloud_name_is_an_error(host: Host) -> None:
    ended = host.run("images", "defautl")
    assert ended.returncode == 78
    assert "there is no cloud named defautl: the configuration has default" in ended.stderr


def test_a_cloud_that_is_away_is_reported(host: Host) -> None:
    host.cloud.stop()
    ended = host.run("images")
    assert ended.returncode == 69
    assert ended.stdout == ""
    host.cloud.start()


def test_the_help_says_what_the_columns_are(host: Host) -> None:
    printed = " ".join(host.run("images", "--help").stdout.split())
    assert "euca-describe-images" in printed
    assert "fifteenth" in printed


@pytest.mark.parametrize(
    ("words", "cloud"),
    [((), None), (("far",), "far"), (("--cloud", "far"), "far"), (("--cloud=far", "--all"), "far")],
)
def test_the_cloud_of_a_list_is_a_word_or_an_option(words: Sequence[str], cloud: str | None) -> None:
    assert build_parser().parse_args(["images", *words]).cloud == cloud
