"""Preparation of an image for a cloud: changes over the file that is read, never in it."""
