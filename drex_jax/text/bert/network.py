"""The network of BERT (Devlin et al., 2018, section 3; post-norm transformer encoder of Vaswani et al., 2017).

Letters: R rows, T tokens of a row, D width, H heads, F width of the hidden layer, L layers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: 0.5 * x * (1.0 + jax.lax.erf(x * 0.5**0.5)),  # three times as fast as JAX's, which uses erfc
    "gelu_new": nn.gelu,
    "relu": nn.relu,
}
POOLINGS = ("mean", "cls")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The architecture of a model, from its `config.json`.

    Attributes:
      vocabulary_size: number of word pieces.
      width: D.
      layers: L.
      heads: H, which divides D.
      hidden: F.
      positions: the largest number of tokens of a text.
      types: number of token types; only the first is used.
      epsilon: epsilon of layer normalisation.
      activation: one of `ACTIVATIONS`.
    """

    vocabulary_size: int
    width: int
    layers: int
    heads: int
    hidden: int
    positions: int
    types: int = 2
    epsilon: float = 1e-12
    activation: str = "gelu"


class Layer(nn.Module):
    """Self-attention and a feed-forward network, each added to its input and then normalised."""

    architecture: Architecture
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, None]:
        """Apply the layer to `x`, [R T, D] (a matrix is fastest). `mask`, float32 [R, T, T], is added to the scores."""
        options, (rows, tokens, _) = self.architecture, mask.shape
        width, heads = options.width, options.heads

        def normalised(name: str, x: jax.Array) -> jax.Array:
            norm = nn.LayerNorm(epsilon=options.epsilon, dtype=jnp.float32, use_fast_variance=False, name=name)
            return norm(x).astype(self.dtype)

        projected = nn.Dense(3 * width, dtype=self.dtype, name="query_key_value")(x)
        query, key, value = projected.reshape(rows, tokens, 3, heads, -1).transpose(2, 0, 3, 1, 4)  # [R, H, T, D / H]
        scores = jnp.matmul(query, key.swapaxes(-1, -2), preferred_element_type=jnp.float32)  # [R, H, T, T]
        scores = scores * (width // heads) ** -0.5 + mask[:, None]
        mass = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
        total = mass.sum(axis=-1, keepdims=True).astype(self.dtype)  # fewer divisions after the product
        context = (jnp.matmul(mass.astype(self.dtype), value) / total).transpose(0, 2, 1, 3).reshape(x.shape)
        x = normalised("attention_norm", x + nn.Dense(width, dtype=self.dtype, name="attention_out")(context))
        hidden = ACTIVATIONS[options.activation](nn.Dense(options.hidden, dtype=self.dtype, name="hidden")(x))
        return normalised("norm", x + nn.Dense(width, dtype=self.dtype, name="out")(hidden)), None


class Bert(nn.Module):
    """Token features from token ids. The layers are scanned over stacked parameters, which compiles six times as fast.

    Attributes:
      architecture: the sizes of the model.
      dtype: dtype of matrix products; normalisation and softmax use float32.
    """

    architecture: Architecture
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, ids: jax.Array, segments: jax.Array) -> jax.Array:
        """Return the features of tokens, [R, T, D]. A token attends only to the tokens of its own text.

        Args:
          ids: int32 [R, T], token ids.
          segments: int [R, T], the number of the text of each token within its row; texts and padding are contiguous.
        """
        options = self.architecture
        rows, tokens = ids.shape
        small = nn.initializers.normal(0.02)
        words = self.param("words", small, (options.vocabulary_size, options.width))
        positions = self.param("positions", small, (options.positions, options.width))
        types = self.param("types", small, (options.types, options.width))
        number = jnp.arange(tokens)
        begins = jnp.pad(segments[:, 1:] != segments[:, :-1], ((0, 0), (1, 0)))
        position = number - jax.lax.cummax(jnp.where(begins, number, 0), axis=1)
        x = words[ids] + positions[position] + types[0]
        x = nn.LayerNorm(epsilon=options.epsilon, use_fast_variance=False, name="norm")(x)
        x = x.astype(self.dtype).reshape(rows * tokens, options.width)
        mask = jnp.where(segments[:, :, None] == segments[:, None, :], 0.0, jnp.finfo(jnp.float32).min)
        layers = nn.scan(
            Layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,  # pyright: ignore[reportArgumentType] (as in its documentation)
            length=options.layers,
        )
        x, _ = layers(options, self.dtype, name="layers")(x, mask)
        return x.reshape(rows, tokens, options.width).astype(jnp.float32)


def pool(features: jax.Array, segments: jax.Array, room: int, pooling: str, normalize: bool) -> jax.Array:
    """Pool token features to one vector for each text, float32 [R, S, D]; zeros if a row has fewer texts.

    Args:
      features: [R, T, D], token features.
      segments: int [R, T], the number of the text of each token within its row, from 1 to S; 0 for padding.
      room: S.
      pooling: `mean` over all tokens with [CLS] and [SEP], or `cls`: the first token.
      normalize: true scales vectors to length 1.
    """
    counted = segments[:, None] == jnp.arange(1, room + 1)[:, None]  # [R, S, T]
    if pooling == "cls":
        counted &= jnp.cumsum(counted, -1) == 1
    total = jnp.matmul(counted.astype(jnp.float32), features, precision=jax.lax.Precision.HIGHEST)
    pooled = total / jnp.maximum(counted.sum(-1, keepdims=True), 1)
    if normalize:
        pooled /= jnp.maximum(jnp.linalg.norm(pooled, axis=-1, keepdims=True), 1e-12)
    return pooled
