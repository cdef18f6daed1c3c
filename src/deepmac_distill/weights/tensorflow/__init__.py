"""Reads checkpoints of TensorFlow 2 with numpy alone, and names their tensors as our models do."""
