"""Images: find them, open them, and turn them into the pixels that an encoder sees."""

from captioner.images.open import DEFAULT_MAX_PIXELS, READING, Source, display_name, open_image, printable, read_file
from captioner.images.preprocess import Pixels, Preprocessing, Preprocessings

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "READING",
    "Pixels",
    "Preprocessing",
    "Preprocessings",
    "Source",
    "display_name",
    "open_image",
    "printable",
    "read_file",
]
