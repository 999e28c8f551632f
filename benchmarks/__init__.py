"""What Dray costs, beside its peers, in one run: `make bench`. docs/performance.md says what each row is.

The benchmarks use the tests' kit (a real `dray serve`, images, Redis), so its folders come onto the path here.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("tests", "examples")]
