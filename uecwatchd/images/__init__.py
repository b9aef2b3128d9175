"""The kind of a file and its use, told from its first bytes, then from its name.

Nothing here opens a file: bytes and names in, facts and reasons out.
"""
