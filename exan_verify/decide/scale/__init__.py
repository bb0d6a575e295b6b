"""Networks without biases, where every sample keeps a scale (docs/theory.md section 8)."""
