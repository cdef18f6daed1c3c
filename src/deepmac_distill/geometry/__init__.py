"""Pure functions on boxes, feature crops, center heatmaps and masks that live in their boxes."""
