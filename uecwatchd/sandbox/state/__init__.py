"""The test cloud's data on disk: objects, images, identity."""
