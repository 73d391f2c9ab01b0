"""Vocabularies compiled from their published tables into the data that Axiom Flow ships."""
