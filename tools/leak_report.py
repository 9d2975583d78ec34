"""Look for leaks: the command `drex leaks` of this checkout (drex_jax/cli/leak_report.py)."""

import os
import sys

# Import from the repository's root: this folder's profile.py would hide the standard module of that name.
sys.path = [os.path.dirname(os.path.dirname(os.path.abspath(__file__))), *sys.path[not sys.flags.safe_path :]]

from drex_jax.main import drex  # noqa: E402

if __name__ == "__main__":
    sys.exit(drex("leaks"))
