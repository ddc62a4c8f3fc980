"""Frames and their truth: readers, generators, checks, training views."""
