"""What an image file says in words: read it, and write a caption into it without touching anything else."""
