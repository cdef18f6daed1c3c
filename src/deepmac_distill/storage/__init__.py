"""Objects in buckets by their URIs: read, written whole, listed, and fetched to where a path is needed."""
