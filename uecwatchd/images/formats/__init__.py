"""Disk images in container formats, read in place: no copy, no process, no path that a file names."""
