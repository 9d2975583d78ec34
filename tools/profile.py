"""Measure how fast the recurrence runs on a stream: see tools/benchmarks/recurrence_speed.py, or --help."""

import os
import sys

# Import from the repository's root: this folder's profile.py would hide the standard module of that name.
sys.path = [os.path.dirname(os.path.dirname(os.path.abspath(__file__))), *sys.path[not sys.flags.safe_path :]]

from tools.benchmarks import recurrence_speed  # noqa: E402

if __name__ == "__main__":
    sys.exit(recurrence_speed.run(sys.argv[1:]))
