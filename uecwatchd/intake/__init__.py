"""Dropped files: sidecars and checksum files, the drop folders, and the sets that the files form."""
