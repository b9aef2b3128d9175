"""Requirements of the clouds: the members that a machine image needs beside it."""

import json
from collections.abc import Iterable, Mapping, Set
from posixpath import basename

from uecwatchd.errors import Halted, Rejected
from uecwatchd.images.file_facts import Facts
from uecwatchd.intake.sets.candidates import SetCandidate, named_files
from uecwatchd.intake.sets.records import FromImage, Member, NotReady, Rules
from uecwatchd.intake.sidecar import FROM_IMAGE, NONE, Sidecar
from uecwatchd.intake.spool.scan import Listing
from uecwatchd.types import Role


def boots_alone(listing: Listing, sidecar: Sidecar, roles: Mapping[Role, str], rules: Rules) -> bool:
    """Return True if the machine image boots by itself on every cloud of its set: then only it is registered.

    This is the only possible meaning of a whole disk without boot files.
    """
    if "machine" not in roles or not rules.disk_alone.issuperset(sidecar.clouds):
        return False
    if sidecar.layout == "partition":
        return False
    if sidecar.virtualization:
        return sidecar.virtualization == "hvm"
    if sidecar.platform == "windows":
        return not any(rules.windows_needs[cloud] for cloud in sidecar.clouds)
    return (
        _is_disk(listing, roles)
        and set(roles) == {"machine"}
        and {sidecar.kernel, sidecar.ramdisk} <= {None, NONE}
    )


def _is_disk(listing: Listing, roles: Mapping[Role, str]) -> bool:
    content = listing.facts.get(roles.get("machine", ""))
    return isinstance(content, Facts) and content.layout == "disk"


def missing_roles(sidecar: Sidecar, roles: Mapping[Role, str], rules: Rules) -> set[Role]:
    """Return the roles that a machine image still lacks, if it does not boot alone."""
    if "machine" not in roles:
        return set()
    needs = rules.windows_needs if sidecar.platform == "windows" else rules.needs
    declared = {"kernel": sidecar.kernel, "ramdisk": sidecar.ramdisk}
    wanted = {role for cloud in sidecar.clouds for role in needs[cloud]} | _asked_of_image(sidecar)
    if "kernel" in roles:
        # A kernel in the set rarely finds its root without a ramdisk, so we ask for one.
        wanted.add("ramdisk")
    if sidecar.kernel == NONE:
        wanted.discard("ramdisk")  # useless without a kernel; a cloud that does not accept this reports it
    return {role for role in wanted if role not in roles and declared.get(role) in (None, FROM_IMAGE)}


def _asked_of_image(sidecar: Sidecar) -> set[Role]:
    named: Mapping[Role, str | None] = {"kernel": sidecar.kernel, "ramdisk": sidecar.ramdisk}
    return {role for role, name in named.items() if name == FROM_IMAGE}


def check_complete(
    listing: Listing,
    candidate: SetCandidate,
    sidecar: Sidecar,
    roles: Mapping[Role, str],
    rules: Rules,
    *,
    folders: Iterable[str],
    halves: Set[str],
) -> FromImage | None:
    """Return what has to come out of the machine image; None if nothing has to.

    `folders` are those with only kernels and ramdisks, `halves` kernels or ramdisks beside it without their
    counterpart. Raises NotReady, with what to add.
    """
    if "machine" not in roles and not _registers_alone(sidecar, roles):
        raise NotReady(_no_recipe(listing, candidate) or _no_machine(candidate, sidecar, roles))
    lacking = missing_roles(sidecar, roles, rules)
    if unknown := next((cloud for cloud in sidecar.clouds if lacking and cloud in rules.strange), None):
        raise unidentified(unknown, rules)
    asked = _asked_of_image(sidecar)
    # A kernel in the image brings its ramdisk, if it has one.
    both = frozenset(lacking if "ramdisk" in roles or sidecar.ramdisk else {*lacking, "ramdisk"})
    if "kernel" in asked:
        return FromImage(both)
    if lacking <= asked:
        return FromImage(frozenset(lacking)) if lacking else None
    alone = rules.disk_alone.issuperset(sidecar.clouds) and _is_disk(listing, roles)
    reason = lacking_reason(candidate, sidecar, roles, rules, alone=alone)
    if "kernel" not in lacking:
        raise NotReady(reason, lacking=lacking)
    elsewhere = _elsewhere(listing, candidate, folders)
    # Where other files may be meant for it, those of the image are not: its kernel is still being copied.
    if elsewhere or halves or "ramdisk" in roles or not _may_use_its_kernel(listing, roles, sidecar):
        raise NotReady(reason + elsewhere, lacking=lacking)
    return FromImage(both, reason)


