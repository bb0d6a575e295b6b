"""The attack on a step of a network whose BatchNorm uses the statistics of the batch (theory, Appendix N)."""
