"""When other batches have the same gradient: S0 to S5, narrow first layers, networks without biases."""
