"""The report in a real browser: no errors, a working search, and reviews that are shown but not executed."""

from __future__ import annotations

import importlib.util
import pathlib
import shutil
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from drex_jax.report import figures, page
from drex_jax.report.section import Figure, Section, Table

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
HOSTILE = "<script>window.pwned = 1</script>"
ID = '"><img src=x onerror="window.pwned=1"></script>'

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: the report is not tried in a browser"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not installed"),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A page from a hostile data set."""
    words = ["lens", "camera", HOSTILE]
    data = {
        "words": words,
        "users": [[ID, 3, [0, 2.0, 2, 1.0]], *([f"user{n}", 1, [1, 1.0]] for n in range(30))],
        "items": [["user1's lens", 2, [0, 1.0]], ["empty", 1, []]],
    }
    svg = figures.lines([figures.Series("a", [1, 2]), figures.Series("b", [2, np.nan])], [1, 2], "x", "y")
    table = Table(HOSTILE, ("", "column"), [(ID, HOSTILE)])
    line = {"item": ID, "score": "1.00", "reason": [("shared keywords: ", False), (HOSTILE, True)]}
    met = [{"item": ID, "rating": "5", "text": f"a review with {HOSTILE}"}]
    example = {"who": "most history", "user": ID, "met": met, "list": [line]}
    sections = [
        Section("results", HOSTILE, [HOSTILE], [Figure("one", HOSTILE, HOSTILE, svg, table)], [table]),
        Section("keywords", "Keyword profiles", profiles=data),
        Section("examples", "Examples", examples=[example]),
    ]
    run: Any = SimpleNamespace(results={"model": HOSTILE, "dataset": {"name": ID}}, workdir=pathlib.Path("run"))
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(page.render(run, sections))
    return file


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_it_loads_searches_and_runs_nothing_of_the_data(file: pathlib.Path, browser: Any) -> None:
    tab = browser.new_page(viewport={"width": 360, "height": 700})
    troubles, requests = [], []
    tab.on("console", lambda message: troubles.append(message.text))
    tab.on("pageerror", lambda error: troubles.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(file.as_uri())

    shown = tab.locator("#profiles li")
    assert shown.count() == 12
    tab.fill("#query", "USER1")
    assert shown.first.inner_text().startswith("user user1")  # the very id, then what begins with it
    assert "12 found" in tab.inner_text("#found")  # user1, user10 .. user19 and an item
    tab.select_option("#side", "items")
    assert shown.all_inner_texts()[0].startswith("item user1's lens")
    tab.select_option("#side", "both")
    tab.fill("#query", "lens")
    assert shown.count() == 2  # whose word it is: the hostile user, and the item by id
    tab.fill("#query", "onerror")
    assert ID in shown.first.inner_text()
    assert HOSTILE in shown.first.inner_text()
    tab.fill("#query", "nobody of this name")
    assert "0 found" in tab.inner_text("#found")

    assert f"a review with {HOSTILE}" in tab.inner_text("blockquote")
    assert tab.evaluate("window.pwned") is None
    assert tab.locator("img").count() == 0
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360  # no sideways scrolling on a phone
    assert requests == [file.as_uri()]
    assert troubles == []

    # what the data cannot do, an injected script cannot either: the policy forbids it
    tab.evaluate(
        "const e = document.createElement('script'); e.textContent = 'window.pwned = 1'; document.body.append(e)"
    )
    assert tab.evaluate("window.pwned") is None
    assert "Content Security Policy" in troubles[0]
    tab.close()


def test_light_dark_and_print_have_ink_on_paper(file: pathlib.Path, browser: Any) -> None:
    seen = set()
    for media, scheme in (("screen", "light"), ("screen", "dark"), ("print", "dark")):
        tab = browser.new_page(color_scheme=scheme)
        tab.goto(file.as_uri())
        tab.emulate_media(media=media, color_scheme=scheme)
        paper, ink = (
            sum(map(int, tab.evaluate(code).removeprefix("rgb(").removesuffix(")").split(", ")))
            for code in (
                "getComputedStyle(document.body).backgroundColor",
                "getComputedStyle(document.querySelector('svg text')).fill",
            )
        )
        assert abs(paper - ink) > 400
        seen.add((media, paper > ink))
        tab.close()
    assert seen == {("screen", True), ("screen", False), ("print", True)}
