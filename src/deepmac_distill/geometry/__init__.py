"""Pure functions on boxes, feature crops, centre heatmaps and masks that live in their boxes."""
