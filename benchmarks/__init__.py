"""What it costs and how long it takes, on real servers; measured, never asserted.

The fleet of the chaos tests is what is measured: the very processes an operator starts.
"""

import sys
from pathlib import Path

_TESTS = Path(__file__).parent.parent / "tests"
sys.path += [str(_TESTS), str(_TESTS / "chaos"), str(_TESTS / "integration")]
