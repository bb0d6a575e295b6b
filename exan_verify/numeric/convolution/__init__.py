"""The attack on networks with convolutions: features from the head, then pictures layer by layer."""
