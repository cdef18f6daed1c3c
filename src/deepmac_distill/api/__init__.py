"""The Python interface: models on images, runs with their stages as methods. docs/python.md shows it."""
