"""The attack on what a client sends after several local steps (docs/theory.md, Appendix U)."""
