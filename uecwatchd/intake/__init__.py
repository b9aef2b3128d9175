"""What people drop: sidecars and checksum files, the drop folders, the sets that their files make."""
