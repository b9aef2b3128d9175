"""The embedded test cloud: S3 and EC2 on loopback, as strict as the real servers."""
