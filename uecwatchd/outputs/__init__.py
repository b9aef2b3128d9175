"""What the service tells: the files beside an image, the journal, systemd."""
