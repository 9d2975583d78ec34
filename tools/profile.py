"""How fast the recurrence runs on a stream. See drex_jax/profiling/command.py, or --help."""

import os
import sys

# As a script its folder is the first place for imports, where this file would hide the standard module `profile`.
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != os.path.dirname(os.path.abspath(__file__))]

from drex_jax.profiling import command  # noqa: E402

if __name__ == "__main__":
    sys.exit(command.run(sys.argv[1:]))
