"""Features of photos: what a frozen encoder made of them, kept on disk."""
