"""``python -m syft_lab``: the command line."""

import sys

from syft_lab.cli import main

sys.exit(main())
