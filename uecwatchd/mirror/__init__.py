"""A bucket as a drop folder: its objects are fetched into a spool folder, and results are sent beside them.

The folder is a spool folder like any other, so that sets are found, judged and worked on in one way. What was
fetched and sent is noted in the folder itself: if the folder is lost, the notes are lost with it, and nobody
takes the missing files for removed ones.
"""
