"""The dialect assumed of a cloud until it has been asked."""

from collections.abc import Mapping

from uecwatchd.clouds.dialects import DIALECTS, UEC, Dialect
from uecwatchd.config.records import CloudSettings
from uecwatchd.types import DetectedCloud


def assume_dialects(
    clouds: Mapping[str, CloudSettings], before: Mapping[str, DetectedCloud]
) -> Mapping[str, Dialect]:
    """Return a dialect for each cloud before it is asked: the configured one, the one found last time, or the
    generation with the strictest demands on a set.
    """
    remembered = {name: known.dialect for name, known in before.items()}
    return {
        name: DIALECTS.get(settings.dialect) or DIALECTS.get(remembered.get(name, "")) or UEC
        for name, settings in clouds.items()
    }


def undetected(clouds: Mapping[str, CloudSettings], before: Mapping[str, DetectedCloud]) -> tuple[str, ...]:
    """List the clouds without a configured dialect and without one that was found earlier."""
    return tuple(n for n, one in clouds.items() if one.dialect not in DIALECTS and n not in before)
