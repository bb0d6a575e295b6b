"""Statements at stated sizes as SMT-LIB and as exact computer algebra; stored under proofs/bounded/."""
