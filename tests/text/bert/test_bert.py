"""BERT, compared with a slow reference in NumPy, and invalid folders."""

import json
import pathlib
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
import tiny_bert as tiny
from safetensors.numpy import save_file

from drex_jax.common.errors import UserError
from drex_jax.data.strings import Strings
from drex_jax.data.tokens import Tokens
from drex_jax.devices.mesh import Devices
from drex_jax.text.bert import BertEncoder, packing, weights, wordpiece
from drex_jax.text.bert.network import ACTIVATIONS

TEXTS = ["It holds the tune.", "", "good picks, bad strings!", "Café", "it " * 40, "a" * 200, "don't"]
PIECES = [
    ["it", "holds", "the", "tune", "."],
    [],
    ["good", "pick", "##s", ",", "bad", "string", "##s", "!"],
    ["cafe"],
    ["it"] * 14,
    ["[UNK]"],
    ["d", "##o", "##n", "'", "t"],
]
MAX_TOKENS = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def encoder(folder):
    return BertEncoder.load(folder)


def slow_vectors(pooling, normalize):
    found = []
    for pieces in PIECES:
        ids = [tiny.WORDS.index(piece) for piece in ("[CLS]", *pieces, "[SEP]")]
        features = tiny.slow_features(tiny.tensors(), ids)
        vector = features.mean(0) if pooling == "mean" else features[0]
        found.append(vector / np.linalg.norm(vector) if normalize else vector)
    return np.stack(found)


def test_texts_become_wordpieces_with_both_ends_and_a_cut(encoder):
    pieces = encoder.pieces(TEXTS, MAX_TOKENS)
    spelt = [tiny.WORDS[number] for number in pieces.ids]
    found = [spelt[begin:end] for begin, end in zip(pieces.offsets[:-1], pieces.offsets[1:], strict=True)]
    assert found == [["[CLS]", *each, "[SEP]"] for each in PIECES]
    assert pieces.cut.tolist() == [False, False, False, False, True, False, False]
    assert encoder.tokenizer.pieces() == tiny.WORDS


def test_case_and_accents_stay_where_the_folder_says_so(folder, tmp_path):
    cased = tiny.write(tmp_path / "cased")
    (cased / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "strip_accents": False}))
    pieces = BertEncoder.load(cased).pieces(["Good é"], MAX_TOKENS)
    assert [tiny.WORDS[number] for number in pieces.ids] == ["[CLS]", "[UNK]", "é", "[SEP]"]


@pytest.mark.parametrize(("pooling", "normalize"), [("mean", True), ("cls", False)])
def test_vectors_are_those_of_the_slow_twin(encoder, pooling, normalize):
    found = encoder.encode(TEXTS, pooling, normalize, MAX_TOKENS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slow_vectors(pooling, normalize), atol=3e-6)


def test_features_of_tokens_are_those_of_the_slow_twin(encoder):
    pieces, features = encoder.encode_tokens(Strings.of(TEXTS), MAX_TOKENS)
    for begin, end in zip(pieces.offsets[:-1], pieces.offsets[1:], strict=True):
        expected = tiny.slow_features(tiny.tensors(), pieces.ids[begin:end].tolist())
        np.testing.assert_allclose(features[begin:end], expected, atol=1e-5)


def test_one_by_one_and_on_one_device_as_in_a_batch(folder, encoder):
    together = encoder.encode(TEXTS, max_tokens=MAX_TOKENS)
    alone = BertEncoder.load(folder, devices=Devices("none"))
    one_by_one = np.concatenate([alone.encode([text], max_tokens=MAX_TOKENS) for text in TEXTS])
    np.testing.assert_allclose(together, one_by_one, atol=1e-5)
    in_batches = alone.encode(TEXTS * 60, max_tokens=MAX_TOKENS)  # several under way at once
    np.testing.assert_allclose(in_batches, np.tile(one_by_one, (60, 1)), atol=1e-5)
    assert encoder.encode([], max_tokens=2).shape == (0, 16)


def test_other_activations():
    x = np.linspace(-6, 6, 97)
    for name, activation in ACTIVATIONS.items():
        np.testing.assert_allclose(activation(x.astype(np.float32)), tiny.active(x, name), atol=1e-6)


def test_names_of_other_checkpoints(tmp_path, encoder):
    """Names with `bert.`, TensorFlow's names of norms, a head, and float16 or bfloat16 weights."""

    def renamed(name):
        return "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    named = {renamed(name): values for name, values in tiny.tensors().items()}
    named["cls.predictions.bias"] = np.zeros(3, np.float32)
    expected = encoder.encode(TEXTS, max_tokens=MAX_TOKENS)
    for kind, tolerance in ((np.float32, 1e-6), (np.float16, 2e-3), (ml_dtypes.bfloat16, 2e-2)):
        stored = {name: values if values.dtype == np.int64 else values.astype(kind) for name, values in named.items()}
        other = BertEncoder.load(tiny.write(tmp_path / np.dtype(kind).name, stored))
        assert jax.tree.leaves(other._params)[0].dtype == np.float32
        np.testing.assert_allclose(other.encode(TEXTS, max_tokens=MAX_TOKENS), expected, atol=tolerance)
        assert other.fingerprint != encoder.fingerprint


