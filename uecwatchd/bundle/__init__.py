"""Bundles: an image as one stream of encrypted parts, and the way back."""
