"""`python -m drex_jax` is the command `drex`."""

import sys

from drex_jax.main import drex

if __name__ == "__main__":
    sys.exit(drex())
