"""Weights files: what they say of themselves, and what of them fits another model."""
