"""Masks for all your boxes, and a fast detector-segmenter for every class.

Start reading at ``stages/``: one function per stage, and the only place where the parts meet.
"""

__version__ = "0.2.0"  # the only place; the package metadata read it here
