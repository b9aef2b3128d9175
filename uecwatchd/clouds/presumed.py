"""What a cloud is taken for until it has been asked."""

from collections.abc import Mapping

from uecwatchd.clouds.dialects import DIALECTS, UEC, Dialect
from uecwatchd.config.records import CloudSettings
from uecwatchd.types import DetectedCloud


def assume_dialects(
    clouds: Mapping[str, CloudSettings], before: Mapping[str, DetectedCloud]
) -> Mapping[str, Dialect]:
    """What clouds are taken for until they are asked: what is configured, or what was found the last time, or
    the generation that wants the most of a set."""
    remembered = {name: known.dialect for name, known in before.items()}
    return {
        name: DIALECTS.get(settings.dialect) or DIALECTS.get(remembered.get(name, "")) or UEC
        for name, settings in clouds.items()
    }


def undetected(clouds: Mapping[str, CloudSettings], before: Mapping[str, DetectedCloud]) -> tuple[str, ...]:
    """Those of which the configuration says nothing and nothing was found earlier."""
    return tuple(n for n, one in clouds.items() if one.dialect not in DIALECTS and n not in before)
