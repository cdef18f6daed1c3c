"""Teachers that need no training: each gives masks to boxes."""
