"""Masks for other tools: one table of masks, a small writer for each format, and corrections back."""
