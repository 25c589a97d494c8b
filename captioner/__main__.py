"""``python -m captioner`` is the same as ``captioner``."""

import sys

from captioner.cli import main

sys.exit(main())
