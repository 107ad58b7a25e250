"""Pure values and rules. Nothing here does input or output."""
