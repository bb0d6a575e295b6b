"""Evidence by (*) at one layer: lifting of degree two and three, enumeration, extra rays, scales."""
