"""Is one run better than others? See drex_jax/cli/compare.py, or --help."""

import sys

from drex_jax.cli import compare

if __name__ == "__main__":
    sys.exit(compare.run(sys.argv[1:]))
