"""The parameter store of Amazon's Systems Manager, as far as it names images."""
