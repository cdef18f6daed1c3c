"""A run directory in a bucket: the work is done in a copy on this machine, and what is finished goes up."""
