"""The version of the installed package."""

from importlib.metadata import version as installed


def version() -> str:
    """Return the installed version, such as "0.1.0"."""
    return installed("uecwatchd")
