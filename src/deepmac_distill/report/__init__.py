"""A run for the eye: tables from the summary, pictures from the masks."""
