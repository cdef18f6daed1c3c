"""Training one model: the loop, its schedule, the averaged weights, checkpoints and the log."""
