"""Methods that search from drawn or guessed starts."""
