"""All samples of a batch at once: refined, bounded and told from other batches, equations by their noise."""
