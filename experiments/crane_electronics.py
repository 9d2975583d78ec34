"""CRANE, its released variants or a baseline on Amazon Electronics in MMRec's layout; the argument is the model.

Command:  python -m drex_jax.main --config=experiments/crane_electronics.py:crane
          (crane, the default, crane_released_axis_fixed lightgcn freedom vbpr bpr popularity; for crane_released the
          catalogue is too large)
Data:     `electronics.inter` with `image_feat.npy` and `text_feat.npy`, in `$DREX_JAX_DATA/electronics/`, or in
          `data/electronics/` where DREX_JAX_DATA is not set; --config.data.path=FOLDER names any other place.
          drex build_mmrec makes them of the public reviews, metadata and features of 2014. lightgcn, bpr and
          popularity need no features
Expected: not measured: the data were not at hand
"""

from ml_collections import ConfigDict

from drex_jax.training.settings import ranking


def get_config(model: str = "crane") -> ConfigDict:
    """Full ranking, protocol=mmrec, with the defaults of every model, but for CRANE's updates: fewer and larger.

    Each of them makes the content of all 63 thousand items, whatever its batch.
    """
    config = ranking(model, "electronics", "Amazon Electronics")
    if model == "crane":
        config.ranker.batch_size = 8192
        config.crane.graph_epochs = 5
    return config
