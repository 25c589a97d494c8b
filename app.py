"""``python app.py`` opens the page in which images are captioned, like ``captioner serve``."""

import sys

from captioner.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
