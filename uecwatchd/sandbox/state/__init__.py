"""What the test cloud keeps on disk: objects, images, identity."""