def lacking_reason(
    candidate: SetCandidate,
    sidecar: Sidecar,
    roles: Mapping[Role, str],
    rules: Rules,
    *,
    alone: bool = False,
) -> str:
    """Return what to add for the clouds of a set; `alone` is True if they would boot its disk alone."""
    if missing_roles(sidecar, roles, rules) == {"ramdisk"}:
        return _no_ramdisk(candidate, sidecar, roles, rules)
    return _no_kernel(candidate, sidecar, rules, alone=alone)


def _may_use_its_kernel(listing: Listing, roles: Mapping[Role, str], sidecar: Sidecar) -> bool:
    """Return True for a paravirtual Linux whose kernel and ramdisk are named by nobody."""
    content = listing.facts.get(roles["machine"])
    is_disk = isinstance(content, Facts) and content.layout is not None
    is_linux = sidecar.platform == "linux" and sidecar.virtualization != "hvm"
    return is_disk and is_linux and sidecar.ramdisk is None and sidecar.convert != "keep"


def check_configured(candidate: SetCandidate, sidecar: Sidecar, rules: Rules) -> None:
    """Raise Rejected, or Halted because of [defaults], for a cloud that is not configured.

    Rejected as well if no cloud is required: then nothing would tell that the set is done.
    """
    if set(sidecar.clouds) <= set(sidecar.best_effort):
        raise Rejected(
            f"{candidate.name}: no cloud is required",
            f"`best_effort` has all of its clouds: {', '.join(sidecar.clouds)}",
            "Leave at least one of them out of `best_effort`.",
        )
    unknown = next(
        (cloud for cloud in (*sidecar.clouds, *sidecar.best_effort) if cloud not in rules.needs), None
    )
    if unknown is None:
        return
    what = f"{candidate.name}: there is no cloud named {unknown}"
    why = f"the configuration has {', '.join(sorted(rules.needs)) or 'none at all'}"
    if sidecar.clouds == rules.defaults.clouds:
        raise Halted(what, why, f"Add [cloud.{unknown}] to the configuration; see its example.")
    key = "clouds" if unknown in sidecar.clouds else "best_effort"
    raise Rejected(what, why, f"Change `{key}` in the sidecar, or ask for the cloud to be configured.")


def check_identified(sidecar: Sidecar, rules: Rules) -> None:
    """Raise NotReady if it is known of no cloud of the set what it requires."""
    if rules.strange.keys() >= set(sidecar.clouds):
        raise unidentified(sidecar.clouds[0], rules)


def unidentified(cloud: str, rules: Rules) -> NotReady:
    """Return the wait for a cloud with unknown requirements."""
    why = rules.strange[cloud]
    return NotReady(f"cloud {cloud} to tell what it wants{f' ({why})' if why else ''}")


def check_whole_disk(sidecar: Sidecar, members: Iterable[Member]) -> None:
    """Raise Rejected for a partition without boot files: it cannot start a machine."""
    machine = next(member for member in members if member.role == "machine")
    if machine.facts.layout == "partition" and sidecar.convert != "keep":
        raise Rejected(
            f"{machine.path}: it cannot boot by itself",
            "it is a partition without a boot sector and a partition table",
            'Drop a whole disk, or add kernel and ramdisk and say virtualization = "paravirtual".',
        )


def place_for(candidate: SetCandidate) -> str:
    """Return the name of a set's sidecar, even if it does not exist yet."""
    return basename(_file_beside(candidate, "toml"))


def sidecar_lines(candidate: SetCandidate, named: Mapping[Role, str]) -> str:
    """Return lines for that sidecar that name files. Strings in JSON are also valid in TOML."""
    quoted = {role: json.dumps(basename(path), ensure_ascii=False) for role, path in named.items()}
    if place_for(candidate).lower().endswith(".json"):
        return ", ".join(f'"{role}": {name}' for role, name in quoted.items())
    return " and, on a line of its own, ".join(f"{role} = {name}" for role, name in quoted.items())


def sidecar_name(candidate: SetCandidate) -> str:
    return basename(candidate.sidecars[0]) if candidate.sidecars else "the configuration's [defaults]"


