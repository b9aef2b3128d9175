"""One attempt at one set: its stages, from the files in the spool to the id beside them."""
