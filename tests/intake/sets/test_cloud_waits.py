"""Clouds that a set does not go to yet: unidentified ones, and those that need more than the others."""

from dataclasses import replace

from tests.intake.sets.test_assemble import AWS, BOTH, KERNEL, NOTHING, Files, listing, members, only
from uecwatchd.intake.sets.assemble import assemble
from uecwatchd.intake.sets.records import FolderSets, ImageSet, Rules
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool.scan import Listing

AWAY = {"far": "it gives no answer"}
UNKNOWN = "cloud far to tell what it wants (it gives no answer)"
# One cloud boots a disk alone; the other is presumed to need everything, as long as it is not identified.
TWO = replace(
    AWS,
    defaults=Sidecar(clouds=("default", "far")),
    needs={"default": KERNEL, "far": KERNEL},
    windows_needs={"default": NOTHING, "far": BOTH},
)
UNIDENTIFIED = replace(TWO, strange=AWAY)
HVM = replace(TWO, disk_alone=frozenset({"default", "far"}))
DISK = {"k.img": "disk"}


def finished(there: Listing, found: ImageSet) -> dict[str, object]:
    """Return what is known of a set that is finished on the identified cloud."""
    files = [(member.path, member.stamp) for member in found.members]
    return {"taken": {"k": files}, "done": {"k": found.stamp}, "taken_on": {"k": ("default",)}}


def decide(files: Files, rules: Rules, **history: object) -> FolderSets:
    return assemble(listing(files), rules=rules, **history)


def test_an_unidentified_cloud_keeps_no_disk_from_the_others() -> None:
    found = only(decide(DISK, UNIDENTIFIED))
    assert (found.virtualization, found.clouds, found.waits) == ("hvm", ("default", "far"), {"far": UNKNOWN})
    assert found.target_cloud == "default"


def test_a_set_with_no_identified_cloud_waits() -> None:
    rules = replace(UNIDENTIFIED, strange={"default": "", **AWAY})
    (waiting,) = decide(DISK, rules).waiting
    assert waiting.reason == "cloud default to tell what it wants"


def test_a_set_with_all_that_any_cloud_needs_goes_to_an_unidentified_one() -> None:
    for image in ("disk", "partition"):
        found = only(decide({"k.img": image, "k.vmlinuz": "kernel", "k.initrd": "ramdisk"}, UNIDENTIFIED))
        assert (len(found.members), found.waits) == (3, {})


def test_a_cloud_found_to_need_a_kernel_waits_alone_after_a_disk_went_elsewhere() -> None:
    before = only(decide(DISK, UNIDENTIFIED))
    found = only(decide(DISK, TWO, **finished(listing(DISK), before)))
    assert (found.virtualization, found.stamp) == ("hvm", before.stamp)
    assert found.waits["far"].startswith("a kernel: ")
    assert "k.vmlinuz" in found.waits["far"]
    assert not only(decide(DISK, HVM, **finished(listing(DISK), before))).waits


def test_before_a_disk_went_anywhere_all_identified_clouds_are_asked() -> None:
    found = only(decide(DISK, TWO))
    assert (found.virtualization, found.waits) == (None, {})
    assert found.from_image
    assert found.from_image.otherwise.startswith("a kernel: ")


def test_a_kernel_that_is_added_later_makes_another_set_for_all_clouds() -> None:
    before = only(decide(DISK, UNIDENTIFIED))
    files = {**DISK, "k.vmlinuz": "kernel", "k.initrd": "ramdisk"}
    found = only(decide(files, TWO, **finished(listing(files), before)))
    assert set(members(found)) == {"machine", "kernel", "ramdisk"}
    assert not found.waits


def test_the_kernel_in_an_image_counts_for_an_unidentified_cloud_too() -> None:
    rules = replace(UNIDENTIFIED, disk_alone=frozenset())
    found = only(decide({"k.img": "disk"}, rules))
    assert found.from_image is not None
    assert not found.waits
