"""Orders, instructions, schemes, customers, and moving the money."""
