"""Tries every parser and rule with as many made-up inputs as there is time for, and counts the outcomes.

    python -m tests.bench.fuzz [SECONDS] [TARGET ...]

A failure prints the smallest input that shows it, and the line that brings it back.
"""

import argparse
import sys
import time
import traceback
from collections import Counter

from tests import test_fuzz

# Hypothesis slows down with the number of examples in one run, since it avoids repeating itself.
EXAMPLES_A_RUN = 1000
OUTCOMES_SHOWN = 6


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("seconds", nargs="?", type=float, default=10.0, help="for each target")
    arguments.add_argument("targets", nargs="*")
    given = arguments.parse_args()
    failed = 0
    for name in given.targets or test_fuzz.TARGETS:
        outcomes: Counter[str] = Counter()
        end = time.monotonic() + given.seconds
        while time.monotonic() < end:
            try:
                test_fuzz.trial(test_fuzz.TARGETS[name], examples=EXAMPLES_A_RUN, outcomes=outcomes)()
            except Exception:  # noqa: BLE001 (whatever it is, it is what is looked for)
                traceback.print_exc()
                failed += 1
                break
        most = ", ".join(f"{number} {word}" for word, number in outcomes.most_common(OUTCOMES_SHOWN))
        sys.stdout.write(f"{name:<16} {outcomes.total():>8} examples: {most}\n")
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
