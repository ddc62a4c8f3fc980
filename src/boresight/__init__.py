"""Boresight trains dense detectors whose labels are sparse, finds out why one fails, and repairs it."""

__version__ = "0.1.0"
