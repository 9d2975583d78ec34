"""BERT in JAX as an encoder of reviews, from any Hugging Face folder with model type bert.

from drex_jax.text.bert import BertEncoder
"""

from drex_jax.text.bert.encoder import BertEncoder, TokenFeatures

__all__ = ["BertEncoder", "TokenFeatures"]
