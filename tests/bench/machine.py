"""The machine of the figures."""

import os
import platform
import re
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# What makes SHA, AES and deflate fast where it is there.
FLAGS = ("sha_ni", "aes", "vaes", "avx2", "avx512f", "sha1", "sha2")
LIBRARIES = ("isal", "cryptography", "boto3")
PROGRAMS = {"openssl": ["openssl", "version"], "gzip": ["gzip", "-V"], "pigz": ["pigz", "-V"]}


def machine() -> Iterator[str]:
    cores = len(os.sched_getaffinity(0))
    yield f"- {cores} processors, {_of_cpu('model name') or platform.machine()}"
    present = (_of_cpu("flags") or _of_cpu("Features")).split()
    yield f"- of the flags that matter: {', '.join(flag for flag in FLAGS if flag in present) or 'none'}"
    yield f"- Linux {platform.release()}, Python {platform.python_version()}"
    yield f"- {', '.join(f'{name} {_library(name)}' for name in LIBRARIES)}"
    yield f"- {', '.join(f'{name} {_program(command)}' for name, command in PROGRAMS.items())}"
    yield f"- load at the start: {os.getloadavg()[0]:.1f}"


def _of_cpu(field: str) -> str:
    found = re.search(rf"(?m)^{field}\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text())
    return found[1] if found else ""


def _library(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "is absent"


def _program(command: list[str]) -> str:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        return "is absent"
    found = re.search(r"\d+(\.\d+)+\w*", done.stdout + done.stderr)
    return found[0] if found else "of an unknown version"
