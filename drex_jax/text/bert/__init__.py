"""BERT as an encoder of reviews: any Hugging Face folder of model type bert, run by JAX.

from drex_jax.text.bert import BertEncoder
"""

from drex_jax.text.bert.encoder import BertEncoder, TokenFeatures

__all__ = ["BertEncoder", "TokenFeatures"]
