"""The configuration from all its sources, as frozen records."""
