"""A server of processes that end themselves at a chosen moment, for the tests beside it.

It has the program imported, and makes a child of its own for each line of JSON on its standard input:

    {"arguments": ["once"], "config": FILE, "crossed": FILE, "stderr": FILE,
     "at": ["after put part", "before put part", 2], "signal": 9}

The child writes down each moment that it crosses, and sends itself the signal when it crosses the second of
those two moments right after the first one, for the second time; `at` may be null. The server answers at once
with the child's pid, and then with how it ended.

With the one argument "hasty" it is the daemon by clocks that run a thousand times as fast: what takes half an
hour takes two seconds.
"""

import os
import signal
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from uecwatchd.cli import main as cli
from uecwatchd.clouds.request_retry import RetryPolicy
from uecwatchd.config.load import load
from uecwatchd.events import Event, Progress
from uecwatchd.ledger.sqlite import open_ledger
from uecwatchd.outputs.systemd import Notifier
from uecwatchd.service.daemon import Service
from uecwatchd.system import failpoints
from uecwatchd.system.clocks import Clocks

HASTE = 1000


def listener(crossed: int, at: tuple[str, str, int] | None, by: int) -> failpoints.Crossing:
    turn = threading.Lock()  # moments are crossed in several threads
    last, left = "", at[2] if at else 0

    def cross(moment: str) -> None:
        if moment.endswith("progress"):  # reported every few seconds, and lost without harm
            return
        nonlocal last, left
        with turn:
            os.write(crossed, f"{moment}\n".encode())
            if at and [last, moment] == list(at[:2]):  # of JSON, which has no tuples
                left -= 1
                if left == 0:
                    signal.pthread_kill(threading.get_ident(), by)  # or this thread might go on for a moment
            last = moment

    return cross


def child(order: dict[str, Any]) -> int:
    os.environ["UECWATCHD_CONFIG"] = order["config"]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    os.dup2(os.open(order["stderr"], flags, 0o600), 2)
    os.dup2(2, 1)
    failpoints.listen(listener(os.open(order["crossed"], flags, 0o600), order["at"], order["signal"]))
    try:
        return hasty() if order["arguments"] == ["hasty"] else cli.main(order["arguments"])
    finally:
        sys.stderr.flush()


class Silent:
    def tell(self, event: Event) -> None:
        sys.stderr.write(f"{event.sentence}\n")

    def progress(self, progress: Progress) -> None:
        pass


def hasty() -> int:
    def clock() -> float:
        return began + (time.time() - began) * HASTE

    began = time.time()
    settings = load(None, environ=os.environ)
    turning = Notifier({"WATCHDOG_USEC": "200000"})  # only so that the loop turns often
    with closing(open_ledger(settings.state.dir)) as book:
        service = Service(
            settings,
            listener=Silent(),
            ledger=book,
            clocks=Clocks(now=clock, monotonic=clock),
            patience=RetryPolicy(looks=()),
        )
        service.run(turning)
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.support.fork_server import serve_lines

    serve_lines(child)
