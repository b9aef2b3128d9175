"""Leftovers of many starts, stops and reloads, in figures. Run by hand: `python -m tests.bench.cycles`.

One set is in a spool of this machine, beside the embedded cloud. The real program is started and stopped at
random moments of a list that the seed decides, then `once` ends the work. After that a daemon is ordered to
reload again and again, and its descriptors and threads are counted before and after.
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from tests.support.daemon import await_notice
from tests.support.waiting import PATIENCE_SECONDS
from uecwatchd.demo.material import kernel, make_set
from uecwatchd.demo.run import CONFIGURATION
from uecwatchd.intake.spool.output_files import SPOOL_LOCK
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.sandbox.server import Sandbox

# From before the program can hear a signal until well into the machine image's upload.
EARLIEST_SECONDS, LATEST_SECONDS = 0.1, 3.0
# So that one set takes many cycles.
ANSWER_SECONDS = 0.3
ROLES = ("emi", "eki", "eri")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=50, help="starts and stops (50)")
    parser.add_argument("--reloads", type=int, default=50, help="reloads of one daemon (50)")
    parser.add_argument("--seed", type=int, default=1, help="decides the moments (1)")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="uecwatchd-cycles-") as folder:
        run(Path(folder), cycles=wanted.cycles, reloads=wanted.reloads, seed=wanted.seed)


def run(folder: Path, *, cycles: int, reloads: int, seed: int) -> None:
    spool, config = folder / "spool", folder / "uecwatchd.toml"
    (folder / "material").mkdir()
    spool.mkdir()
    made = make_set(folder / "material", kernel=kernel(folder / "material"))
    with Sandbox(folder / "cloud") as cloud:
        config.write_text(
            CONFIGURATION.format(spool=spool, state=folder / "state", eucarc=cloud.eucarc, settle=0.1)
        )
        for file, ending in ((made.machine, "img"), (made.kernel, "vmlinuz"), (made.ramdisk, "initrd")):
            subprocess.run(["cp", "--sparse=always", file, spool / f"karmic.{ending}"], check=True)
        cloud.faults.arm("slow", ANSWER_SECONDS)
        exits = cycle(config, cycles=cycles, seed=seed)
        cloud.faults.clear()
        ended = start("once", config).wait(PATIENCE_SECONDS)
        tell("cycles", f"{cycles}, exit codes {dict(sorted(exits.items()))}, then once: {ended}")
        tell_outcome(spool, folder / "state", kinds=[image.id[:3] for image in cloud.images])
        reload_often(folder, config, reloads)


def cycle(config: Path, *, cycles: int, seed: int) -> "Counter[int]":
    moments = random.Random(seed)  # noqa: S311 (only not to be regular)
    exits: Counter[int] = Counter()
    for _ in range(cycles):
        process = start("run", config)
        time.sleep(moments.uniform(EARLIEST_SECONDS, LATEST_SECONDS))
        process.terminate()
        exits[process.wait(PATIENCE_SECONDS)] += 1
    return exits


def start(verb: str, config: Path, **environ: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "uecwatchd", verb, "--config", str(config)],
        env={**os.environ, **environ},
        stderr=subprocess.DEVNULL,
    )


def tell_outcome(spool: Path, state: Path, *, kinds: list[str]) -> None:
    report = json.loads((spool / "karmic.uec.json").read_text())
    with closing(open_ledger(state)) as book:
        unfinished = [bundle for bundle in book.all_bundles() if bundle.state != "registered"]
    counts = Counter(kinds)
    tell("set", f"{report['state']}, {report['attempt']} attempts")
    tell("images", str(len(kinds)))
    tell("lost", str(sum(counts[role] == 0 for role in ROLES)))
    tell("doubled", str(sum(counts[role] - 1 for role in ROLES if counts[role] > 1)))
    hidden = sum(path.name.startswith(".") and path.name != SPOOL_LOCK.name for path in spool.iterdir())
    tell("leftovers", f"{hidden} temporaries, {len(unfinished)} unfinished bundles")


def reload_often(folder: Path, config: Path, reloads: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(folder / "notify"))
        systemd.settimeout(PATIENCE_SECONDS)
        process = start("run", config, NOTIFY_SOCKET=str(folder / "notify"))
        try:
            await_notice(systemd, b"READY=1")
            before = held(process.pid)
            for _ in range(reloads):
                process.send_signal(signal.SIGHUP)
                await_notice(systemd, b"RELOADING=1")
                await_notice(systemd, b"READY=1")
            after = held(process.pid)
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)
    tell("descriptors", f"{before[0]} before, {after[0]} after {reloads} reloads")
    tell("threads", f"{before[1]} before, {after[1]} after {reloads} reloads")


def held(pid: int) -> tuple[int, int]:
    """Count the descriptors and threads of a process."""
    place = Path("/proc") / str(pid)
    return len(list((place / "fd").iterdir())), len(list((place / "task").iterdir()))


def tell(what: str, figures: str) -> None:
    print(f"{what:<12} {figures}", flush=True)  # noqa: T201 (what it is for)


if __name__ == "__main__":
    main()
