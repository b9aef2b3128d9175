"""Contents of a disk image: its file systems, its operating system, and its kernel with its ramdisk."""
