"""The report of tiny runs of every kind: numbers, texts of empty sections, and no execution of data."""

from __future__ import annotations

import builtins
import csv
import dataclasses
import hashlib
import json
import pathlib
import re
import shutil
from html.parser import HTMLParser
from typing import Any

import jax
import numpy as np
import pytest

from drex_jax import main
from drex_jax.common.errors import UserError
from drex_jax.config.tree import to_json
from drex_jax.data import ablation
from drex_jax.models.drex.model import DReX
from drex_jax.models.drex.stream import WindowStream
from drex_jax.report import breakdowns, examples, figures, headline, page, profiles, robustness, training
from drex_jax.report.run import Finished
from drex_jax.runs.dataset import open_dataset
from drex_jax.runs.lists import read_lists
from drex_jax.runs.selection import Selection
from drex_jax.runs.trained import load_trained
from drex_jax.serving.explanation import Explanation, Keyword, Neighbour, PastInteraction
from drex_jax.training import experiment, loop, registry
from drex_jax.training.settings import base, read_settings, settings_of

HOSTILE = "<script>window.pwned = 1</script>"
USERS = (HOSTILE, '"><img src=x onerror="window.pwned=1">', "</script><b>", "user & co", *(f"u{n}" for n in range(8)))
ITEMS = ("<svg onload=window.pwned=1>", "'; window.pwned = 1; '", *(f"item{n}" for n in range(8)))
SAID = (
    "good camera lens",
    "sharp picture lens",
    "loud guitar strings",
    "warm guitar sound",
    f"{HOSTILE} tone &#34;sweet&#34;",
)


def hostile_table(path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "item", "rating", "timestamp", "text"])
        for moment in range(200):
            user, item = rng.integers(len(USERS)), rng.integers(len(ITEMS))
            said = " ".join(rng.choice(SAID, 2)) if moment % 7 else ""
            writer.writerow([USERS[user], ITEMS[item], rng.integers(1, 6), 86400 * moment, said])


def settings(kind: str, folder: pathlib.Path) -> Any:
    """A run of DReX, which predicts ratings, or of popularity, which ranks, with two seeds."""
    settings: Any = base()
    settings.data.synthetic.update(num_interactions=160, num_users=12, num_items=60, seed=1)
    settings.devices.update(count=1, mapping="none")
    settings.evaluate.cutoffs = (5,)
    settings.baselines = ()
    if kind == "popularity":
        settings.text.enabled = False
        settings.model.name = kind
        settings.train.selection = "ndcg@5"
        settings.replicas = 2
        return settings
    hostile_table(folder / "reviews.csv")
    settings.data.update(format="table", path=str(folder / "reviews.csv"), name=f"data of {HOSTILE}")
    settings.data.update(rating_min=1.0, rating_max=5.0)
    settings.text.update(width=4, max_tokens=8, vocabulary_size=300)
    settings.model.update(state_size=3, feature_size=3, ranking_weight=0.0)
    settings.train.update(epochs=2, bptt_windows=1, warmup_steps=1)
    settings.evaluate.ranking = False
    settings.baselines = ("running_bias",)
    return settings