def test_bfloat16_is_near_float32(folder, encoder):
    rough = BertEncoder.load(folder, "bfloat16").encode(TEXTS, max_tokens=MAX_TOKENS)
    cosine = (rough * encoder.encode(TEXTS, max_tokens=MAX_TOKENS)).sum(1)
    assert cosine.min() > 0.999
    assert cosine.min() < 1 - 1e-7
    with pytest.raises(ValueError, match="float32 bfloat16"):
        BertEncoder.load(folder, "float64")


def tokens_of(lengths):
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Tokens(np.arange(1, offsets[-1] + 1, dtype=np.int32), offsets, np.zeros(len(lengths), bool))


@pytest.mark.parametrize(("devices", "budget"), [(1, 40), (3, 300), (8, 4096)])
def test_batches_hold_every_text_once_in_few_shapes(devices, budget):
    lengths = np.random.default_rng(0).integers(2, 201, 300)
    pieces = tokens_of(lengths)
    seen, shapes = [], []
    for batch in packing.batches(pieces, devices, budget):
        rows, width = batch.ids.shape
        assert rows % devices == 0
        assert batch.ids.size <= max(budget, width) * devices
        for text, place in zip(batch.texts.tolist(), batch.places.tolist(), strict=True):
            row, number = divmod(place, packing.room(width))
            own = np.flatnonzero(batch.segments[row] == number + 1)
            assert own.tolist() == list(range(own[0], own[0] + lengths[text]))
            assert batch.source[row, own].tolist() == list(range(pieces.offsets[text], pieces.offsets[text + 1]))
        padding = batch.source < 0
        assert np.array_equal(padding, batch.segments == 0)
        assert np.array_equal(batch.ids, np.where(padding, 0, batch.source + 1))
        seen += batch.texts.tolist()
        shapes.append(batch.ids.shape)
    assert sorted(seen) == list(range(300))
    assert {width for _, width in shapes} <= {128, 256}
    assert len(set(shapes)) <= 3  # of either length one, and the last batch


def test_rows_are_almost_full_and_no_longer_than_needed():
    def shapes(*lengths):
        return [batch.ids.shape for batch in packing.batches(tokens_of(lengths), 1, 1024)]

    lengths = np.random.default_rng(0).integers(2, 101, 1000)
    assert sum(rows * width for rows, width in shapes(*lengths)) < 1.03 * np.maximum(lengths, packing.LEAST).sum()
    assert shapes(*[2] * 65) == [(8, 128)]  # five rows would do: the least power of two
    assert shapes(*[2] * 16) == [(1, 128)]
    assert shapes(2) == [(1, 8)]
    assert shapes(9, 9) == [(1, 32)]
    assert shapes(300, 200, 12) == [(1, 512)]
    assert shapes() == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.encode(["a"], max_tokens=21), "max_tokens 21; it should be from 2 to the 20"),
        (lambda e: e.encode(["a"], max_tokens=1), "max_tokens 1; it should be from 2"),
        (lambda e: e.encode(["a", None], max_tokens=9), "text 1 is NoneType; it must be a string"),
        (lambda e: e.encode(["\ud800"], max_tokens=9), "lone surrogate"),
        (lambda e: e.encode("a", max_tokens=9), "a list of strings, not one string"),
        (lambda e: e.encode(["a"], pooling="max"), "'max' should be one of mean cls"),
    ],
)
def test_arguments_that_make_no_sense(encoder, call, message):
    with pytest.raises(ValueError, match=message):
        call(encoder)


def changed(name, values):
    return tiny.tensors() | {name: values}


def without(name):
    return {each: values for each, values in tiny.tensors().items() if each != name}


NORM, DENSE = "embeddings.LayerNorm.weight", "encoder.layer.1.output.dense.weight"
HOLED = tiny.tensors()[DENSE].copy()
HOLED[3, 3] = np.nan


