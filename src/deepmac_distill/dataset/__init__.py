"""Tables, no images: an annotation file parsed once, its views for training and evaluation, its findings."""
