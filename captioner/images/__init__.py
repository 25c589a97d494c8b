"""Images: find them, open them, and turn them into the pixels that an encoder sees."""

from captioner.images.find import IMAGE_EXTENSIONS, find_images, natural_order
from captioner.images.open import (
    DEFAULT_MAX_PIXELS,
    Source,
    display_name,
    identify,
    open_image,
    printable,
    read_file,
    to_rgb,
)
from captioner.images.preprocess import Interpolation, Pixels, Preprocessing, Preprocessings, Resize

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "IMAGE_EXTENSIONS",
    "Interpolation",
    "Pixels",
    "Preprocessing",
    "Preprocessings",
    "Resize",
    "Source",
    "display_name",
    "find_images",
    "identify",
    "natural_order",
    "open_image",
    "printable",
    "read_file",
    "to_rgb",
]
