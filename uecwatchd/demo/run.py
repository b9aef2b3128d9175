"""The demo: a cloud, a daemon, and `cp` into a folder, as a user would see them.

Nothing is simulated: the daemon is the installed one in its own process, the cloud checks everything that a
real one does, and the results are the files that every user would find.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any

from uecwatchd.demo.material import kernel, make_set
from uecwatchd.demo.recipe import make_recipe
from uecwatchd.errors import Deferred, Rejected
from uecwatchd.intake.spool import output_files
from uecwatchd.sandbox.server import Sandbox
from uecwatchd.system.file_errors import NoOutput, cannot_write, not_a_file

Say = Callable[[str], None]

SET_NAME = "tiny"
# Copying tens of MiB settles in one second; a real spool waits longer because its writers are slower.
SETTLE_SECONDS = 1
# The built-in set takes a few seconds; an image of many GiB, given as an argument, may take this long.
PATIENCE_SECONDS = 3600.0
# A set that still waits for a file after this many seconds will not get it by itself.
WAITING_SECONDS = 15.0
POLL_SECONDS = 0.5
STOP_SECONDS = 30

CONFIGURATION = """\
[spool]
folders = ["{spool}"]
settle = {settle}
scan_every = 5

[state]
dir = "{state}"

[defaults]
bucket = "uec-images"

[cloud.default]
dialect = "sandbox"
eucarc = "{eucarc}"
"""
INSTALLATION = """\
boot_every = 1

[install]
builds = "{builds}"
"""


def show(folder: Path, files: Sequence[Path], *, install: bool, say: Say, clock: Callable[[], float]) -> int:
    """Run the demo in a folder, with a real set made here or with `files`; returns an exit code.

    With `install` the set is a recipe, and its image is booted in the cloud. Raises a UecError if something
    is missing, or if the sets do not succeed.
    """
    folder = folder.resolve()
    drop, config = folder / "spool", folder / "uecwatchd.toml"
    _must_be_there(files)
    _make(drop)
    with Sandbox(folder / "cloud", boot=install) as cloud:
        say(f"1. An embedded cloud answers on {cloud.url}, with an account of its own in {cloud.eucarc}.")
        config.write_text(_configuration(folder, cloud.eucarc, install=install))
        if install:
            say("2. An installation CD is made: isolinux, Debian's cloud kernel, an installer; and a recipe.")
            files = make_recipe(folder / "made", SET_NAME, kernel=kernel(folder / "kernel"))
        elif not files:
            say("2. A real image set is made: Debian's cloud kernel, an initrd, an ext4 partition image.")
            files = _real_set(folder)
        for file in files:
            say(f"     {file.stat().st_size:>12} {file.name}")
        say(f"3. The service starts: uecwatchd run --config {config}")
        with _daemon(config, say):
            say(f"4. The files are dropped: cp {' '.join(f.name for f in files)} {drop}")
            _drop(files, drop)
            rows = _await_end(config, clock)
        _show_results(drop, config, rows, say)
    say(f"Everything stays in {folder}. To continue: uecwatchd sandbox --dir {folder / 'cloud'} --port 0")
    return 0


def _configuration(folder: Path, eucarc: Path, *, install: bool) -> str:
    text = CONFIGURATION.format(
        spool=folder / "spool", settle=SETTLE_SECONDS, state=folder / "state", eucarc=eucarc
    )
    return f"{text}{INSTALLATION.format(builds=folder / 'builds')}" if install else text


def _must_be_there(files: Sequence[Path]) -> None:
    """Check that the files exist. A folder may be dropped as well as a file."""
    for file in files:
        if not file.is_dir() and not file.is_file():
            raise not_a_file(file)


def _make(drop: Path) -> None:
    try:
        drop.mkdir(parents=True)
    except OSError as fault:
        if drop.exists():
            hint = "Name a new folder: the demo begins with an empty spool."
            raise NoOutput(str(drop.parent), "there is a spool in it already", hint) from fault
        raise cannot_write(drop.parent, fault) from fault


def _real_set(folder: Path) -> tuple[Path, ...]:
    made = make_set(folder / "made", kernel=kernel(folder / "kernel"), name=SET_NAME)
    files = (made.machine, made.kernel, made.ramdisk, made.sidecar)
    return tuple(file for file in files if file is not None)


def _drop(files: Sequence[Path], drop: Path) -> None:
    copied = subprocess.run(["cp", "-r", "--", *map(str, files), str(drop)], check=False)
    if copied.returncode:
        why = f"cp ended with {copied.returncode}"
        raise NoOutput(str(drop), why, "Its output is above.")


@contextmanager
def _daemon(config: Path, say: Say) -> Iterator[None]:
    """Run the service in its own process, and pass on its log; it is stopped as systemd stops it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "uecwatchd", "run", "--config", str(config)],
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    reader = Thread(target=_pass_on, args=(process, say), daemon=True)
    reader.start()
    try:
        yield
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)
        reader.join(STOP_SECONDS)


