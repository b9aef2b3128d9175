"""The S3 half: buckets and objects."""
