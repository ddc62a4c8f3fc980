"""Settings, the training loop, the run folder and what is done with a run."""
