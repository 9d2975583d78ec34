"""The settings of the review encoder: `text`."""

from __future__ import annotations

import dataclasses

from drex_jax.common.settings import NAMED, SWITCH, number, one_of, optional, setting, whole


@dataclasses.dataclass(frozen=True)
class BertSettings:
    """`text.bert`: a BERT that reads the reviews (extra `bert`); `text.max_tokens` then counts word pieces."""

    folder: str | None = setting(
        None, optional(NAMED), "Hugging Face folder: config.json, tokenizer.json or vocab.txt, model.safetensors"
    )
    pooling: str = setting(
        "mean",
        one_of("mean", "cls", "attention"),
        "mean or cls; attention: learned, with text.width and text.dropout, and gives keywords",
    )
    finetune: bool = setting(False, SWITCH, "with pooling=attention: train the BERT with the model, and save it")
    learning_rate: float = setting(2e-5, number(above=0.0), "peak learning rate of the BERT, if it is trained")
    dtype: str = setting("float32", one_of("float32", "bfloat16"), "dtype of matrix products")


@dataclasses.dataclass(frozen=True)
class TextSettings:
    """`text`: how reviews become features."""

    enabled: bool = setting(True, SWITCH, "read the reviews")
    encoder: str = setting(
        "subwords", one_of("subwords", "bert"), "subwords: trained with the model; bert: from a Hugging Face folder"
    )
    shuffled: bool = setting(False, SWITCH, "control: every text moves to another interaction of its part of the split")
    vocabulary_size: int = setting(8000, whole(16), "pieces of the vocabulary, with encoder=subwords")
    max_tokens: int = setting(128, whole(1, 65536), "tokens of a review; longer reviews are cut")
    width: int = setting(32, whole(1), "features of a token, with encoder=subwords")
    dropout: float = setting(0.2, number(0.0, below=1.0), "dropout of tokens, with encoder=subwords")
    bert: BertSettings = dataclasses.field(default_factory=BertSettings)
