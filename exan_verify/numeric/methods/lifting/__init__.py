"""Lifting of degree two and three: from null spaces of lifted equations to samples."""
