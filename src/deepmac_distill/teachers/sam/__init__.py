"""Segment Anything and its kin as teachers, by way of `transformers`: a mask for each box, no training."""
