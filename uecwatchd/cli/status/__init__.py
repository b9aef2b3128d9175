"""The answer to the question: why not yet?

Every name in a spool folder has a row, or belongs to a set with one: a set with its state, a file in no set
with the reason, an ignored file with the pattern. The ledger says what was done; a new scan of the folder
says what is there, even if no daemon runs.
"""
