"""Features of images: what a frozen encoder made of them, kept on disk."""
