"""`python -m dray.cli`: the same command where it is on no PATH."""

from __future__ import annotations

import sys

from dray.cli import main

sys.exit(main())
