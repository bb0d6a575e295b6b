"""Arguments of our own that settle cubes before a solver is asked."""
