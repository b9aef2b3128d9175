"""The loose trio: a machine image beside a kernel and a ramdisk that carry one version in their names."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from uecwatchd import image
from uecwatchd.errors import Rejected
from uecwatchd.image import Role
from uecwatchd.imageset.draft import Claims, Draft, is_loose, role_of
from uecwatchd.imageset.outcome import ROLE_WORDS
from uecwatchd.spool import Listing, Stamp


@dataclass(frozen=True, slots=True)
class Pair:
    """Kernel and ramdisk of one version, and the names of the finished sets that were made of both."""

    files: Mapping[Role, str]
    holders: frozenset[str]


@dataclass(frozen=True, slots=True)
class Loose:
    """What an image may take, found once for all images; `trouble` is what stands in the way of all of it."""

    pairs: tuple[Pair, ...] = ()
    trouble: Rejected | None = None


def loose_pairs(
    listing: Listing,
    drafts: Iterable[Draft],
    claims: Claims,
    taken: Mapping[str, Sequence[tuple[str, Stamp]]],
) -> Loose:
    pool = _loose_files(listing, drafts, claims)
    try:
        pairs = [_pair(version, found) for version, found in sorted(pool.items())]
    except Rejected as error:
        return Loose(trouble=error)
    holders: dict[tuple[str, Stamp], set[str]] = {}
    for name, files in taken.items():
        for file in files:
            holders.setdefault(file, set()).add(name)
    complete = [pair for pair in pairs if set(pair) == {"kernel", "ramdisk"}]
    return Loose(tuple(Pair(pair, _holders_of(listing, pair, holders)) for pair in complete))


def _loose_files(
    listing: Listing, drafts: Iterable[Draft], claims: Claims
) -> dict[str, dict[Role, list[str]]]:
    """Kernels and ramdisks in the spool itself that no sidecar names and no stem binds, by version."""
    pool: dict[str, dict[Role, list[str]]] = {}
    bound = {path for draft in drafts for path in draft.paths}
    for entry in sorted(listing.top(), key=lambda entry: entry.name):
        role = role_of(listing, entry.name)
        if not is_loose(entry.name) or entry.name in claims or entry.name in bound or role is None:
            continue
        version = image.version_by_name(entry.name) or ""
        pool.setdefault(version, {}).setdefault(role, []).append(entry.name)
    return pool


def loose_pair(draft: Draft, loose: Loose) -> Mapping[Role, str]:
    """The one pair of kernel and ramdisk of one version that an image may take; nothing if there is none."""
    if loose.trouble:
        raise loose.trouble
    mine = [pair for pair in loose.pairs if draft.name in pair.holders]
    free = [pair for pair in loose.pairs if not pair.holders - {draft.name}]
    candidates = mine or free or loose.pairs
    if len(candidates) > 1:
        names = ", ".join(pair.files["kernel"] for pair in candidates)
        raise Rejected(
            f"{draft.name}: more than one kernel could be meant",
            f"{names} lie beside it, each with a ramdisk",
            f'Name one in {draft.name}.toml: kernel = "…", ramdisk = "…".',
        )
    return candidates[0].files if candidates else {}


def _pair(version: str, found: Mapping[Role, list[str]]) -> dict[Role, str]:
    for role, names in found.items():
        if len(names) > 1:
            raise Rejected(
                f"two {ROLE_WORDS[role]}s of version {version or 'unknown'}",
                " and ".join(names) + " could both be meant",
                "Remove one, or name one in a sidecar.",
            )
    return {role: names[0] for role, names in found.items()}


def _holders_of(
    listing: Listing, pair: Mapping[Role, str], holders: Mapping[tuple[str, Stamp], set[str]]
) -> frozenset[str]:
    files = ((path, listing.entries[path].stamp) for path in pair.values())
    return frozenset(set.intersection(*(holders.get(file, set()) for file in files)))
