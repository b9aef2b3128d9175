"""A real image set, and the service shown at work on it."""
