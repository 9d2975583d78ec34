"""Each leak planted in a run directory is found by its own check, and an unchanged run has none."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from drex_jax.common.errors import UserError
from drex_jax.config.tree import to_json
from drex_jax.data.interactions import Interactions
from drex_jax.data.strings import Strings
from drex_jax.evaluation import leaks
from drex_jax.explain.profiles import KeywordProfiles
from drex_jax.runs.dataset import open_dataset, read_into
from drex_jax.runs.lists import read_lists, write_lists
from drex_jax.text import vocabulary
from drex_jax.training import experiment
from drex_jax.training.settings import base, read_settings, settings_of

TOOL = pathlib.Path(__file__).parents[2] / "tools" / "leak_report.py"
FUTURE, COPIES, CORE, VOCABULARY, KEYWORDS, LISTS = (
    "the future in train", "reviews in two parts", "users and items chosen with hindsight",
    "test text in the vocabulary", "test text in keywords", "items recommended before they existed",
)  # fmt: skip


@pytest.fixture
def run(finished_drex: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """Return a copy of a finished run, to plant leaks in."""
    return shutil.copytree(finished_drex, tmp_path / "run")


def found(workdir: pathlib.Path) -> dict[str, list[str]]:
    return {check.name: check.found for check in experiment.check_leaks(workdir) if check.found}


def rewritten(path: pathlib.Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_run_has_none_and_its_results_say_so(run: pathlib.Path) -> None:
    checks = experiment.check_leaks(run)
    assert [check.name for check in checks] == [FUTURE, COPIES, CORE, VOCABULARY, KEYWORDS, LISTS]
    assert not any(check.found or check.unchecked for check in checks)
    assert json.loads((run / "results.json").read_text())["leaks"] == []
    assert leaks.describe(checks).count("no leak") == 6


def test_a_split_and_a_core_with_hindsight(run: pathlib.Path) -> None:
    settings = json.loads((run / "config.json").read_text())
    settings["split"]["kind"], settings["data"]["k_core"] = "leave_last_out", 3
    (run / "config.json").write_text(json.dumps(settings))
    leaking = found(run)  # the vocabulary and the keywords then come from reviews outside train
    assert set(leaking) >= {FUTURE, CORE, VOCABULARY}
    assert "leaks the future" in leaking[FUTURE][0]


def test_a_review_twice(run: pathlib.Path) -> None:
    rows = Interactions.load(run / "history", mmap=False)
    parts = open_dataset(read_settings(run / "config.json"), run).split
    later = parts.test[np.isin(rows.user[parts.test], rows.user[parts.train])][0]
    texts = list(rows.text)
    texts[rows.user.tolist().index(rows.user[later])] = texts[later] = "the very same words"
    dataclasses.replace(rows, text=Strings.of(texts)).save(run / "changed")
    for name in ("text.bytes.npy", "text.offsets.npy"):
        shutil.copy(run / "changed" / name, run / "history" / name)
    assert len(found(run)[COPIES]) == 1


def test_a_vocabulary_of_all_texts(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: Any = base()
    settings.data.synthetic.update(num_interactions=160, num_users=12, num_items=10, seed=1)
    settings.text.update(max_tokens=8, vocabulary_size=300)
    (tmp_path / "config.json").write_text(to_json(settings_of(settings)))
    with pytest.raises(UserError, match="facts"):
        experiment.check_leaks(tmp_path)  # nothing is read yet
    honest = vocabulary.train
    monkeypatch.setattr(vocabulary, "train", lambda texts, size, rows: honest(texts, size))
    read_into(settings_of(settings), tmp_path)
    assert set(found(tmp_path)) == {VOCABULARY}
    open_ones = {check.name for check in experiment.check_leaks(tmp_path) if check.unchecked}
    assert open_ones == {KEYWORDS, LISTS}  # nothing is trained yet


def test_texts_of_which_a_sample_is_learned_from() -> None:
    texts = Strings.of(f"review {number}" for number in range(50))
    rows = np.arange(0, 50, 2)
    trained = vocabulary.train(texts, 300, rows=rows, max_bytes=100)
    same = vocabulary.train(texts.take(rows), 300, max_bytes=100)
    assert trained is not None
    assert same is not None
    assert trained.fitted_on == same.fitted_on != vocabulary.fingerprint(texts.take(rows))


@pytest.mark.parametrize(("key", "value", "reason"), [
    ("vocabulary_fitted_on", None, "did not record"),
    ("bert", "0123", "a BERT brings its own"),
])  # fmt: skip
def test_what_cannot_be_told_is_said(
    run: pathlib.Path, monkeypatch: pytest.MonkeyPatch, key: str, value: str | None, reason: str
) -> None:
    data = open_dataset(read_settings(run / "config.json"), run)
    data.facts[key] = value
    monkeypatch.setattr(experiment, "open_dataset", lambda settings, workdir: data)
    checks = {check.name: check for check in experiment.check_leaks(run)}
    assert reason in checks[VOCABULARY].unchecked
    assert "not checked, because" in leaks.describe([checks[VOCABULARY]])


def test_without_times_nothing_is_told_of_the_future(run: pathlib.Path) -> None:
    np.save(run / "history" / "timestamp.npy", np.zeros(160))
    settings = json.loads((run / "config.json").read_text())
    settings["split"]["kind"] = "leave_last_out"
    (run / "config.json").write_text(json.dumps(settings))
    (check,) = (check for check in experiment.check_leaks(run) if check.name == FUTURE)
    assert leaks.sentences(check) == [
        "the future in train: not checked, because the data have no times: every interaction is at the same moment"
    ]


def test_keywords_of_test_reviews(run: pathlib.Path) -> None:
    profiles = KeywordProfiles.load(run / "keywords")
    profiles._replace(words=Strings.of(["zzz", *list(profiles.words)[1:]])).save(run / "keywords")
    (sentence,) = found(run)[KEYWORDS]
    assert "1 words are in no train review, 'zzz' among them" in sentence
    data = open_dataset(read_settings(run / "config.json"), run)
    word = np.zeros_like(profiles.users.word)
    profiles._replace(users=profiles.users._replace(word=word)).save(run / "keywords")
    reviewed = np.unique(data.events.user[: data.sizes[0]][data.interactions.has_text[: data.sizes[0]]])
    silent = data.events.num_users - len(reviewed)
    assert len(found(run).get(KEYWORDS, ())) == (silent > 0)
    profiles._replace(users=profiles.users._replace(word=word[1:])).save(run / "keywords")
    with pytest.raises(UserError, match="damaged"):
        experiment.check_leaks(run)
    shutil.rmtree(run / "keywords")
    assert KEYWORDS not in found(run)


@pytest.mark.parametrize("way", ["frozen", "prequential"])
def test_an_item_ranked_too_early(run: pathlib.Path, way: str) -> None:
    path = run / "lists" / f"{way}.npz"
    lists = read_lists(path)
    ranks = lists["ranks"].copy()
    ranks[-1] = 11  # rank 11, but there are only ten items
    write_lists(path, lists | {"ranks": ranks})
    assert found(run) == {LISTS: [f"lists/{way}.npz: 1 relevant items are ranked before their first interaction"]}
    write_lists(path, lists | {"ranks": ranks[:-1]})
    with pytest.raises(UserError, match=f"{way}.npz: damaged"):
        experiment.check_leaks(run)
    write_lists(path, {name: values for name, values in lists.items() if name not in ("item", "interaction")})
    checks = experiment.check_leaks(run)
    assert "did not keep which items" in checks[-1].unchecked


def test_a_run_that_lies_below_another_is_not_part_of_it(run: pathlib.Path) -> None:
    for name in ("lists", "keywords"):
        (run / "other" / name).mkdir(parents=True)
    (run / "other" / "lists" / "prequential.npz").write_bytes(b"of another run")
    assert not any(check.found for check in experiment.check_leaks(run))


def test_candidates_of_mmrec_are_all_items(run: pathlib.Path) -> None:
    rewritten(run / "config.json", protocol="mmrec")
    data = open_dataset(read_settings(run / "config.json"), run)
    late = data.events.num_items - len(np.unique(data.events.item[: data.sizes[0]]))
    assert len(found(run).get(LISTS, ())) == (late > 0)


def test_the_tool_says_it_with_its_exit_status(run: pathlib.Path) -> None:
    def told(workdir: pathlib.Path) -> tuple[int, str, str]:
        command = [sys.executable, str(TOOL), f"--workdir={workdir}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
        return done.returncode, done.stdout, done.stderr

    assert told(run)[:2] == (0, leaks.describe(experiment.check_leaks(run)) + "\n")
    lists = read_lists(run / "lists" / "frozen.npz")
    write_lists(run / "lists" / "frozen.npz", lists | {"ranks": lists["ranks"] + 11})
    status, output, _ = told(run)
    assert (status, output.count("LEAK")) == (1, 1)
    status, output, error = told(run / "nowhere")
    assert (status, output, error.count("\n")) == (2, "", 1)
