"""How large a value may be: beyond it something ends the work late, or fills the memory."""

from __future__ import annotations

MAX_SEED = 2**32 - 1  # what every generator of random numbers takes
MAX_THREADS = 1024
MAX_OF_EACH = 100  # masks on a sheet that a person looks at
MAX_RESAMPLES = 10_000  # the ends of a 95 % interval move by less than its third digit long before
MAX_DETECTIONS = 10_000  # of an image
MAX_INTEGER = 2**53  # beyond it a JSON file need not keep a number; nothing here counts so far
