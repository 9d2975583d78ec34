"""Configure small runs of each model that trains in batches; an epoch takes several device calls."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from drex_jax.models.registry import RANKERS, entry_of
from drex_jax.training.settings import base, ranking

MODELS = ("drex", *(name for name in RANKERS if name != "popularity"), "narre")
BESIDE_NARRE = ("matrix_factorisation", "drex_ratings")  # baselines for the rating model `narre`
USERS, ITEMS, TOUCHED = 20, 12, 7  # of the ranking data; each user's last two items are validation and test
RANKER = {"size": 4, "batch_size": 3, "neighbours": 3}  # 34 batches an epoch: two device calls


def write_ranking_data(folder: pathlib.Path) -> None:
    """Write users, items and two modalities in MMRec's layout; one item has no image."""
    draw = np.random.default_rng(0)
    folder.mkdir()
    rows = ["userID\titemID\trating\ttimestamp\tx_label"]
    for user in range(USERS):
        for place, item in enumerate(draw.choice(ITEMS, TOUCHED, replace=False)):
            rows.append(f"{user}\t{item}\t1.0\t{user * TOUCHED + place}\t{max(0, place - TOUCHED + 3)}")
    (folder / "small.inter").write_text("\n".join(rows) + "\n")
    image = draw.normal(0, 1, (ITEMS, 5)).astype(np.float32)
    image[3] = 0
    np.save(folder / "image_feat.npy", image)
    np.save(folder / "text_feat.npy", draw.normal(0, 1, (ITEMS, 4)).astype(np.float32))


def settings(name: str, ranking_data: pathlib.Path) -> ConfigDict:
    """Return the configuration of a run that trains one of `MODELS`, or popularity, on one device."""
    settings: Any = ranking(name, "small", "small") if name in RANKERS else base()
    settings.baselines = BESIDE_NARRE if name == "narre" else ()
    settings.model.name = name
    settings.evaluate.cutoffs = (5,)
    settings.devices.update(count=1, mapping="none")
    settings.train.update(epochs=3, patience=3, checkpoint_steps=2)
    if name in RANKERS:
        settings.data.path = str(ranking_data)
        reads = entry_of(name).reads_field
        settings.ranker.update({field: value for field, value in RANKER.items() if reads(f"ranker.{field}")})
        settings.train.selection = "recall@5"
        return settings
    settings.data.synthetic.update(num_interactions=200, num_users=15, num_items=12, seed=1)
    settings.evaluate.ranking = False
    settings.train.update(warmup_steps=2, bptt_windows=3)
    if name == "narre":
        settings.text.update(width=4, max_tokens=8, vocabulary_size=300)
        settings.narre.update(size=3, reviews=4, batch_size=30)
        settings.train.checkpoint_steps = 5
    else:
        settings.text.enabled = False
    settings.model.update(state_size=4, feature_size=4, negatives=3)
    return settings
