"""The question as constraints: terms, encoding, isolation, exact replay of models."""
