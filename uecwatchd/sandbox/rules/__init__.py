"""The rules of each generation of cloud, as data."""
