"""Record the README's terminal picture from a real run: `python -m tests.bench.capture [FILE.svg]`.

Starts the embedded cloud and a daemon on loopback, makes a real image set, types the commands below into
bash, and draws what they printed, each with the second it was typed at. Everything runs in a temporary
folder, and all paths are relative to it: the picture shows nothing of the machine. It takes half a minute.
"""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from uecwatchd.demo.material import kernel, make_set
from uecwatchd.sandbox.server import Sandbox

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "etc" / "images" / "drop.svg"
NAME = "karmic"
# Seconds to wait before a command is typed: the second status is to show the set at work.
COMMANDS = (
    (0.0, "ls"),
    (0.5, f"cp {NAME}.* drop/"),
    (2.2, "uecwatchd status"),
    (0.0, f"until [ -s drop/{NAME}.emi ]; do sleep 0.1; done"),
    (0.0, f"grep registered drop/{NAME}.uec.log"),
    (0.0, "uecwatchd status"),
    (0.0, "ls drop"),
    (0.0, f"cat drop/{NAME}.emi"),
)
CONFIGURATION = """\
[spool]
folders = ["../desk/drop"]
settle = 1

[state]
dir = "state"

[cloud.default]
dialect = "uec"
eucarc = "cloud/eucarc"
"""
READY_SECONDS = 20.0
COMMAND_SECONDS = 60

COLUMNS = 104
CELL, LINE, MARGIN, BAR = 7.8, 19, 16, 30  # pixels: a character, a line, around the text, the bar above it
STYLE = """\
text { font: 13px ui-monospace, 'DejaVu Sans Mono', Menlo, monospace; fill: #d5d9e0; white-space: pre }
.prompt { fill: #7fc98b } .typed { fill: #ffffff; font-weight: 600 } .time { fill: #7b8494 }"""


@dataclass(frozen=True, slots=True)
class Typed:
    """One command, the second it was typed at, and the lines it printed."""

    command: str
    second: float
    lines: tuple[str, ...]


def main() -> None:
    picture = Path(sys.argv[1]) if sys.argv[1:] else PICTURE
    with tempfile.TemporaryDirectory() as place:
        typed = list(record(Path(place)))
        shown = "\n".join(line for each in typed for line in each.lines)
        for private in (place, str(Path.home()), socket.gethostname()):
            if re.search(rf"(?<!\w){re.escape(private)}(?!\w)", shown):
                raise SystemExit(f"the capture shows {private}:\n{shown}")
    picture.write_text(draw(typed), encoding="utf-8")
    sys.stdout.write(f"{shown}\n")


def record(folder: Path) -> Iterator[Typed]:
    """Type the commands into bash in `folder`, beside a cloud and a daemon that serve it."""
    made = make_set(folder / "made", kernel=kernel(folder / "kernel"), name=NAME, sidecar=False)
    desk = folder / "desk"
    (desk / "drop").mkdir(parents=True)
    made.machine.rename(desk / f"{NAME}.img")
    made.kernel.rename(desk / f"{NAME}.vmlinuz")
    made.ramdisk.rename(desk / f"{NAME}.initrd")
    service = folder / "service"
    service.mkdir()
    config = service / "uecwatchd.toml"
    config.write_text(CONFIGURATION)
    environ = environment(folder, config)
    with Sandbox(service / "cloud", dialect="uec"), daemon(environ):
        begun = time.monotonic()
        for pause, command in COMMANDS:
            time.sleep(pause)
            second = time.monotonic() - begun
            ended = subprocess.run(
                ["bash", "-c", command],
                cwd=desk,
                env=environ,
                check=True,
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
            )
            yield Typed(command, second, tuple(ended.stdout.splitlines()))


def environment(folder: Path, config: Path) -> Mapping[str, str]:
    """Return an environment in which `uecwatchd` is this checkout, and finds its configuration."""
    programs = folder / "bin"
    programs.mkdir()
    program = programs / "uecwatchd"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m uecwatchd "$@"\n')
    program.chmod(0o755)
    columns = folder / "columns"  # bash reads it first: `ls` prints columns only if it sees a terminal
    columns.write_text(f'ls() {{ command ls -C -T 0 -w {COLUMNS} "$@"; }}\n')
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "UECWATCHD_CONFIG": str(config),
        "LC_ALL": "C.UTF-8",
        "BASH_ENV": str(columns),
    }


@contextmanager
def daemon(environ: Mapping[str, str]) -> Iterator[None]:
    """Run the service until the block ends; it is watching when the block begins."""
    command = [sys.executable, "-m", "uecwatchd", "run"]
    process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        deadline = time.monotonic() + READY_SECONDS
        while "Watching" not in process.stderr.readline():
            if time.monotonic() > deadline:
                raise SystemExit("the daemon does not start")
        yield
    finally:
        process.terminate()
        process.communicate(timeout=COMMAND_SECONDS)


# --- the picture ------------------------------------------------------------------------------------------


def draw(typed: list[Typed]) -> str:
    """Return the picture of a terminal, as SVG: a prompt and a time for each command, and its output."""
    rows = []
    for each in typed:
        rows.append(prompt(each))
        rows.extend(f"<tspan>{escape(piece)}</tspan>" for line in each.lines for piece in wrapped(line))
        rows.append("")
    rows.pop()
    width = COLUMNS * CELL + 2 * MARGIN
    height = BAR + len(rows) * LINE + 2 * MARGIN
    dots = "".join(
        f'<circle cx="{MARGIN + 4 + 18 * index}" cy="{BAR / 2 + 2:.0f}" r="5" fill="{colour}"/>'
        for index, colour in enumerate(("#e0695e", "#e3b341", "#5fb86a"))
    )
    text = "\n".join(
        f'<text x="{MARGIN}" y="{BAR + MARGIN + LINE * index + 13}" xml:space="preserve">{row}</text>'
        for index, row in enumerate(rows)
        if row
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}">\n'
        "<title>Three files are copied into a folder. Seconds later the image id is beside them.</title>\n"
        f"<style>{STYLE}</style>\n"
        f'<rect width="100%" height="100%" rx="8" fill="#1c2128"/>{dots}\n{text}\n</svg>\n'
    )


def prompt(each: Typed) -> str:
    """Return one line: the prompt, the command, and at the right the seconds since the first command."""
    time_x = MARGIN + COLUMNS * CELL
    return (
        f'<tspan class="prompt">$ </tspan><tspan class="typed">{escape(each.command)}</tspan>'
        f'<tspan class="time" x="{time_x:.0f}" text-anchor="end">{each.second:.1f} s</tspan>'
    )


def wrapped(line: str) -> Iterator[str]:
    """Yield a line as a terminal of COLUMNS columns shows it."""
    for start in range(0, max(len(line), 1), COLUMNS):
        yield line[start : start + COLUMNS]


if __name__ == "__main__":
    main()
