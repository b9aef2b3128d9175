"""A demonstration of the service with a real image set."""
