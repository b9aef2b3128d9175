"""The EC2 half: images, registration, tags and instances."""
