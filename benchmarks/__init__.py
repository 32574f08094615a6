"""What it costs and how long it takes, on real servers; measured, never asserted.

The fleet of the chaos tests is what is measured: the very processes an operator starts.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests" / "chaos"))
