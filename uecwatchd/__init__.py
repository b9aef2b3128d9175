"""Turns a drop folder into a cloud image registry."""


def version() -> str:
    """Return the version that is installed. To find it out takes as long as all else that `--help` does."""
    from importlib.metadata import version as installed

    return installed("uecwatchd")
