"""What an administrator has set, wherever it was set, and what is wrong with it in words."""

from uecwatchd.settings.layers import (
    CONFIG_VARIABLE,
    DEFAULT_CONFIG,
    FILES_OF_A_CLOUD,
    PREFIX,
    SECTIONS,
    keys_of,
    load,
)
from uecwatchd.settings.records import (
    REGION,
    CloudSettings,
    Compression,
    FolderPolicy,
    Policy,
    Settings,
    SpoolSettings,
    StateSettings,
    Verify,
    WorkSettings,
)

__all__ = [
    "CONFIG_VARIABLE",
    "DEFAULT_CONFIG",
    "FILES_OF_A_CLOUD",
    "PREFIX",
    "REGION",
    "SECTIONS",
    "CloudSettings",
    "Compression",
    "FolderPolicy",
    "Policy",
    "Settings",
    "SpoolSettings",
    "StateSettings",
    "Verify",
    "WorkSettings",
    "keys_of",
    "load",
]
