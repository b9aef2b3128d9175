"""Turns a drop folder into a cloud image registry."""


def version() -> str:
    """Return the installed version.

    This takes as long as everything else in `--help`, so it is not a constant.
    """
    from importlib.metadata import version as installed

    return installed("uecwatchd")
