"""Every fault of the embedded cloud at random under many sets, with a daemon that is killed at random."""

import gzip
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.host import Host

pytestmark = pytest.mark.exhaustive

# By hand: FAULT_SETS=200 pytest tests/program/test_faults.py -s
SETS = int(os.environ.get("FAULT_SETS", "20"))
SEED = int(os.environ.get("FAULT_SEED", "8"))
STORM_SECONDS = 0.4 * SETS
# After the storm, a set needs a look at its bundle, its parts, its manifest, and three registrations at most.
MOST_REQUESTS_AFTER_STORM = 100 * SETS
# Only so that a daemon that does nothing at all becomes a failure.
HANG_SECONDS = 600.0 + 10 * SETS
KILL_SHARE = 0.15
# Requests of a daemon before it is killed: enough that it gets somewhere, however busy the machine is.
KILL_AFTER_REQUESTS = 10
CALM_SHARE = 0.4

# The real service, whose clocks run sixty times as fast, so that a retry after 30 s comes after half of one.
DAEMON = """
import sys, time
from pathlib import Path
from contextlib import closing
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.outputs.systemd import Notifier
from uecwatchd.service.daemon import Service
from uecwatchd.config.load import load
from uecwatchd.system.clocks import Clocks
class Silent:
    def tell(self, event): pass
    def progress(self, progress): pass
began = float(sys.argv[1])
fast = lambda: began + (time.time() - began) * 60
settings = load(Path(sys.argv[2]), environ={})
with closing(open_ledger(settings.state.dir)) as book:
    Service(settings, listener=Silent(), ledger=book, clocks=Clocks(now=fast, monotonic=fast)).run(
        Notifier({"WATCHDOG_USEC": "400000"})  # only so that the loop turns often, with clocks that fast
    )
"""
NO_KERNEL = 'kernel = "none"\n'
ONCE = ("put-500", "put-503", "reset-in-body", "wrong-etag", "lost-answer", "image-fails", "lost-tags")
LASTING = {"down": 3.0, "away": 3.0, "slow": 0.05, "skew": 600.0, "requests": 2.0, "pending": 2.0}
# The storm goes on until so many kinds of fault have met the daemon, which a busy machine makes slow.
KINDS_MET = min(len({*ONCE, *LASTING}), SETS // 4)


def daemon(host: Host, began: float) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", DAEMON, str(began), str(host.config)])


def drop(host: Host) -> int:
    """Disks alone, and each fourth with a kernel and a ramdisk of its own; how many images that makes."""
    loader = Path("/usr/lib/syslinux/memdisk").read_bytes()
    for i in range(SETS):
        alone = i % 4 > 0
        (host.spool / f"d{i:03}.toml").write_text(f'convert = "keep"\n{NO_KERNEL if alone else ""}')
        (host.spool / f"d{i:03}.img").write_bytes(random.Random(i).randbytes(4096))  # noqa: S311
        if not alone:
            (host.spool / f"d{i:03}.vmlinuz").write_bytes(loader + i.to_bytes(16))
            (host.spool / f"d{i:03}.initrd").write_bytes(gzip.compress(b"070701" + i.to_bytes(512)))
    return SETS + 2 * len(range(0, SETS, 4))


def done(host: Host) -> int:
    return len(list(host.spool.glob("d*.emi")))


def retry_failed(host: Host) -> None:
    """As a person does, who alone is asked what to do with an image that the cloud could not make."""
    for error in host.spool.glob("d*.uec.error"):
        with suppress(FileNotFoundError):
            if " is failed (" in error.read_text():
                host.ask("retry", error.name.partition(".")[0])


@pytest.mark.timeout(HANG_SECONDS)
def test_nothing_is_lost_or_doubled_by_random_faults_and_kills(host: Host) -> None:
    chance = random.Random(SEED)  # noqa: S311
    armed: Counter[str] = Counter()
    order = chance.sample((*ONCE, *LASTING), k=len(ONCE) + len(LASTING))
    began, kills, asked = time.time(), 0, 0
    storm_requests: int | None = None
    wanted = drop(host)
    process = daemon(host, began)
    try:
        while done(host) < SETS:
            time.sleep(chance.uniform(0.1, 0.5))
            retry_failed(host)
            if time.time() - began > STORM_SECONDS and len(host.cloud.faults.struck()) >= KINDS_MET:
                host.cloud.faults.clear()
                storm_requests = storm_requests or len(host.cloud.requests)
                calm_requests = len(host.cloud.requests) - storm_requests
                assert calm_requests < MOST_REQUESTS_AFTER_STORM, "asked again and again, and not done"
                continue
            if chance.random() < CALM_SHARE:  # or the lasting ones would keep the others from being met
                host.cloud.faults.clear()
            # Those that have not met the daemon yet go first.
            left = [kind for kind in order if kind not in host.cloud.faults.struck()] or order
            name = left[armed.total() % len(left)]
            host.cloud.faults.arm(name, LASTING.get(name, 2.0), spare=chance.randrange(3) * (name in ONCE))
            armed[name] += 1
            asked_since = len(host.cloud.requests) - asked
            if chance.random() < KILL_SHARE and asked_since >= KILL_AFTER_REQUESTS:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills, asked = kills + 1, len(host.cloud.requests)
                process = daemon(host, began)
            assert process.poll() is None, "the daemon has ended by itself"
    finally:
        process.kill()
        process.wait()
    seen = Counter(image.state for image in host.cloud.images)
    usable = [image for image in host.cloud.images if image.state == "available"]
    locations = Counter(image.location for image in usable)
    doubled = {location for location, times in locations.items() if times > 1}
    took = time.time() - began
    struck = dict(host.cloud.faults.struck())
    storm = f"seed {SEED}, {took:.0f} s, kills {kills}, armed {armed.total()} times, struck {struck}"
    outcome = f"lost {SETS - done(host)}, images {len(usable)}, doubled {len(doubled)}, states {dict(seen)}"
    print(f"{SETS} sets, {storm}\n{outcome}")  # noqa: T201 (the figures, for a run by hand)
    assert done(host) == SETS
    assert len(usable) == wanted
    assert not doubled
    assert len(struck) >= KINDS_MET, "the faults have met the daemon"
