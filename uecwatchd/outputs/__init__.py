"""Outputs of the service: files beside an image, the journal, systemd."""
