"""How far an output is from its target."""
