"""What a pipeline needs before it starts: data, time, memory, disk."""
