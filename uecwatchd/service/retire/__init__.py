"""Work on published images: taken back, rolled back, or removed because they are old."""
