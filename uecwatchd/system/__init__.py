"""This machine: disks, memory, signals, files, and text from untrusted sources."""
