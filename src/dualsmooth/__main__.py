"""`python -m dualsmooth`."""

import sys

from dualsmooth.cli import main

sys.exit(main())
