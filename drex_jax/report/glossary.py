"""The words of the page in plain language."""

from __future__ import annotations

from drex_jax.report.run import Finished
from drex_jax.report.section import Section, Table

WORDS = (
    ("interaction", "one user meeting one item at one moment, with or without a rating and a review"),
    ("modality", "a kind of thing that an interaction or an item brings: its rating, its text, its time, an image"),
    ("state", "what the model remembers of a user or an item; each interaction refines it"),
    ("train, validation, test", "what parameters learn from; what chooses among them; what the figures come from"),
    ("prequential", "as in service: each test interaction is predicted first and then learned from"),
    ("frozen", "nothing is learned after train: states stay as they were at its end"),
    ("ranking", "the whole catalogue is ordered for each user, by what was learned in train"),
    ("mse, rmse, mae", "how far predicted ratings are off: mean square, its root, mean distance; lower is better"),
    ("ndcg@10, map, mrr", "whether what the user wanted stands high among the first 10 of a list; 1 at best"),
    ("recall@10, hr@10", "the share of what the user wanted that is among the first 10; whether anything is"),
    ("rated_items/...", "the same for lists of the user's own rated test items alone: the order of what was met"),
    ("list", "the items put in order once, for one user or for one interaction; figures are means over lists"),
    ("baseline", "a simpler model on the same data, to compare with"),
)


def glossary_section(run: Finished) -> Section:
    """What the words of the page mean, whichever of them a run has use for."""
    sentences = ["How exactly this run counts is in the table of what its figures mean, above."]
    tables = [Table("Words used on this page", ("word", "meaning"), WORDS)]
    return Section("words", "Words", sentences if run.results.get("definitions") else [], tables=tables)
