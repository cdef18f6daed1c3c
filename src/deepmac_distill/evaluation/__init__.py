"""What a result is worth: mask IoU for given boxes, COCO average precision for detections, one summary."""