def _no_kernel(candidate: SetCandidate, sidecar: Sidecar, rules: Rules, *, alone: bool) -> str:
    """Return what to do about a missing kernel; `alone` is True if its clouds would boot the disk alone."""
    metadata = _file_beside(candidate, "toml")
    ways = ['kernel = "eki-…"']
    if alone or not _demanded("kernel", sidecar, rules):
        ways.append('kernel = "none"')
    if alone:
        ways.append('virtualization = "hvm"')
    why = "a paravirtual image boots only with one"
    if sidecar.virtualization == "hvm":
        unable = ", ".join(sorted(set(sidecar.clouds) - rules.disk_alone))
        why = f"no disk boots by itself on cloud {unable}"
    choices = f"{', '.join(ways[:-1])} or {ways[-1]}" if ways[1:] else ways[0]
    return f"a kernel: {why} (add {_file_beside(candidate, 'vmlinuz')}, or say {choices} in {metadata})"


def _demanded(role: Role, sidecar: Sidecar, rules: Rules) -> bool:
    return any(role in rules.demands.get(cloud, ()) for cloud in sidecar.clouds)


def _elsewhere(listing: Listing, candidate: SetCandidate, folders: Iterable[str]) -> str:
    """Return a hint about folders with kernels.

    Eucalyptus' archives have kvm-kernel/ and xen-kernel/: people must choose.
    """
    if candidate.form == "folder":
        inside = [path for path in candidate.paths if listing.entries[path].kind == "folder"]
        into = f"into {candidate.name}/"
    else:
        inside, into = list(folders), "beside it"
    if not inside:
        return ""
    named = " or ".join(f"{path}/" for path in inside)
    return f"; or move the kernel and ramdisk that it wants out of {named} {into}"


def _no_ramdisk(candidate: SetCandidate, sidecar: Sidecar, roles: Mapping[Role, str], rules: Rules) -> str:
    metadata = _file_beside(candidate, "toml")
    if sidecar.platform == "windows":
        folder = f"{candidate.base}bootfiles" if candidate.base else f"{candidate.name}-bootfiles"
        return (
            "a boot floppy: such a cloud boots Windows through memdisk and a floppy (copy ntldr, "
            f"ntdetect.com and sym_hi.sys into {folder}/, or add the floppy and say "
            f'ramdisk = "…" in {metadata})'
        )
    kernel = basename(roles.get("kernel", sidecar.kernel or "the kernel"))
    ways = [f"add {_file_beside(candidate, 'initrd')}"]
    if not _demanded("ramdisk", sidecar, rules):
        ways.append(f'say ramdisk = "none" in {metadata}')
    return f"a ramdisk to go with {kernel} ({', or '.join(ways)})"


def _registers_alone(sidecar: Sidecar, roles: Mapping[Role, str]) -> bool:
    """Return True if the sidecar names only a kernel or a ramdisk: then only that is registered."""
    named = named_files(sidecar)
    return "machine" not in named and bool(named) and set(named) == set(roles)


def _no_recipe(listing: Listing, candidate: SetCandidate) -> str:
    """Return what to write for the image of a CD; empty if there is none."""
    for path in candidate.paths:
        content = listing.facts.get(path)
        if isinstance(content, Facts) and content.format == "iso9660":
            iso = json.dumps(path.rsplit("/", 1)[-1], ensure_ascii=False)
            place = _file_beside(candidate, "toml")
            return f'a recipe: say iso = {iso} and disk = "…" under [install] in {place}'
    return ""


def _no_machine(candidate: SetCandidate, sidecar: Sidecar, roles: Mapping[Role, str]) -> str:
    if candidate.base:
        add = f"a machine image in {candidate.base if candidate.form == 'folder' else candidate.base[:-1]}"
    elif candidate.form == "sidecar":
        add = f'a machine image (add {candidate.name}.img, or say machine = "…" in {sidecar_name(candidate)})'
    else:
        add = f"a machine image (add {candidate.name}.img)"
    if taken := next((role for role, path in roles.items() if path == f"{candidate.name}.img"), None):
        add = f"a machine image beside {candidate.name}.img, which is a {taken} by its content"
    unnamed = {role: path for role, path in roles.items() if role not in named_files(sidecar)}
    if not unnamed:
        return add
    place = _file_beside(candidate, "toml")
    return f"{add}; to register what is there alone, say {sidecar_lines(candidate, unnamed)} in {place}"


def _file_beside(candidate: SetCandidate, suffix: str) -> str:
    if suffix == "toml" and candidate.sidecars:
        return candidate.sidecars[0]
    if not candidate.base or (candidate.form == "archive" and suffix == "toml"):
        return f"{candidate.name}.{suffix}"
    return f"{candidate.base}image.toml" if suffix == "toml" else f"{candidate.base}{suffix}"
