"""One look at each spool folder after another, and what follows from it."""

from uecwatchd.rounds.rules import GONE, due, rules_of, taken_by
from uecwatchd.rounds.turn import Rounds

__all__ = ["GONE", "Rounds", "due", "rules_of", "taken_by"]
