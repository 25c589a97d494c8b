"""What an image file says in words: read it, and write a caption into it without touching anything else."""

from captioner.embed.embedding import Texts, check_embeddable, embed, read_texts

__all__ = ["Texts", "check_embeddable", "embed", "read_texts"]
