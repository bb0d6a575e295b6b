"""Readings of the published attack and its security boundary: E1 to E4, B1, P1, P2."""
