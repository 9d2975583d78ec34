"""Settings of NARRE: `narre`."""

from __future__ import annotations

import dataclasses

from drex_jax.common.settings import number, setting, whole


@dataclasses.dataclass(frozen=True)
class NarreSettings:
    """`narre`: the defaults were chosen on the validation of Musical Instruments; the encoder has settings `text`."""

    size: int = setting(16, whole(1), "entries of factors, of reviews' features and of the attention")
    reviews: int = setting(5, whole(1), "latest reviews of a user, and of an item, that are read")
    batch_size: int = setting(256, whole(1), "interactions of a batch")
    l2: float = setting(4.0, number(0.0), "weight of the squared rows, beside the sum of squared errors")
    dropout: float = setting(0.0, number(0.0, below=1.0), "dropout of the product of a user's and an item's row")
