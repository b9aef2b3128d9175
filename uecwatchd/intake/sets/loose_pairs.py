"""Loose pairs: a kernel and a ramdisk with one version in their names, beside a machine image."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from uecwatchd.errors import Rejected
from uecwatchd.images import file_names
from uecwatchd.intake.sets.candidates import Claims, SetCandidate, is_loose, role_of
from uecwatchd.intake.sets.records import ROLE_WORDS, Rules
from uecwatchd.intake.sets.requirements import missing_roles, place_for, sidecar_lines
from uecwatchd.intake.sets.roles import first_fitting
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool.scan import Listing
from uecwatchd.types import FileStamp, Role


@dataclass(frozen=True, slots=True)
class LoosePair:
    """Kernels and ramdisks with `pairing` in their names: a version, "linux", or nothing.

    `holders` are the finished sets that use each file.
    """

    pairing: str
    kernels: tuple[str, ...]
    ramdisks: tuple[str, ...]
    holders: Mapping[str, frozenset[str]]

    @property
    def users(self) -> frozenset[str]:
        """The finished sets that use one of its kernels together with one of its ramdisks."""
        kernels, ramdisks = (
            frozenset[str]().union(*(self.holders[path] for path in paths))
            for paths in (self.kernels, self.ramdisks)
        )
        return kernels & ramdisks

    @property
    def rank(self) -> int:
        """Order of preference: a pair with a version, then one without. A spare one is used by nobody."""
        if any(file_names.is_spare(path) for path in (*self.kernels, *self.ramdisks)):
            return 2
        return 0 if file_names.is_versioned(self.pairing) else 1


SPARE_RANK = 2
BOOT_ROLES = {"kernel", "ramdisk"}


def find_loose_pairs(
    listing: Listing,
    candidates: Iterable[SetCandidate],
    claims: Claims,
    taken: Mapping[str, Sequence[tuple[str, FileStamp]]],
) -> tuple[LoosePair, ...]:
    """Return the pairs for all images, found once: each pairing with both a kernel and a ramdisk."""
    holders: dict[tuple[str, FileStamp], set[str]] = {}
    for name, files in taken.items():
        for file in files:
            holders.setdefault(file, set()).add(name)
    pool = _loose_files(listing, candidates, claims)
    return tuple(
        _loose(listing, pairing, found, holders)
        for pairing, found in sorted(pool.items())
        if found.keys() >= {"kernel", "ramdisk"}
    )


def find_halves(listing: Listing, candidates: Iterable[SetCandidate], claims: Claims) -> frozenset[str]:
    """Return loose kernels without a ramdisk, and ramdisks without a kernel: the rest may still be copied."""
    pool = _loose_files(listing, candidates, claims).values()
    halves = (paths for found in pool if len(found) == 1 for paths in found.values())
    return frozenset(path for paths in halves for path in paths if not file_names.is_spare(path))


def boot_folders(listing: Listing, candidates: Iterable[SetCandidate]) -> tuple[str, ...]:
    """Return folders with a kernel and a ramdisk, and without an image."""
    return tuple(
        candidate.name
        for candidate in candidates
        if candidate.form == "folder"
        and {role_of(listing, path) for path in candidate.paths} - {None} == BOOT_ROLES
    )


def _loose(
    listing: Listing,
    pairing: str,
    found: Mapping[Role, list[str]],
    holders: Mapping[tuple[str, FileStamp], set[str]],
) -> LoosePair:
    paths = [*found["kernel"], *found["ramdisk"]]
    held = {path: frozenset(holders.get((path, listing.entries[path].stamp), ())) for path in paths}
    kernels, ramdisks = (tuple(_usable(listing, role, found[role])) for role in ("kernel", "ramdisk"))
    return LoosePair(pairing, kernels, ramdisks, held)


def _usable(listing: Listing, role: Role, paths: list[str]) -> list[str]:
    """Return the files fit for the role; if there are none, return all, so that one is reported."""
    return [path for path in paths if first_fitting(listing, role, [path])] or paths


def _loose_files(
    listing: Listing, candidates: Iterable[SetCandidate], claims: Claims
) -> dict[str, dict[Role, list[str]]]:
    """Return kernels and ramdisks in the spool itself, in no sidecar and no stem, by pairing."""
    pool: dict[str, dict[Role, list[str]]] = {}
    bound = {path for candidate in candidates for path in candidate.paths}
    for entry in sorted(listing.top(), key=lambda entry: entry.name):
        role = role_of(listing, entry.name)
        if not is_loose(entry.name) or entry.name in claims or entry.name in bound or role is None:
            continue
        pool.setdefault(file_names.pairing_by_name(entry.name), {}).setdefault(role, []).append(entry.name)
    return pool


def add_loose_pair(
    candidate: SetCandidate,
    roles: dict[Role, str],
    sidecar: Sidecar,
    loose: Sequence[LoosePair],
    rules: Rules,
) -> tuple[SetCandidate, dict[Role, str]]:
    """Give a set without a kernel the loose kernel and ramdisk beside it, if there are any."""
    lacking = missing_roles(sidecar, roles, rules)
    if "kernel" not in lacking or sidecar.kernel or candidate.form not in ("stem", "sidecar"):
        return candidate, roles
    pair = choose_loose_pair(candidate, loose)
    candidate = replace(candidate, form="loose") if pair and candidate.form == "stem" else candidate
    return candidate, {**roles, **pair}


def choose_loose_pair(candidate: SetCandidate, pairs: Iterable[LoosePair]) -> Mapping[Role, str]:
    """Return the pair of kernel and ramdisk that an image uses; empty if there is none.

    Raises Rejected if there is more than one. Files that cannot be for the image do not matter.
    """
    pairs = list(pairs)
    for pair in pairs:
        if candidate.name in pair.users:
            return _pair_in_use(candidate.name, pair)
    meant = [pair for pair in pairs if pair.rank < SPARE_RANK]
    unused = [pair for pair in meant if not pair.users] or meant
    best = min((pair.rank for pair in unused), default=0)
    unused = [pair for pair in unused if pair.rank == best]
    if len(unused) > 1:
        raise _more_than_one(candidate, unused)
    return _only_files(candidate, unused[0]) if unused else {}


def _pair_in_use(name: str, pair: LoosePair) -> Mapping[Role, str]:
    """Return the pair of a finished image, which keeps it."""
    kernel, ramdisk = (
        next(path for path in paths if name in pair.holders[path]) for paths in (pair.kernels, pair.ramdisks)
    )
    return {"kernel": kernel, "ramdisk": ramdisk}


def _more_than_one(candidate: SetCandidate, unused: Sequence[LoosePair]) -> Rejected:
    return Rejected(
        f"{candidate.name}: more than one kernel could be meant",
        f"{', '.join(pair.kernels[0] for pair in unused)} are beside it, each with a ramdisk",
        f"Name one in {place_for(candidate)}: {_proposal(candidate, unused[0])}.",
    )


def _only_files(candidate: SetCandidate, pair: LoosePair) -> Mapping[Role, str]:
    several: tuple[tuple[Role, tuple[str, ...]], ...] = (("kernel", pair.kernels), ("ramdisk", pair.ramdisks))
    for role, paths in several:
        if len(paths) > 1:
            raise Rejected(
                f"two {ROLE_WORDS[role]}s of version {pair.pairing or 'unknown'}",
                f"{' and '.join(paths)} could both be meant for {candidate.name}",
                f"Name one in {place_for(candidate)}: {_proposal(candidate, pair)}.",
            )
    return {"kernel": pair.kernels[0], "ramdisk": pair.ramdisks[0]}


def _proposal(candidate: SetCandidate, pair: LoosePair) -> str:
    return sidecar_lines(candidate, {"kernel": pair.kernels[0], "ramdisk": pair.ramdisks[0]})
