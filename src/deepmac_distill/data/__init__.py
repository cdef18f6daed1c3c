"""Annotations and images become batches; scenes are generated where no data is at hand."""
