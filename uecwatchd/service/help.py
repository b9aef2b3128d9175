"""Work on sets of shared folders that another host scans.

A set is taken before its files are looked at: the host that scans has found them complete and settled. They
are listed here as well, because the rules make the set of them, and a set with other files is given back.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from uecwatchd.errors import UecError
from uecwatchd.intake.sets.records import ImageSet
from uecwatchd.ledger.sharing import Offer
from uecwatchd.service.spooler_parts import ConfiguredParts, LastingParts


def help_others(parts: LastingParts, setup: ConfiguredParts) -> None:
    """Begin sets that another host offers, as far as there are free workers here."""
    free = parts.dispatcher.free
    if free <= 0 or parts.shared.look_in() > 0:
        return
    with suppress(UecError):  # the ledger is away, and that is reported once
        if offers := parts.shared.take_some(free):
            parts.requests.update()
            _begin(offers, parts, setup)


def _begin(offers: Iterable[Offer], parts: LastingParts, setup: ConfiguredParts) -> None:
    """Begin taken sets. Those that this host sees other files of, or none, are given back."""
    found: dict[Path, Mapping[str, ImageSet]] = {}
    for offer in offers:
        folder = Path(offer.set_id.folder)
        if folder not in found:
            with parts.conditions.guard(("folder", str(folder)), str(folder)):
                found[folder] = setup.scanner.find_sets(folder, parts.requests.open.cloud_holds)
        one = found.get(folder, {}).get(offer.set_id.name)
        is_same = one is not None and one.stamp == offer.stamp
        if one is None or not is_same or not parts.dispatcher.begin_taken(one, offer.size, setup.tools):
            parts.shared.give_back(offer.set_id)
