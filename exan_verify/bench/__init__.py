"""``exan bench``: speed, memory and strength, measured; never asserted in a test."""
