"""Judges predictions against truth; knows no model."""
