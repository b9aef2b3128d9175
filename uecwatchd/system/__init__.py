"""This machine: its disks, memory, signals and files, and text that strangers wrote."""
