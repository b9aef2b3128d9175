"""The architecture of a set: from the sidecar, then from content, then from names."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from uecwatchd.errors import Rejected
from uecwatchd.images import file_names
from uecwatchd.images.file_facts import Facts
from uecwatchd.intake.sets.candidates import SetCandidate
from uecwatchd.intake.sets.records import Member
from uecwatchd.intake.sets.requirements import place_for
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.types import Arch

# How it is known, for the hint if a cloud does not accept it.
ArchSource = Literal["told", "content", "name", "nothing"]
USUAL: Arch = "x86_64"
# Hosts with the second run systems for the first, so both are allowed together.
FAMILY: Mapping[str, str] = {"i386": "x86", "x86_64": "x86"}


def arch_of(candidate: SetCandidate, sidecar: Sidecar, members: Sequence[Member]) -> tuple[Arch, ArchSource]:
    """Return the architecture and how it is known. Raises Rejected if files, sidecar or names disagree."""
    families = {member: family for member in members if (family := _family(member.facts))}
    _check_agreement(candidate, families)
    if sidecar.arch:
        _check_declared(candidate, sidecar.arch, families)
        return sidecar.arch, "told"
    if exact := [member.facts.arch for member in members if member.facts.arch]:
        return exact[0], "content"
    named = _named(candidate, members)
    if families:  # a kernel for x86 that is older than the flag for 64 bits
        return next((arch for arch in named if FAMILY.get(arch, arch) in families.values()), USUAL), "content"
    if len({FAMILY.get(arch, arch) for arch in named}) > 1:
        raise _of_several(candidate, named)
    return (named[0], "name") if named else (USUAL, "nothing")


def _family(facts: Facts) -> str | None:
    if facts.arch is None:
        return "x86" if facts.format in ("bzimage", "memdisk") else None
    return FAMILY.get(facts.arch, facts.arch)


def _check_agreement(candidate: SetCandidate, families: Mapping[Member, str]) -> None:
    (first, *others) = families or (None,)
    other = next((member for member in others if first and families[member] != families[first]), None)
    if first and other:
        raise Rejected(
            f"{candidate.name}: its files are for different architectures",
            f"{first.name} is for {_own(first)}, {other.name} for {_own(other)}",
            "Replace one of them.",
        )


def _own(member: Member) -> str:
    return member.facts.arch or _family(member.facts) or ""


def _check_declared(candidate: SetCandidate, declared: Arch, families: Mapping[Member, str]) -> None:
    if member := next(
        (m for m, family in families.items() if family != FAMILY.get(declared, declared)), None
    ):
        raise Rejected(
            f"{candidate.name}: it cannot be for {declared}",
            f"arch says so, and {member.name} says that it is for {_own(member)}",
            f'Say arch = "{member.facts.arch or USUAL}" in {place_for(candidate)}.',
        )


def _named(candidate: SetCandidate, members: Sequence[Member]) -> list[Arch]:
    """Return the architectures in names, the machine image's first.

    A name with both i386 and x86_64 is not used.
    """
    names: Iterable[str] = (*(member.name for member in reversed(members)), candidate.name)
    found = (sorted(file_names.arches_by_name(name)) for name in names)
    return list(dict.fromkeys(arch for arches in found if set(arches) != set(FAMILY) for arch in arches))


def _of_several(candidate: SetCandidate, named: Sequence[Arch]) -> Rejected:
    return Rejected(
        f"{candidate.name}: its architecture is not known",
        f"names have {' and '.join(named)}, and nothing in the files says which",
        f'Say arch = "{named[0]}" in {place_for(candidate)}, or another.',
    )