def _pass_on(process: subprocess.Popen[str], say: Say) -> None:
    assert process.stderr is not None  # noqa: S101 (asked for above)
    with process.stderr as lines:
        for line in lines:
            say(f"   | {line.rstrip()}")


def _await_end(config: Path, clock: Callable[[], float]) -> list[Mapping[str, Any]]:
    """Ask `status` until all sets are done. Raises if one fails, or does not end."""
    begun = clock()
    while clock() - begun < PATIENCE_SECONDS:
        sleep(POLL_SECONDS)
        rows = [row for row in _status(config) if row["state"] not in ("misfit", "ignored")]
        states = {row["state"] for row in rows}
        if states == {"done"}:
            return rows
        if states & {"new", "queued", "working"}:
            continue
        has_waited = clock() - begun > WAITING_SECONDS
        for row in rows:
            if is_stuck(row, has_waited=has_waited):
                hint = f"See {row['folder']}/{row['name']}.uec.error, if there is one."
                raise Rejected(row["name"], f"{row['state']}: {row['detail']}", hint)
    raise Deferred("the demo", "the sets have not come to an end", "Look at the files beside the images.")


def is_stuck(row: Mapping[str, Any], *, has_waited: bool) -> bool:
    """Tell if a set does not go on by itself.

    `has_waited` is True after the time that a file may take. A waiting set that was begun, or is looked at
    again, waits for the service: for its installation, for its cloud, or for its test boot.
    """
    if row["state"] != "waiting":
        return row["state"] in ("rejected", "halted", "deferred")
    report = row.get("report") or {}
    return has_waited and not report.get("stage") and not report.get("next_retry")


def _status(config: Path) -> list[Mapping[str, Any]]:
    answer = _uecwatchd("status", "--json", "--config", str(config))
    found: list[Mapping[str, Any]] = json.loads(answer)
    return found


def _uecwatchd(*arguments: str) -> str:
    command = [sys.executable, "-m", "uecwatchd", *arguments]
    ended = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if ended.returncode:
        why = f"uecwatchd {arguments[0]} ended with {ended.returncode}"
        raise Rejected("the demo", why, "Its output is above.")
    return ended.stdout


def _show_results(drop: Path, config: Path, rows: Sequence[Mapping[str, Any]], say: Say) -> None:
    say(f"5. Files in {drop} now:")
    for path in sorted(drop.iterdir()):
        content = f"  {path.read_text().strip()}" if path.suffix in (".emi", ".eki", ".eri") else ""
        say(f"     {path.stat().st_size:>12} {path.name}{content}")
    for row in rows:
        name = row["name"]
        say(f"   {output_files.output_stem(name)}.uec.log:")
        for line in (drop / f"{output_files.output_stem(name)}.uec.log").read_text().splitlines():
            say(f"     {line}")
        say(f"6. It is downloaded from the cloud and compared: uecwatchd verify {name} --config {config}")
        for line in _uecwatchd("verify", name, "--config", str(config)).splitlines():
            say(f"     {line}")
        emi = drop / f"{output_files.output_stem(name)}.emi"
        if emi.exists():
            say(f"{name} is {emi.read_text().strip()}.")
    say(f"Where to look next: uecwatchd status --config {config}, and the README for a real cloud.")
