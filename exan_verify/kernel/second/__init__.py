"""Evidence that a second batch exists: exact, algebraic, enclosed, along a family, by counting."""
