"""What may be claimed of what was found: error bounds, and the reasons against."""
