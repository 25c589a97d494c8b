"""``python app.py`` opens the page in which pictures are captioned."""

import sys

from captioner.web.serve import main

if __name__ == "__main__":
    sys.exit(main())
