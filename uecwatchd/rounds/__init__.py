"""One look at each spool folder after another, and what follows from it."""

from uecwatchd.rounds.rules import GONE, due, rules_of
from uecwatchd.rounds.turn import Rounds
from uecwatchd.rounds.whose import known_of, rules_in

__all__ = ["GONE", "Rounds", "due", "known_of", "rules_in", "rules_of"]
