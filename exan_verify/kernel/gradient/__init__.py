"""Evidence about a gradient that was given without a batch."""
