"""DReX on the synthetic review world: everything the package does, end to end, on any laptop, without a download.

The data are synthetic. Their figures say that the machinery works, and the results print the noise floor that no
model can beat; they say nothing about how well DReX does on real reviews.

Command:  python -m drex_jax.main --config=experiments/quickstart.py
Expected: MEASURED
"""

from ml_collections import ConfigDict

from drex_jax.config import base


def get_config() -> ConfigDict:
    """6,000 synthetic reviews by 300 users of 200 items, a small model, few epochs."""
    config = base()
    config.data.format = "synthetic"
    config.data.name = "synthetic review world"
    config.text.max_tokens = 64
    config.text.width = 32
    config.train.epochs = 10
    config.train.bptt_windows = 4
    config.model.residual = True
    return config
