"""The lines that fetch a key: where they go in a script, and what real shells do with them."""

import getpass
import shutil
import subprocess
from pathlib import Path

import pytest

from uecwatchd.images.prepare.key_hook import MARK, GuestUser, add_hook, is_shell_script

KEY = "ssh-ed25519 AAAAC3Nza somebody@example"
PERSON = GuestUser("bob", "/home/bob")

PLACES = {
    "no script": ("", ["#!/bin/sh", MARK, "exit 0"]),
    "exit 0 at the end": ("#!/bin/sh -e\necho a\nexit 0\n", ["#!/bin/sh -e", "echo a", MARK, "exit 0"]),
    "a comment behind it": ("#!/bin/sh\nexit 0\n# end\n", ["#!/bin/sh", MARK, "exit 0", "# end"]),
    "no exit": ("#!/bin/bash\necho a", ["#!/bin/bash", "echo a", MARK]),
    "no first line": ("touch /run/lock\n", ["#!/bin/sh", "touch /run/lock", MARK]),
    "another exit before": (
        "#!/bin/sh\nif true; then\n  exit 0\nfi\nexit 0\n",
        ["#!/bin/sh", MARK, "if true; then", "  exit 0", "fi", "exit 0"],
    ),
    "another program takes over": ("#!/bin/sh\nexec /sbin/x\n", ["#!/bin/sh", MARK, "exec /sbin/x"]),
}


@pytest.mark.parametrize(("script", "expected"), PLACES.values(), ids=PLACES)
def test_the_hook_goes_where_it_is_reached(script: str, expected: list[str]) -> None:
    lines = add_hook(script, PERSON).splitlines()
    first = lines.index(MARK)
    last = lines.index(") </dev/null &")
    assert [*lines[: first + 1], *lines[last + 1 :]] == expected


@pytest.mark.parametrize(
    "first", ["#!/bin/sh", "#! /bin/bash -e", "#!/usr/bin/env sh", "#!/bin/busybox sh", ""]
)
def test_shells_are_known_by_the_first_line(first: str) -> None:
    assert is_shell_script(f"{first}\n")
    assert not is_shell_script("#!/usr/bin/perl\n")


def run(folder: Path, shell: list[str], *, fetcher: str, answer: str = KEY) -> str:
    """Run a hooked rc.local with a program that answers like the metadata service."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("grep", "mkdir", "chmod", "chown", "cat", "sleep"):
        (programs / name).unlink(missing_ok=True)
        (programs / name).symlink_to(str(shutil.which(name)))
    (programs / fetcher).write_text(f"#!/bin/sh\necho \"$@\" >> {folder}/asked\necho '{answer}'\n")
    (programs / fetcher).chmod(0o755)
    script = folder / "rc.local"
    user = GuestUser(getpass.getuser(), str(folder / "home"))
    script.write_text(add_hook("#!/bin/sh -e\nexit 0\n", user))
    done = subprocess.run(
        [*shell, script], env={"PATH": str(programs)}, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize(
    ("shell", "fetcher"),
    [
        ("/bin/dash", "curl"),
        ("/bin/dash", "wget"),
        ("/bin/bash", "curl"),
        ("/bin/busybox sh", "curl"),  # it has a wget of its own
    ],
)
def test_shells_fetch_the_key_with_what_is_there(tmp_path: Path, shell: str, fetcher: str) -> None:
    said = run(tmp_path, [*shell.split(), "-e"], fetcher=fetcher)
    keys = tmp_path / "home/.ssh/authorized_keys"
    assert keys.read_text().split("\n") == ["", KEY, ""]
    assert (keys.stat().st_mode & 0o777, keys.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert KEY in said
    assert (
        "http://169.254.169.254/latest/meta-data/public-keys/0/openssh-key"
        in (tmp_path / "asked").read_text()
    )


def test_a_key_that_is_there_is_not_added_again(tmp_path: Path) -> None:
    keys = tmp_path / "home/.ssh/authorized_keys"
    keys.parent.mkdir(parents=True)
    keys.write_text("ssh-rsa other")  # without an end of line
    for _ in range(2):
        run(tmp_path, ["/bin/dash", "-e"], fetcher="curl")
    assert [line for line in keys.read_text().splitlines() if line] == ["ssh-rsa other", KEY]


def test_a_link_of_the_user_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "home/.ssh").mkdir(parents=True)
    (tmp_path / "secret").write_text("root's")
    (tmp_path / "home/.ssh/authorized_keys").symlink_to(tmp_path / "secret")
    run(tmp_path, ["/bin/dash", "-e"], fetcher="curl")
    assert (tmp_path / "secret").read_text() == "root's"
