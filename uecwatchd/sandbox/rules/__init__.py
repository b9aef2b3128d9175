"""What each generation of cloud insists on, as data."""
