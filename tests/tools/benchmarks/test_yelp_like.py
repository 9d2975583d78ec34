"""Synthetic files in Yelp's format are read without a rejected row, and are the same each time."""

from pathlib import Path

from drex_jax.data.load import DataSettings, load_interactions
from tools.benchmarks import yelp_like


def test_a_file_is_read_without_a_loss_and_made_again_alike(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(yelp_like, "BLOCK", 120)
    monkeypatch.setattr(yelp_like, "CORPUS_WORDS", 200_000)
    path = tmp_path / "yelp_academic_dataset_review.json"
    yelp_like.write(path, 300, 90, 20)
    content = path.read_bytes()
    interactions, report = load_interactions(DataSettings("yelp", str(tmp_path)))
    assert (report.rows_read, report.kept, report.rejected) == (300, 300, 0)
    assert 40 < interactions.num_users <= 90
    assert 10 < interactions.num_items <= 20
    assert interactions.has_text.all()
    assert set(interactions.rating.tolist()) <= {1.0, 2.0, 3.0, 4.0, 5.0}
    words = [len(text.split()) for text in interactions.text]
    assert 60 < sorted(words)[150] < 110
    yelp_like.write(path, 300, 90, 20)
    assert path.read_bytes() == content
    yelp_like.write(path, 300, 90, 20, seed=1)
    assert path.read_bytes() != content
