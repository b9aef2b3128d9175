"""What a machine image needs beside it, where it is to be registered."""

from collections.abc import Iterable, Mapping

from uecwatchd.errors import Rejected
from uecwatchd.image import Facts, Role
from uecwatchd.imageset.draft import Draft, named_files
from uecwatchd.imageset.outcome import Member, NotYet, Rules
from uecwatchd.sidecar import FROM_IMAGE, NONE, Sidecar
from uecwatchd.spool import Listing


def boots_alone(listing: Listing, sidecar: Sidecar, roles: Mapping[Role, str], rules: Rules) -> bool:
    """Whether the machine image boots by itself on every cloud of its set: then nothing else is registered.

    A whole disk with nothing to boot it with can be meant in no other way.
    """
    if "machine" not in roles or not rules.disk_alone.issuperset(sidecar.clouds):
        return False
    if sidecar.virtualization:
        return sidecar.virtualization == "hvm"
    if sidecar.platform == "windows":
        return not any(rules.windows_needs[cloud] for cloud in sidecar.clouds)
    peek = listing.peeks.get(roles["machine"])
    is_disk = isinstance(peek, Facts) and peek.layout == "disk"
    return is_disk and set(roles) == {"machine"} and {sidecar.kernel, sidecar.ramdisk} <= {None, NONE}


def missing(sidecar: Sidecar, roles: Mapping[Role, str], rules: Rules) -> set[Role]:
    """What a machine image that does not boot alone still lacks."""
    if "machine" not in roles:
        return set()
    needs = rules.windows_needs if sidecar.platform == "windows" else rules.needs
    wanted = {role for cloud in sidecar.clouds for role in needs[cloud]}
    if "kernel" in roles:
        # A kernel of the set's own seldom finds its root without one: rather asked than missed.
        wanted.add("ramdisk")
    if sidecar.kernel == NONE:
        wanted.discard("ramdisk")  # it boots nothing by itself; a cloud that takes no such image says so
    told = {"kernel": sidecar.kernel, "ramdisk": sidecar.ramdisk}
    return {role for role in wanted if role not in roles and told.get(role) in (None, FROM_IMAGE)}


def must_be_complete(draft: Draft, sidecar: Sidecar, roles: Mapping[Role, str], rules: Rules) -> None:
    """Raises NotYet, saying what to add."""
    if "machine" not in roles and not _registers_alone(sidecar, roles):
        raise NotYet(_no_machine(draft))
    lacking = missing(sidecar, roles, rules)
    if unknown := next((cloud for cloud in sidecar.clouds if lacking and cloud in rules.strange), None):
        why = rules.strange[unknown]
        raise NotYet(f"cloud {unknown} to tell what it wants{f' ({why})' if why else ''}")
    if "kernel" in lacking:
        raise NotYet(_no_kernel(draft, sidecar, rules))
    if "ramdisk" in lacking:
        raise NotYet(_no_ramdisk(draft, sidecar, roles))


def must_be_whole_disk(sidecar: Sidecar, members: Iterable[Member]) -> None:
    """Raises Rejected for a lone partition: nothing in it starts a machine by itself."""
    machine = next(member for member in members if member.role == "machine")
    if machine.facts.layout == "partition" and sidecar.convert != "keep":
        raise Rejected(
            f"{machine.path}: it cannot boot by itself",
            "it is a partition without a boot sector and a partition table",
            'Drop a whole disk, or add kernel and ramdisk and say virtualization = "paravirtual".',
        )


def sidecar_name(draft: Draft) -> str:
    return draft.sidecars[0].rsplit("/", 1)[-1] if draft.sidecars else "the configuration's [defaults]"


def _no_kernel(draft: Draft, sidecar: Sidecar, rules: Rules) -> str:
    metadata = _companion(draft, "toml")
    if sidecar.platform == "windows":
        return (
            "a kernel: such a cloud boots Windows through memdisk and a boot floppy "
            f'(say kernel = "memdisk" and ramdisk = "…" in {metadata})'
        )
    add = _companion(draft, "vmlinuz")
    if sidecar.virtualization == "hvm":
        unable = ", ".join(sorted(set(sidecar.clouds) - rules.disk_alone))
        return (
            f"a kernel: no disk boots by itself on cloud {unable} "
            f'(add {add}, or say kernel = "eki-…" or kernel = "none" in {metadata})'
        )
    alone = rules.disk_alone.issuperset(sidecar.clouds)
    others = 'kernel = "none" or virtualization = "hvm"' if alone else 'kernel = "none"'
    return (
        "a kernel: a paravirtual image boots only with one "
        f'(add {add}, or say kernel = "eki-…", {others} in {metadata})'
    )


def _no_ramdisk(draft: Draft, sidecar: Sidecar, roles: Mapping[Role, str]) -> str:
    kernel = roles.get("kernel", sidecar.kernel or "the kernel").rsplit("/", 1)[-1]
    return (
        f"a ramdisk to go with {kernel} (add {_companion(draft, 'initrd')}, "
        f'or say ramdisk = "none" in {_companion(draft, "toml")})'
    )


def _registers_alone(sidecar: Sidecar, roles: Mapping[Role, str]) -> bool:
    """A sidecar may name a kernel or a ramdisk and nothing else: then only that is registered."""
    named = named_files(sidecar)
    return "machine" not in named and bool(named) and set(named) == set(roles)


def _no_machine(draft: Draft) -> str:
    if draft.form == "folder":
        return f"a machine image in {draft.name}/"
    if draft.form == "sidecar":
        return f'a machine image (add {draft.name}.img, or say machine = "…" in {sidecar_name(draft)})'
    return f"a machine image (add {draft.name}.img)"


def _companion(draft: Draft, suffix: str) -> str:
    if draft.form != "folder":
        return f"{draft.name}.{suffix}"
    return f"{draft.name}/image.toml" if suffix == "toml" else f"{draft.name}/{suffix}"
