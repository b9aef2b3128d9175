"""Preparation of an image for a cloud: changes that lie over the file which is read, and never in it."""
