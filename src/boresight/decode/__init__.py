"""From an output to detections."""
