"""Exact arithmetic: rational matrices on digits, residues mod p, softmax in Q(T). No torch, no verdicts."""
