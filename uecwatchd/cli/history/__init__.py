"""The past of a set, as the ledger keeps it: its story, and the attempts at it.

It is there without journald, after the journal was rotated, and after the set's own record is gone.
"""
