"""Ablation of modalities."""

import numpy as np

from drex_jax.data import ablation
from drex_jax.data.events import Events
from drex_jax.data.tokens import Tokens

NOTHING = dict.fromkeys(ablation.BLANKS, 0.0)
TRAIN = 800


def events() -> Events:
    n = 1000
    ids = np.arange(n, dtype=np.int32)
    tokens = Tokens(np.repeat(ids, 2), 2 * np.arange(n + 1), np.zeros(n, bool))
    return Events(ids, ids, ids * 1.0, np.ones(n, np.float32), tokens, {"a": np.ones((n, 2), np.float32)}, n, n)


def lost(ablated: Events) -> dict[str, np.ndarray]:
    assert ablated.tokens is not None
    return {
        "rating": np.isnan(ablated.rating),
        "text": ablated.tokens.lengths == 0,
        "time": np.isnan(ablated.timestamp),
        "vectors": np.isnan(ablated.vectors["a"]).all(1),
    }


def test_each_modality_by_itself_in_train_alone() -> None:
    whole = events()
    assert ablation.drop_modalities(whole, TRAIN, NOTHING, 0) is whole
    struck = {}
    for name in ablation.BLANKS:
        before = np.zeros(len(whole), bool)
        for share in (0.25, 0.75, 1.0):
            missing = lost(ablation.drop_modalities(whole, TRAIN, NOTHING | {name: share}, 0))
            assert not any(rows.any() for other, rows in missing.items() if other != name)
            assert not missing[name][TRAIN:].any()
            assert abs(missing[name][:TRAIN].mean() - share) < 0.05
            assert (before <= missing[name]).all()
            before = missing[name]
            struck.setdefault(name, missing[name])
    assert len({rows.tobytes() for rows in struck.values()}) == len(struck)
    several = lost(ablation.drop_modalities(whole, TRAIN, NOTHING | {"rating": 1.0, "vectors": 1.0}, 0))
    assert several["rating"][:TRAIN].all()
    assert several["vectors"][:TRAIN].all()
