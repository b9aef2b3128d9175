"""What an administrator has set, wherever it was set, and what is wrong with it in words."""

from uecwatchd.settings.layers import SECTIONS, keys_of, load
from uecwatchd.settings.records import (
    REGION,
    CloudSettings,
    Compression,
    Settings,
    SpoolSettings,
    StateSettings,
    Verify,
    WorkSettings,
)

__all__ = [
    "REGION",
    "SECTIONS",
    "CloudSettings",
    "Compression",
    "Settings",
    "SpoolSettings",
    "StateSettings",
    "Verify",
    "WorkSettings",
    "keys_of",
    "load",
]
