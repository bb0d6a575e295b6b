"""Networks and batches that suites measure on: drawn by a seed, selected, or made hard on purpose."""
