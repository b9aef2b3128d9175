"""Clouds that a set does not go to yet, while it goes to its others.

A set is judged by what is known: it is complete if the identified clouds take it, or those that have taken
these very files already. Each other cloud takes the set as it is, or waits alone, with a reason of its own.
So a whole disk that was registered elsewhere never reaches a cloud that is found to need a kernel.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from uecwatchd.intake.sets.candidates import SetCandidate
from uecwatchd.intake.sets.records import FromImage, Rules, WindowsBoot
from uecwatchd.intake.sets.requirements import boots_alone, lacking_reason, missing_roles, unidentified
from uecwatchd.intake.sidecar import Sidecar
from uecwatchd.intake.spool.scan import Listing
from uecwatchd.types import Role


def judged_by(sidecar: Sidecar, rules: Rules, taken_on: Collection[str]) -> Sidecar:
    """Return the sidecar with those of its clouds that decide whether the set is complete.

    `taken_on` are the clouds that have the set with these very files.
    """
    identified = tuple(cloud for cloud in sidecar.clouds if cloud not in rules.strange)
    finished = tuple(cloud for cloud in sidecar.clouds if cloud in taken_on)
    return replace(sidecar, clouds=finished or identified or sidecar.clouds)


def waits_of(
    listing: Listing,
    candidate: SetCandidate,
    sidecar: Sidecar,
    judged: Sidecar,
    roles: Mapping[Role, str],
    rules: Rules,
    *,
    alone: bool,
) -> Mapping[str, str]:
    """Return the clouds that cannot take the set as it is, each with what is waited for.

    `roles` are all that the set will have, and `alone` is True if its disk is to boot by itself.
    """
    waits: dict[str, str] = {}
    for cloud in sidecar.clouds:
        if cloud in judged.clouds:
            continue
        one = replace(sidecar, clouds=(cloud,))
        if boots_alone(listing, one, roles, rules) if alone else not missing_roles(one, roles, rules):
            continue
        strange = unidentified(cloud, rules) if cloud in rules.strange else None
        waits[cloud] = strange.reason if strange else lacking_reason(candidate, one, roles, rules)
    return waits


def all_roles(
    roles: Mapping[Role, str], made: WindowsBoot | None, from_image: FromImage | None
) -> Mapping[Role, str]:
    """Return the files of a set with those that are made for it, or taken out of its image."""
    taken: dict[Role, str] = dict.fromkeys(from_image.roles, "") if from_image else {}
    return {**roles, **(made.roles if made else {}), **taken}
