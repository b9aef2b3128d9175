"""All input and output in a drop folder, without rules: `intake.sets` interprets a listing.

Everything is opened through a descriptor of the folder and without following links, because people who may
write to a spool do not have the rights of the daemon.
"""
