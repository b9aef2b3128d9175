"""All input and output in a drop folder.

Input and output without rules: the meaning of a listing is decided in `intake.sets`.

Everything is reached through a descriptor of the folder and without following links, because the people who
may write to a spool do not have the rights of the daemon.
"""
