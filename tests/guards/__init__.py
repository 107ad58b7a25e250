"""Guards look at the repository as a whole. Each finder is also shown something it must find."""
