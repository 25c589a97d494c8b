"""``captioner explain``: where the model looked at each word of a caption."""

import argparse
from pathlib import Path

from captioner.cli.model import add_model_arguments, load_captioner
from captioner.cli.options import add_options, one_line
from captioner.decoding.options import DecodingOptions
from captioner.errors import OptionError
from captioner.files import check_output, write_atomically

SUMMARY = "Draw where the model looked in an image when it wrote each word."
EXAMPLES = """\
examples:
  captioner explain photo.jpg -o explained.png
  captioner explain photo.jpg -o explained.png --beam-size 1

prints the caption; the file shows the image once for each word, bright where the model looked

exit code: 0 drawn, 2 wrong use, 130 interrupted
"""

_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
_SKIPPED = ("num_captions",)  # one caption is explained


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("image", metavar="IMAGE", help="an image")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help=f"image to write: {', '.join(_ENDINGS)}")
    add_model_arguments(parser, batches=False, several=False)
    add_options(parser, DecodingOptions, "decoding (defaults may be stored in the checkpoint)", skip=_SKIPPED)


def run(args: argparse.Namespace) -> int:
    """Caption an image, and draw how.

    Raises:
        CaptionerError: wrong use, absent weights or weights without attention, or an image that cannot be
            read or written.
    """
    output = Path(args.output).expanduser()
    check_output("output", str(output))
    if output.suffix.lower() not in _ENDINGS:
        raise OptionError(f"--output {args.output}: must end in {', '.join(_ENDINGS)}")
    if output.exists() and Path(args.image).exists() and output.samefile(args.image):
        raise OptionError(f"--output {args.output}: is the image itself", "name another file")

    import io

    from PIL import Image

    from captioner.images import Preprocessing, open_image
    from captioner.images.draw import draw_explanation

    captioner, options = load_captioner(args)
    pixels = captioner.preprocess(args.image)
    ((caption, *_),) = captioner.caption([pixels], options)
    # A model that sees the centre only would light up the wrong places of the whole image.
    sees = captioner.preprocessing
    centre = isinstance(sees, Preprocessing) and sees.resize == "crop"
    image = Image.fromarray(pixels) if centre else open_image(args.image)
    data = io.BytesIO()
    sheet = draw_explanation(image, caption)
    sheet.save(data, Image.registered_extensions()[output.suffix.lower()], quality=90)
    write_atomically(output, data.getvalue())
    print(one_line(caption.text))
    return 0
