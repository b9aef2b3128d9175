"""One look at each spool folder after another, and what follows from it."""
