"""What to answer when somebody asks: why not yet?

Every name in a spool folder gets a row or belongs to a set that has one: a set with its state, a file that
is in no set with the reason, a file that is passed over with the pattern. The ledger says what has been done;
a fresh look at the folder says what lies there, also when no daemon runs.
"""
