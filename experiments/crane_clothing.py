"""CRANE, its released variants or a baseline on Amazon Clothing in MMRec's layout; the argument is the model.

Command:  python -m drex_jax.main --config=experiments/crane_clothing.py:crane
          (crane, the default, crane_released crane_released_axis_fixed lightgcn freedom vbpr bpr popularity)
Data:     `clothing.inter` with `image_feat.npy` and `text_feat.npy`, in `$DREX_JAX_DATA/clothing/`, or in
          `data/clothing/` where DREX_JAX_DATA is not set; --config.data.path=FOLDER names any other place.
          drex build_mmrec makes them of the public reviews, metadata and features of 2014. lightgcn, bpr and
          popularity need no features
Expected: not measured: the data were not at hand
"""

from ml_collections import ConfigDict

from drex_jax.training.settings import ranking


def get_config(model: str = "crane") -> ConfigDict:
    """Full ranking, protocol=mmrec, with the defaults of every model."""
    return ranking(model, "clothing", "Amazon Clothing")
