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
    "gelu": lambda x: 0.5 * x * (1.0 + jax.lax.erf(x * 0.5**0.5)),  # a third of the time of JAX's own, by erfc
    "gelu_new": nn.gelu,
    "relu": nn.relu,
}
POOLINGS = ("mean", "cls")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What `config.json` says of a model.

    Attributes:
      vocabulary_size: rows of the table of word pieces.
      width: D.
      layers: L.
      heads: H; it divides D.
      hidden: F.
      positions: the most tokens of a text.
      types: rows of the table of token types, of which the first is used.
      epsilon: of layer normalisation.
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
    """Self-attention and a hidden layer, each added to its input and then normalised."""

    architecture: Architecture
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, None]:
        """`x`: [R T, D]: products of plain matrices are the fastest; `mask`: float32 [R, T, T], added to the scores."""
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
        total = mass.sum(axis=-1, keepdims=True).astype(
            self.dtype
        )  # divides after the product: there are fewer of them
        context = (jnp.matmul(mass.astype(self.dtype), value) / total).transpose(0, 2, 1, 3).reshape(x.shape)
        x = normalised("attention_norm", x + nn.Dense(width, dtype=self.dtype, name="attention_out")(context))
        hidden = ACTIVATIONS[options.activation](nn.Dense(options.hidden, dtype=self.dtype, name="hidden")(x))
        return normalised("norm", x + nn.Dense(width, dtype=self.dtype, name="out")(hidden)), None


class Bert(nn.Module):
    """Token features of token ids. All layers are one, scanned over stacked parameters: a sixth of the compilation.

    Attributes:
      architecture: sizes.
      dtype: of products; normalisation and softmax are of float32.
    """

    architecture: Architecture
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, ids: jax.Array, segments: jax.Array) -> jax.Array:
        """Features [R, T, D] of tokens, each of which sees those of its own text.

        Args:
          ids: int32 [R, T].
          segments: int [R, T], which of its row's texts a token is of; each lies in one piece, and so does padding.
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
            in_axes=nn.broadcast,  # pyright: ignore[reportArgumentType] (as its documentation has it)
            length=options.layers,
        )
        x, _ = layers(options, self.dtype, name="layers")(x, mask)
        return x.reshape(rows, tokens, options.width).astype(jnp.float32)


def pool(features: jax.Array, segments: jax.Array, room: int, pooling: str, normalize: bool) -> jax.Array:
    """One vector a text, float32 [R, S, D]; zeros where a row has fewer texts.

    Args:
      features: [R, T, D].
      segments: int [R, T], which of its row's texts a token is of, from 1 to S; 0 in padding.
      room: S.
      pooling: `mean` of the text's tokens, [CLS] and [SEP] among them, or `cls`: the first token's.
      normalize: to length 1.
    """
    counted = segments[:, None] == jnp.arange(1, room + 1)[:, None]  # [R, S, T]
    if pooling == "cls":
        counted &= jnp.cumsum(counted, -1) == 1
    total = jnp.matmul(counted.astype(jnp.float32), features, precision=jax.lax.Precision.HIGHEST)
    pooled = total / jnp.maximum(counted.sum(-1, keepdims=True), 1)
    if normalize:
        pooled /= jnp.maximum(jnp.linalg.norm(pooled, axis=-1, keepdims=True), 1e-12)
    return pooled
