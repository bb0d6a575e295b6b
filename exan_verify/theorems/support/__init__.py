"""What the statements are made of: examples, their exact checks, shared constructions."""
