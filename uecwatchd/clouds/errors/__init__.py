"""Answers of clouds: repaired before botocore reads them, and their errors translated into ours."""
