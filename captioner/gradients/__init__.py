"""How gradients fade on their way back through time, measured and drawn."""
