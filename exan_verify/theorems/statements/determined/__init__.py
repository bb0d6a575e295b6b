"""When the gradient determines samples: 3.1 to 3.6, C1, C2, C4, L3, counting."""
