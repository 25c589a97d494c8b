"""Pictures: find them, open them, and turn them into the pixels that an encoder sees."""

from captioner.images.finding import IMAGE_EXTENSIONS, find_images, natural_order
from captioner.images.opening import (
    DEFAULT_MAX_PIXELS,
    Source,
    display_name,
    identify,
    open_image,
    printable,
    read_file,
    to_rgb,
)
from captioner.images.preprocessing import Interpolation, Pixels, Preprocessing, Resize
from captioner.images.several import Preprocessings

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
