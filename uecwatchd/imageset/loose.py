"""The loose trio: a machine image beside a kernel and a ramdisk that carry one version in their names."""

from collections.abc import Iterable, Mapping, Sequence

from uecwatchd import image
from uecwatchd.errors import Rejected
from uecwatchd.image import Role
from uecwatchd.imageset.draft import Claims, Draft, is_loose, role_of
from uecwatchd.imageset.outcome import ROLE_WORDS
from uecwatchd.spool import Listing, Stamp


def loose_files(
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


def loose_pair(
    listing: Listing,
    draft: Draft,
    pool: Mapping[str, Mapping[Role, list[str]]],
    taken: Mapping[str, Sequence[tuple[str, Stamp]]],
) -> dict[Role, str]:
    """The one pair of kernel and ramdisk of one version that an image may take; nothing if there is none."""
    pairs = [_pair(version, found) for version, found in sorted(pool.items())]
    pairs = [pair for pair in pairs if set(pair) == {"kernel", "ramdisk"}]
    mine = [pair for pair in pairs if _is_taken(listing, pair, taken.get(draft.name, ()))]
    others = [stamps for name, stamps in taken.items() if name != draft.name]
    free = [pair for pair in pairs if not any(_is_taken(listing, pair, stamps) for stamps in others)]
    candidates = mine or free or pairs
    if len(candidates) > 1:
        names = ", ".join(pair["kernel"] for pair in candidates)
        raise Rejected(
            f"{draft.name}: more than one kernel could be meant",
            f"{names} lie beside it, each with a ramdisk",
            f'Name one in {draft.name}.toml: kernel = "…", ramdisk = "…".',
        )
    return candidates[0] if candidates else {}


def _pair(version: str, found: Mapping[Role, list[str]]) -> dict[Role, str]:
    for role, names in found.items():
        if len(names) > 1:
            raise Rejected(
                f"two {ROLE_WORDS[role]}s of version {version or 'unknown'}",
                " and ".join(names) + " could both be meant",
                "Remove one, or name one in a sidecar.",
            )
    return {role: names[0] for role, names in found.items()}


def _is_taken(listing: Listing, pair: Mapping[Role, str], stamps: Sequence[tuple[str, Stamp]]) -> bool:
    return all((path, listing.entries[path].stamp) in stamps for path in pair.values())
