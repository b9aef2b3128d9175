"""Turns a drop folder into a cloud image registry."""
