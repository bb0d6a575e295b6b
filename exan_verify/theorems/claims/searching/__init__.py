"""The search for counterexamples to a claim: its stages, and how a counterexample is made smaller."""
