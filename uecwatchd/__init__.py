"""Turns a drop folder into a cloud image registry."""

from importlib.metadata import version

__version__ = version("uecwatchd")
