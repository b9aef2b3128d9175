"""The configuration: what an administrator has set, wherever it was set, as frozen records."""
