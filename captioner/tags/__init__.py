"""What the encoder's own classifier sees in a picture, and captions that say it."""
