"""The members of a set: each file must be suitable for its role, and they must fit together."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from uecwatchd.errors import Rejected, UecError
from uecwatchd.images import suitability
from uecwatchd.images.detect import CONTAINERS
from uecwatchd.images.file_facts import Facts
from uecwatchd.images.reading import whole
from uecwatchd.images.suitability import COMPRESSORS
from uecwatchd.intake.sets.candidates import SetCandidate
from uecwatchd.intake.sets.records import ROLE_WORDS, ROLES, Member
from uecwatchd.intake.sets.requirements import sidecar_name
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool.scan import Listing
from uecwatchd.types import Role


def members_of(listing: Listing, roles: Mapping[Role, str], sidecar: Sidecar) -> tuple[Member, ...]:
    """Return the members from the file of each role. Raises the error of an unsuitable file."""
    return tuple(_member(listing, role, roles[role], sidecar) for role in ROLES if role in roles)


def _member(listing: Listing, role: Role, path: str, sidecar: Sidecar) -> Member:
    """Return one member. Raises an error if the file cannot be used in its role."""
    entry, content = listing.entries[path], listing.facts.get(path)
    if isinstance(content, UecError):
        raise content
    if content is None:
        raise Rejected(
            f"{path}: it cannot be a {ROLE_WORDS[role]}",
            "by its name it is metadata",
            "Name the image itself in the sidecar.",
        )
    keep = sidecar.convert == "keep"
    if problem := suitability.reason_unsuitable(
        role, content, size=entry.size, keep=keep, name=path, in_set=True
    ):
        why, hint = problem
        raise Rejected(f"{path}: it cannot be the set's {ROLE_WORDS[role]}", why, hint)
    disk = content.disk if role == "machine" and not keep else None
    size = disk.size or entry.size if disk else entry.size
    how = "disk" if disk else "file"
    if role == "machine" and sidecar.prepare and not keep and sidecar.platform == "linux":
        how = "prepared"
    return Member(role, path, size, entry.stamp, content, how, _container(content) if disk else "")


def _container(content: Facts) -> str:
    """Return what a file is whose disk is the image: "qcow2", "xz", or "qcow2 in xz"."""
    is_both = content.format in COMPRESSORS and content.inside in CONTAINERS
    return f"{content.inside} in {content.format}" if is_both else content.format


def with_size(member: Member, size: int) -> Member:
    """Return a member with the size of its image in bytes, known from reading.

    Raises Rejected if a disk with that content should be larger. A part of a disk is not compared: what is
    known of the content is known of the whole.
    """
    if member.reading != whole(member.reading):
        return replace(member, size=size)
    disk = member.facts.disk
    if disk is None:
        return member
    found = replace(disk, size=size)
    if problem := suitability.reason_unsuitable_disk(member.facts, found):
        raise Rejected(f"{member.path}: it cannot be the set's {ROLE_WORDS[member.role]}", *problem)
    return replace(member, size=size, facts=replace(member.facts, disk=found))


def check_compatible(candidate: SetCandidate, sidecar: Sidecar, members: Iterable[Member]) -> None:
    check_named_members(candidate, sidecar, members)
    there = {member.role: member for member in members}
    _check_floppy(sidecar, there)
    if sidecar.platform == "windows" or not {"kernel", "ramdisk"} <= there.keys():
        return
    ramdisk = there["ramdisk"]
    if problem := suitability.reason_incompatible(there["kernel"].facts, ramdisk.facts):
        raise Rejected(f"{ramdisk.path}: it cannot be the ramdisk of {there['kernel'].name}", *problem)


def _check_floppy(sidecar: Sidecar, there: Mapping[Role, Member]) -> None:
    """Raise Rejected for a ramdisk that memdisk cannot start."""
    kernel, ramdisk = there.get("kernel"), there.get("ramdisk")
    is_memdisk = kernel.facts.format == "memdisk" if kernel else sidecar.platform == "windows"
    if ramdisk and is_memdisk and (problem := suitability.reason_no_floppy(ramdisk.facts, ramdisk.size)):
        raise Rejected(f"{ramdisk.path}: it cannot be the boot floppy", *problem)


def check_named_members(candidate: SetCandidate, sidecar: Sidecar, members: Iterable[Member]) -> None:
    names = {member.name for member in members}
    if candidate.form == "archive":
        names.add(candidate.base.rstrip("/"))
    check_summed(candidate, sidecar, names)


def check_summed(candidate: SetCandidate, sidecar: Sidecar, names: Collection[str]) -> None:
    """Check that sums are for files of the set: one for another file would check nothing."""
    for name in dict(sidecar.sha256):
        if name not in names:
            raise Rejected(
                f"{candidate.name}: sha256 names {name}",
                f"that is not a file of this set, which has {', '.join(sorted(names))}",
                f"Correct the name in {sidecar_name(candidate)}.",
            )
