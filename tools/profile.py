"""How fast the recurrence runs on a stream. See tools/benchmarks/recurrence_speed.py, or --help."""

import os
import sys

# Imports begin at the repository: `profile.py` in this folder would hide the standard module of that name.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from tools.benchmarks import recurrence_speed  # noqa: E402

if __name__ == "__main__":
    sys.exit(recurrence_speed.run(sys.argv[1:]))
