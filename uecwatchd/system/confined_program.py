"""Programs of this system that read untrusted files, run with few rights.

`python -m uecwatchd.system.confined_program` is a process that gives up its rights and then becomes the
program. The program can read the folders where programs and their libraries are, and open the descriptors
that it was given, as /dev/fd/N. It has no other files and no network.
See `system.confinement` for what this needs of a kernel.

It may also run as root, and then becomes nobody: so the files that it is given must be open to everybody by
their modes. Without names, they are open to those only who have a descriptor.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from uecwatchd.system.confinement import (
    EXECUTE,
    READ_FILE,
    READ_FOLDER,
    WRITE_FILE,
    AllowedFile,
    Limits,
    confine,
)
from uecwatchd.system.programs import Program, Said, find_program, start_program

MODULE = "uecwatchd.system.confined_program"
# Where distributions have programs and libraries; the file tells the linker which ones there are.
PROGRAM_FOLDERS = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/nix/store", "/gnu/store")
LINKER_CACHE = "/etc/ld.so.cache"


def run_confined(
    program: Program,
    arguments: Sequence[str],
    *,
    limits: Limits,
    writable: int,
    readable: Sequence[int],
    text: str,
) -> Said:
    """Run a program that may write to the file of one descriptor, and read those of others.

    `text` is its standard input. Returns what it says. Raises Deferred if it is missing, fails or takes too
    long.
    """
    given = json.dumps([asdict(limits), writable])
    # Isolated from the environment and from the folder, as each Python that reads untrusted data.
    command = [sys.executable, "-I", "-m", MODULE, given, find_program(program), *arguments]
    return start_program(
        program,
        command,
        environment={"LC_ALL": "C", "PATH": "/nonexistent"},
        folder=Path("/"),
        text=text,
        descriptors=(writable, *readable),
    )


def main(given: str, command: list[str]) -> None:
    """Become the program."""
    limits, writable = json.loads(given)
    allowed = [AllowedFile(writable, READ_FILE | WRITE_FILE)]
    folders = [folder for folder in (*PROGRAM_FOLDERS, Path(command[0]).parent) if Path(folder).is_dir()]
    for folder in folders:
        allowed.append(AllowedFile(os.open(folder, os.O_PATH), EXECUTE | READ_FILE | READ_FOLDER))
    if Path(LINKER_CACHE).is_file():
        allowed.append(AllowedFile(os.open(LINKER_CACHE, os.O_PATH), READ_FILE))
    confine(Limits(**limits), allowed)
    os.execv(command[0], command)  # noqa: S606 (there is no shell)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
