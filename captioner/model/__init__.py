"""The network: encoder, recurrent cell, attention, decoder. Knows no words."""
