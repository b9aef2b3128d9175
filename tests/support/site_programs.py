"""Programs of an administrator: small shell scripts."""

from pathlib import Path


def make_program(path: Path, script: str) -> Path:
    """Write a shell script that can be started."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path
