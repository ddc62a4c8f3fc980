"""What the fuzz tests and `benchmarks/fuzz.py` share: how inputs are damaged, and who reads them."""
