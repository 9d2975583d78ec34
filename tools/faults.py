"""Inject faults into runs: see tools/robustness/faults/command.py, or --help."""

import os
import sys

# Import from the repository's root: this folder's profile.py would hide the standard module of that name.
sys.path = [os.path.dirname(os.path.dirname(os.path.abspath(__file__))), *sys.path[not sys.flags.safe_path :]]

from tools.robustness.faults import command  # noqa: E402

if __name__ == "__main__":
    sys.exit(command.run(sys.argv[1:]))
