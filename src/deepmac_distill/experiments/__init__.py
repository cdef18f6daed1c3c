"""Whole experiments: many runs or trainings, and the tables that stand beside the paper's."""
