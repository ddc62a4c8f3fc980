"""Detectors, composed of the parts below, and the contract they answer."""
