"""Tar archives of images, read from the beginning to the end."""
