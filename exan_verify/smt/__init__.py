"""The uniqueness question as SMT constraints: an independent ground truth for small networks."""
