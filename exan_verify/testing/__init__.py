"""Test support: the small suite of seeded questions."""
