"""The verb `setup`: from an installed package to a running service, for root.

`plan` decides what is to be done, from what was asked for (`answers`) and what is there (`host_facts`), and
does nothing. `--dry-run` prints that plan; without it each step is carried out (`steps`). A second run finds
nothing left to do.
"""
