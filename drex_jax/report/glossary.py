"""The glossary of the report."""

from __future__ import annotations

from drex_jax.report.run import Finished
from drex_jax.report.section import Section, Table

WORDS = (
    ("interaction", "a user and an item at one moment, with or without a rating and a review"),
    ("modality", "a kind of input of an interaction or an item: its rating, its text, its time, an image"),
    ("state", "the vector that the model keeps for a user or an item; each interaction updates it"),
    (
        "train, validation, test",
        "the parts of the data: parameters are learned from train, the best epoch is chosen on validation, the results "
        "are computed on test",
    ),
    ("prequential", "as in service: each test interaction is predicted first and then learned from"),
    ("frozen", "nothing is learned after train: states stay as they were at its end"),
    ("ranking", "the whole catalogue is ranked for each user, learned from train alone"),
    ("mse, rmse, mae", "error of predicted ratings: mean square, its root, mean absolute; lower is better"),
    ("ndcg@10, map, mrr", "how high the relevant items stand among the first 10 of a list; 1 is best"),
    ("recall@10, hr@10", "the share of the relevant items among the first 10; whether at least one is there"),
    ("rated_items/...", "the same for lists of only the items that the user rated in test"),
    ("list", "the items ranked once, for one user or for one interaction; results are means over lists"),
    ("baseline", "a simpler model on the same data, to compare with"),
)


def glossary_section(run: Finished) -> Section:
    """Return the section that explains the words of the report."""
    sentences = ['The table "How the metrics are computed" above has the exact definitions of this run.']
    tables = [Table("Words used on this page", ("word", "meaning"), WORDS)]
    return Section("words", "Words", sentences if run.results.get("definitions") else [], tables=tables)