@pytest.mark.parametrize(
    ("sizes", "weights", "message"),
    [
        ({"model_type": "roberta"}, None, "config.json: model_type is 'roberta'; only bert"),
        ({"hidden_size": None}, None, "hidden_size is None; it should be a positive integer"),
        ({"num_attention_heads": 3}, None, "hidden_size 16 does not divide by num_attention_heads 3"),
        ({"hidden_act": "swish"}, None, "hidden_act is 'swish'; it should be one of gelu gelu_new relu"),
        ({"position_embedding_type": "relative_key"}, None, "'relative_key'; only absolute"),
        ({"is_decoder": True}, None, "is_decoder is true; only encoders"),
        ({"layer_norm_eps": "small"}, None, "layer_norm_eps is 'small'; it should be a small number"),
        ({"num_hidden_layers": 1}, None, "has a layer 1, from 0, and config.json says 1 layers"),
        ({"num_hidden_layers": 3}, None, "tensor encoder.layer.2.attention.self.query.weight is missing"),
        (
            {"intermediate_size": 25},
            None,
            r"intermediate.dense.weight has shape \[24, 16\]; config.json says \[25, 16\]",
        ),
        ({"vocab_size": 30}, None, "vocab.txt: has a piece 70, from 0, and config.json says a vocab_size of 30"),
        ({}, without(NORM), f"model.safetensors: the tensor {NORM} is missing"),
        ({}, changed(NORM, np.ones(17, np.float32)), rf"tensor {NORM} has shape \[17\]; config.json says \[16\]"),
        ({}, changed(NORM, np.ones(16, np.int32)), f"tensor {NORM} is of I32; it should be of F32"),
        ({}, changed(DENSE, HOLED), f"tensor {DENSE} holds NaN or infinity"),
        ({}, changed(NORM, np.full(16, np.inf, np.float32)), f"tensor {NORM} holds NaN or infinity"),
    ],
)
def test_a_model_that_cannot_be_read_is_one_clear_line(tmp_path, sizes, weights, message):
    tiny.write(tmp_path, weights, **sizes)
    with pytest.raises(UserError, match=message) as error:
        BertEncoder.load(tmp_path)
    assert "\n" not in str(error.value)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("config.json", pathlib.Path.unlink, "config.json: cannot be read"),
        ("config.json", lambda path: path.write_text("{"), "config.json: damaged; it should be a JSON object"),
        ("config.json", lambda path: path.write_bytes(b"\xff\xfe"), "config.json: damaged"),
        ("vocab.txt", pathlib.Path.unlink, "has no tokenizer: neither tokenizer.json nor vocab.txt"),
        ("vocab.txt", lambda path: path.write_bytes(b"\xff"), "vocab.txt: cannot be read"),
        ("vocab.txt", lambda path: path.write_text("a\nb\n"), r"vocab.txt: has no piece \[UNK\]"),
        ("vocab.txt", lambda path: path.write_text("[UNK]\n[CLS]\n"), r"vocab.txt: has no piece \[SEP\]"),
        ("tokenizer.json", lambda path: path.write_text("[]"), "tokenizer.json: damaged"),
        ("tokenizer.json", lambda path: path.write_text('{"model": 3}'), "tokenizer.json: the tokenizer is None"),
        ("tokenizer.json", lambda path: path.write_text('{"model": {"type": "BPE"}}'), "the tokenizer is BPE"),
        ("tokenizer.json", lambda path: path.write_text('{"model": {"type": "WordPiece"}}'), "tokenizer.json: damaged"),
        ("config.json", lambda path: path.write_text("[" * 10**5), "config.json: damaged"),
        ("config.json", lambda path: path.write_text('{"model_type": ' + "[" * 200 + "]" * 200 + "}"), "damaged"),
        (
            "tokenizer.json",
            lambda path: path.write_text('{"model": {"type": "WordPiece"}, "normalizer": [{"Regex": "(a+)+$"}]}'),
            "tokenizer.json: has a regular expression",
        ),
        ("model.safetensors", pathlib.Path.unlink, "model.safetensors: there is no such file; only safetensors"),
        ("model.safetensors", _cut, "model.safetensors: damaged, or no safetensors file"),
        ("model.safetensors", lambda path: path.write_bytes(b"x" * 100), "model.safetensors: damaged, or no"),
        ("model.safetensors", lambda path: path.write_bytes(b""), "model.safetensors: damaged, or no"),
    ],
)
def test_a_folder_that_is_not_whole_is_one_clear_line(tmp_path, name, spoil, message):
    tiny.write(tmp_path)
    spoil(tmp_path / name)
    with pytest.raises(UserError, match=message) as error:
        BertEncoder.load(tmp_path)
    assert "\n" not in str(error.value)


def test_no_folder_and_missing_libraries(tmp_path, monkeypatch, folder):
    with pytest.raises(UserError, match="there is no such folder"):
        BertEncoder.load(tmp_path / "nothing")
    for library in ("safetensors", "tokenizers"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, library, None)
            with pytest.raises(UserError, match=rf"needs the library {library}: pip install -e '.\[bert\]'"):
                BertEncoder.load(folder)


def test_a_tensor_named_after_a_layer_of_five_thousand_digits(tmp_path):
    tiny.write(tmp_path, tiny.tensors() | {f"encoder.layer.{'9' * 5000}.x": np.ones(1, np.float32)})
    BertEncoder.load(tmp_path)


@pytest.mark.parametrize(("module", "name"), [(weights, "MAX_WEIGHT_BYTES"), (wordpiece, "MAX_VOCABULARY_BYTES")])
def test_files_are_bounded(tmp_path, monkeypatch, module, name):
    monkeypatch.setattr(module, name, 100)
    with pytest.raises(UserError, match="at most 100 are read"):
        BertEncoder.load(tiny.write(tmp_path))


def test_weights_that_were_pickled_are_never_read(tmp_path):
    tiny.write(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="never pickled weights"):
        BertEncoder.load(tmp_path)
    save_file(tiny.tensors(), tmp_path / "model.safetensors")
    BertEncoder.load(tmp_path)
