"""The attacks: `lifting`, `exclusive_neurons`, `searching`, a batch of one sample, and what they share."""
