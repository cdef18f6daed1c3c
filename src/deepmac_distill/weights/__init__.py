"""Weights files: their cards, and which of their tensors fit another model."""
