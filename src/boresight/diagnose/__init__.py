"""Why a detector fails: is what it emits what it was trained to emit? Reads outputs and run folders, never models."""
