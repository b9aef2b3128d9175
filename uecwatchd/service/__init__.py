"""The daemon: when to scan, which set is next, who works on it, and what people have asked for."""
