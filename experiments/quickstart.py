"""DReX on the synthetic review world: everything the package does, end to end, on any laptop, without a download.

The data are synthetic. Their results show that the package works, and print the noise floor that no model can beat.
They say nothing about the accuracy of DReX on real reviews.

Command:  python -m drex_jax.main --config=experiments/quickstart.py
Expected: prequential test MSE 0.6252 (running bias 0.622, matrix factorisation 0.541: the world is low-rank;
          noise floor 0.242); keyword precision@5 0.99 (tools/benchmarks/keyword_precision.py); about a minute on 2 CPU
          cores
"""

from ml_collections import ConfigDict

from drex_jax.training.settings import base


def get_config() -> ConfigDict:
    """12,000 synthetic reviews by 400 users of 200 items, a small model, few epochs."""
    config = base()
    config.data.format = "synthetic"
    config.data.name = "synthetic review world"
    config.data.synthetic.num_interactions = 12_000
    config.data.synthetic.num_users = 400
    config.text.vocabulary_size = 4000
    config.text.max_tokens = 96
    config.text.dropout = 0.3
    config.model.dropout = 0.3
    config.model.ranking_weight = 0.1
    config.train.epochs = 12
    config.train.patience = 5
    config.train.learning_rate = 1e-2
    config.train.weight_decay = 1e-4
    return config