def log_steps(folder: pathlib.Path, seed: int, metric: str) -> None:
    """Write the log of a model that trains."""
    lines = [{"step": n, "epoch": n, "loss": seed + 1 / n, "validation": {metric: n / 9}} for n in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def without_training(
    stream: Any, evaluator: Any, options: Any, folders: dict[int, pathlib.Path], *_: Any
) -> list[loop.Fitted]:
    """A stand-in for `fit.fit`, whose programs take most of a tiny run's time: parameters as they start."""
    timing = dict.fromkeys(("train_seconds", "compile_seconds", "interactions_per_second"), 1.0)
    params = jax.jit(stream.init)(jax.random.key(0))
    fitted = loop.Fitted(params, Selection.of(params, "mse", 1.0, 2), timing | {"steps": 3, "epochs": 3})
    for seed, folder in folders.items():
        folder.mkdir(parents=True, exist_ok=True)
        log_steps(folder, seed, "mse")
    return [fitted] * len(folders)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A DReX run on hostile ids and reviews."""
    folder = tmp_path_factory.mktemp("drex")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "fit", without_training)
        experiment.train(settings_of(settings("drex", folder)), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def report(run: pathlib.Path) -> str:
    before = hashes(run)
    assert main.run(["main", f"--workdir={run}", "--mode=report"]) == 0
    assert hashes(run, but="report.html") == before  # what is stored is not touched
    return (run / "report.html").read_text()


def hashes(folder: pathlib.Path, but: str = "") -> dict[str, str]:
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != but]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


class Elements(HTMLParser):
    """Parses a page into tags with their attributes, and the text inside each kind of tag."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_nothing_of_the_data_becomes_markup(report: str) -> None:
    elements = Elements(report)
    scripts = [attributes for tag, attributes in elements.tags if tag == "script"]
    assert [script.get("type") for script in scripts] == ["application/json", None]
    assert not [tag for tag, _ in elements.tags if tag in ("img", "iframe", "link", "object")]
    assert not [name for _, attributes in elements.tags for name in attributes if name.startswith("on")]
    sources = [attributes.get(name) for _, attributes in elements.tags for name in ("src", "href", "xlink:href")]
    assert all(source.startswith("#") for source in sources if source)  # nothing is fetched
    assert any(HOSTILE in text and "tone" in text for text in elements.texts)  # a review as it was written
    assert any('tone "sweet"' in text for text in elements.texts)
    data = json.loads(re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', report, re.S)[0])
    assert {each[0] for each in data["users"]} == set(USERS)
    assert {each[0] for each in data["items"]} == set(ITEMS)
    ids = [attributes["id"] for _, attributes in elements.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_every_figure_has_a_text_alternative_and_every_section_is_there(report: str) -> None:
    elements = Elements(report)
    drawings = [attributes for tag, attributes in elements.tags if tag == "svg"]
    assert len(drawings) == 7
    ids = {attributes.get("id") for _, attributes in elements.tags}
    for drawing in drawings:
        assert drawing["role"] == "img"
        assert set((drawing["aria-labelledby"] or "").split()) <= ids
    assert report.count("<figcaption>") == report.count("The numbers</summary>") == len(drawings)
    names = {attributes.get("id") for tag, attributes in elements.tags if tag == "section"}
    assert names >= {
        "results",
        "run",
        "training",
        "by-rating",
        "by-history",
        "robustness",
        "speed",
        "keywords",
        "examples",
    }
    assert "#0a0" not in report  # every colour is the page's
    assert "None" not in re.sub(r"<script.*?</script>|<td>.*?</td>", "", report, flags=re.S)


def test_a_model_that_ranks_on_two_seeds_and_missing_pieces(tmp_path: pathlib.Path) -> None:
    workdir = tmp_path / "run"
    experiment.train(settings_of(settings("popularity", tmp_path)), workdir)
    for seed, folder in enumerate((workdir, workdir / "replicas" / "1")):
        log_steps(folder, seed, "ndcg@5")
    finished = Finished(workdir)
    shown = {section.name: section for section in page.sections(finished)}
    page.render(finished, list(shown.values()))
    assert "reads nothing else" in shown["robustness"].sentences[0]
    assert "reads no reviews" in shown["keywords"].sentences[0]
    assert "only ranks" in shown["by-rating"].sentences[0]
    assert len(shown["by-history"].figures) == 1
    assert [len(example["list"]) > 0 for example in shown["examples"].examples] == [True] * 4
    assert "±" in shown["results"].tables[0].rows[0][1]
    curves = [figure.table for figure in shown["training"].figures]
    assert [list(table.header) for table in curves] == [["epoch", "seed 0", "seed 1"]] * 2
    assert curves[0].rows[1] == ("2", "0.5000", "1.5000")
    (workdir / "metrics.jsonl").unlink()
    assert "1 of 2 seeds" in training.training_curves(finished).sentences[0]
    for gone in ("replicas/1/metrics.jsonl", "constants.json", "lists"):
        path = workdir / gone
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shown = {section.name: section for section in page.sections(Finished(workdir))}
    assert "not trained step by step" in shown["training"].sentences[0]
    assert not shown["by-history"].figures
    assert "older version" in shown["examples"].sentences[0]
    assert "±" in shown["results"].tables[0].rows[0][1]


def test_a_directory_without_a_finished_run_is_one_line(tmp_path: pathlib.Path, capsys: Any) -> None:
    assert main.run(["main", f"--workdir={tmp_path}", "--mode=report"]) == 2
    (tmp_path / "config.json").write_text(to_json(settings_of(base())))
    assert main.run(["main", f"--workdir={tmp_path}", "--mode=report"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2
    assert "holds no run" in lines[0]
    assert "not finished" in lines[1]


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_is_named_with_its_remedy(package: str, run: pathlib.Path, monkeypatch: Any) -> None:
    wanted = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return wanted(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=rf"needs the package {package}: pip install -e '.\[report\]'"):
        page.write(run)


def test_error_by_history_and_rating_is_that_of_a_slow_count(run: pathlib.Path) -> None:
    finished = Finished(run)
    lists = read_lists(run / "lists" / "prequential.npz")
    user = np.asarray(finished.interactions.user)
    by_history: dict[str, list[float]] = {}
    by_rating: dict[str, list[float]] = {}
    for row, rating, predicted in zip(lists["row"], lists["rating"], lists["predicted"], strict=True):
        earlier = sum(user[other] == user[row] for other in range(row))
        name = next(
            name
            for least, most, name in (
                (0, 0, "0"), (1, 2, "1–2"), (3, 5, "3–5"), (6, 10, "6–10"), (11, 20, "11–20"), (21, 999, "21+")
            )
            if least <= earlier <= most
        )  # fmt: skip
        by_history.setdefault(name, []).append((predicted - rating) ** 2)
        by_rating.setdefault(f"{rating:g}", []).append((predicted - rating) ** 2)
    for section, expected in (
        (breakdowns.by_history(finished), by_history),
        (breakdowns.by_rating(finished), by_rating),
    ):
        rows = {row[0]: row for row in section.figures[0].table.rows}
        assert rows.keys() == expected.keys()
        for name, errors in expected.items():
            assert rows[name][1:3] == (str(len(errors)), f"{np.mean(errors):.4f}")


def test_many_ratings_are_put_into_ten_groups() -> None:
    group, names = breakdowns.rating_groups(np.linspace(0, 1, 50))
    assert len(names) == 10
    assert np.bincount(group).tolist() == [5] * 10


def test_modalities_that_go_missing_are_those_of_a_model_built_on_data_without_them(
    run: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = Finished(run)
    measured = robustness.measure(finished)
    assert measured is not None
    metric, found = measured
    assert metric == "mse"
    assert set(found) == {"text", "rating", "time", robustness.ALL}
    stored = finished.results["test"]["prequential"]["mse"]
    assert all(values[0] == pytest.approx(stored, abs=1e-6) for values in found.values())
    settings = read_settings(run / "config.json")
    data = open_dataset(settings, run)
    context = registry.context(settings)
    begin = sum(data.sizes[:2])
    lacking = np.arange(len(data.events)) >= begin
    for name, blank in (("text", ablation.without_text), ("time", ablation.without_time)):
        other = dataclasses.replace(data, events=blank(data.events, lacking))
        stream = registry.build("drex", experiment.as_begun(settings, run), other, 0, context)
        assert isinstance(stream, WindowStream)
        tested = registry.build_evaluator(stream, settings, other, context).evaluate_test(*load_trained(stream, run))
        assert found[name][-1] == pytest.approx(tested.metrics["prequential"]["mse"], abs=1e-6)
    assert found["rating"][-1] != pytest.approx(stored, abs=1e-6)
    monkeypatch.setattr(DReX, "modalities", ())
    assert "nothing of an interaction" in robustness.robustness_section(finished).sentences[0]
    (run / "constants.json").rename(run / "constants")
    assert "cannot be measured" in robustness.robustness_section(finished).sentences[0]
    (run / "constants").rename(run / "constants.json")


def test_reasons_in_words() -> None:
    past = PastInteraction("u", "i", 0.0, 4.0, "", 0.5)
    why = Explanation("me", "it", 1.0, 1, 2, 4.0, (1.0, 5.0), "rating", [], [], [], [], [], {}, [], [])
    words = why._replace(overlap=[Keyword(word, 0.1) for word in "abcdef"])
    near = why._replace(neighbours=[Neighbour(item, 0.5) for item in "xyz"])

    def said(each: Explanation) -> str:
        return "".join(part for part, _ in examples.reason_of(each))

    assert said(why) == "no item in the user's history is similar"
    assert said(words) == "shared keywords: a, b, c, d"
    assert said(near) == "similar to x (cosine 0.50) and y (cosine 0.50) in the user's history"
    assert said(words._replace(user_interactions=[past, past._replace(item="j", rating=None, change=0.75)])) == (
        "shared keywords: a, b, c, d; the predicted rating is raised most by the user's interaction with j (+0.750)"
    )
    assert said(words._replace(item_interactions=[past], change_of="score")) == (
        "shared keywords: a, b, c, d; the score is raised most by the item's interaction with u, rated 4 (+0.500)"
    )
    assert said(words._replace(item_interactions=[past._replace(change=-0.1)])) == said(words)
    assert said(words._replace(item_interactions=[past._replace(change=None)])) == said(words)


def test_keyword_section_and_its_bounds(run: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = Finished(run)
    monkeypatch.setattr(profiles, "MOST", 3)
    section = profiles.keyword_profiles(finished)
    assert "the 3 of 12 users" in section.sentences[1]
    assert section.profiles is not None
    assert [len(section.profiles[side]) for side in ("users", "items")] == [3, 3]
    (run / "keywords" / "columns.json").rename(run / "columns.json")
    damaged, silent = profiles.keyword_profiles(finished), examples.examples_section(finished)
    (run / "columns.json").rename(run / "keywords" / "columns.json")
    assert "cannot be read" in damaged.sentences[0]
    assert "There are none" in silent.sentences[0]


def test_torn_logs_and_labels_apart(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text(
        '{"step": 1, "epoch": 1, "loss": 2.0}\n{"step": 2, "epoch": 1, "loss": 1.0, "validation": {"mse": 3}}\n{"st'
    )
    assert training.read_log(log) == ({1: [2.0, 1.0]}, {1: {"mse": 3}})
    moved = np.array(figures.apart([1.0, 1.0, 5.0, 1.1], 0.5))
    assert moved[2] == 5.0
    assert np.diff(np.sort(moved)).min() >= 0.5 - 1e-9
    assert moved[[0, 1, 3]].mean() == pytest.approx(np.mean([1.0, 1.0, 1.1]))
    lines = [figures.lines([figures.Series("a$b$<", [1.0, float("nan"), 2.0])] * 2, ["x", "y", "z"], "x", "y")] * 2
    assert lines[0] == lines[1]
    assert "a$b$&lt;" in lines[0]


def test_headline_intervals_hold_the_figures(run: pathlib.Path) -> None:
    figure = headline.headline_section(Finished(run)).figures[0]
    for _, value, interval, *_ in figure.table.rows:
        low, high = map(float, interval.split(" to "))
        assert low <= float(value) <= high
    assert figure.table.rows[0][3:] == ["-", "-"]
