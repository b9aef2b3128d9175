"""The daemon: its scans, its queue of sets, its workers, and the requests of people."""
