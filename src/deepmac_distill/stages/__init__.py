"""One function per stage, imported from its module, and the only place where the rooms meet: read this first.

Which stages there are, and in what order, stands in `deepmac_distill.chain`; `run.run` does them.
Each stage takes a `Job`, works in its own folder of the run and returns what the next one needs.
"""
