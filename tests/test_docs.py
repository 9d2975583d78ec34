"""The documentation is true: made pages are fresh, links lead somewhere, examples run, and one number is one number."""

from __future__ import annotations

import ast
import doctest
import importlib
import pathlib
import re
import runpy

import pytest

from drex_jax import Recommender

ROOT = pathlib.Path(__file__).parents[1]
PAGES = runpy.run_path(str(ROOT / "docs" / "pages.py"))
TEXTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
WITH_EXAMPLES = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in sorted((ROOT / "drex_jax").rglob("*.py"))
    if ">>> " in file.read_text()
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with a run where the quickstart puts it, which has the ids that examples name."""
    from drex_jax.training import experiment
    from drex_jax.training.settings import base, settings_of

    config = base()
    config.data.synthetic.update(num_interactions=600, num_users=120, num_items=110)
    config.text.enabled = False
    config.devices.update(count=1, mapping="none")
    config.baselines = ()
    config.evaluate.cutoffs = (5,)
    config.model.name = "popularity"
    config.train.update(epochs=1, selection="ndcg@5")
    folder = tmp_path_factory.mktemp("examples")
    experiment.train(settings_of(config), folder / "runs" / "quickstart")
    return folder


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_of_docstrings(module: str, place: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`recommender` is the run of the quickstart."""
    monkeypatch.chdir(place)
    known = {"recommender": Recommender.load("runs/quickstart")}
    failed, tried = doctest.testmod(importlib.import_module(module), extraglobs=known)
    assert tried > 0
    assert failed == 0


def test_the_page_of_the_configuration_is_fresh() -> None:
    """If it fails: `python docs/pages.py`."""
    assert PAGES["CONFIGURATION"].read_text() == PAGES["configuration_page"]()


def test_every_public_name_and_every_module_is_on_the_site() -> None:
    """The build looks for them in the pages that it has made; here, in what it makes them of."""
    index, nav = (ROOT / "docs" / "api" / "index.md").read_text(), (ROOT / "mkdocs.yml").read_text()
    assert len(PAGES["public_names"]()) >= 2
    for name in PAGES["public_names"]():
        assert f"        - {name.removeprefix('drex_jax.')}\n" in index
    for room in PAGES["rooms"]():
        assert f"api/{room}.md" in nav
        files = {file.stem for file in (ROOT / "drex_jax" / room).rglob("*.py")} - {"__init__"}
        shown = re.findall(r"^::: (\S+)$", PAGES["room_page"](room), re.MULTILINE)
        assert {module.rpartition(".")[2] for module in shown} == files


@pytest.mark.parametrize("file", TEXTS, ids=lambda file: file.name)
def test_links_between_files(file: pathlib.Path) -> None:
    for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", file.read_text()):
        if "://" not in target:
            room = pathlib.Path(target).stem in PAGES["rooms"]() and target.startswith("api/")
            assert room or (file.parent / target).exists(), f"{file}: {target}"


def test_readme_is_one_screen_and_its_example_is_python() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 150
    (example,) = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    ast.parse(example)


def test_the_quickstart_has_one_expected_result() -> None:
    doc = ast.get_docstring(ast.parse((ROOT / "experiments" / "quickstart.py").read_text())) or ""
    (expected,) = re.findall(r"prequential test MSE (\d\.\d{4})", doc)
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"the prequential mean squared error of DReX is {expected}" in readme
    assert f"| drex | {expected} |" in (ROOT / "docs" / "results.md").read_text()
