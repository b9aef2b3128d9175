"""The kind of a file and its possible roles, detected from its first bytes, then from its name.

No module here opens a file: they take bytes and names, and return facts and reasons.
"""
