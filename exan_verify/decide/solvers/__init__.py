"""Small questions that are put to the solvers, and what their models become."""
