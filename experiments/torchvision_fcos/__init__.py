"""The parts of `experiments/audit_torchvision.py`: a brief training, what users get wrong, and how each is judged."""
