"""The attack in floating point: candidates, confirmed a posteriori. It shares nothing with the exact path."""
