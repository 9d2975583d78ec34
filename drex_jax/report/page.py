"""The report of a finished run: one HTML file that needs no network."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import importlib.resources
import json
import logging
import pathlib
from typing import Any

from drex_jax.common.errors import UserError
from drex_jax.common.files import write_text
from drex_jax.common.version import __version__
from drex_jax.report import breakdowns, examples, figures, glossary, headline, profiles, robustness, training
from drex_jax.report.run import Finished
from drex_jax.report.section import Figure, Section
from drex_jax.runs.layout import RunLayout
from drex_jax.runs.lock import sole_writer

LOGGER = logging.getLogger(__name__)
_ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def write(workdir: pathlib.Path) -> pathlib.Path:
    """Write `report.html` into the directory of a finished run, atomically, and return its path.

    Nothing else in the directory changes. The test with missing modalities and the example recommendations are computed
    for the report; all other results are read from the directory.

    Raises:
      UserError: there is no finished run, it is damaged, a package of the extra `report` is not installed, or
        another process writes there.
    """
    _environment()
    figures.require()
    run = Finished(workdir)
    with sole_writer(workdir):
        path = RunLayout(workdir).report
        write_text(path, render(run, sections(run)))
    return path


def sections(run: Finished) -> list[Section]:
    """Return all sections in the order of the page. A section without content says what is missing."""
    made = []
    for make in (
        headline.headline_section,
        headline.what_was_run,
        training.training_curves,
        breakdowns.by_rating,
        breakdowns.by_history,
        robustness.robustness_section,
        training.throughput,
        profiles.keyword_profiles,
        examples.examples_section,
        glossary.glossary_section,
    ):
        LOGGER.info("report: %s", make.__name__.replace("_", " "))
        made.append(make(run))
    return made


def render(run: Finished, shown: list[Section]) -> str:
    """Return the page as HTML."""
    script = _read("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    dataset = run.results["dataset"]
    return (
        _environment()
        .from_string(_read("page.html.jinja"))
        .render(
            title=f"{run.results['model']} on {dataset['name']}",
            run=run.workdir.resolve().name,
            version=__version__,
            style=_read("page.css"),
            script=script,
            policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; "
            "form-action 'none'",
            sections=[dataclasses.replace(one, figures=[_placed(figure) for figure in one.figures]) for one in shown],
            embedded=embedded,
        )
    )


def embedded(data: Any) -> str:
    """Return data as JSON that is safe inside a script element: nothing in it can end the element."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPED)


def _placed(figure: Figure) -> Figure:
    import markupsafe

    title, description = str(markupsafe.escape(figure.title)), str(markupsafe.escape(figure.description))
    return dataclasses.replace(figure, svg=figures.placed(figure.svg, figure.name, title, description))


def _environment() -> Any:
    try:
        import jinja2
    except ImportError:
        raise UserError("--mode=report needs the package jinja2: pip install -e '.[report]'") from None
    return jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _read(name: str) -> str:
    return importlib.resources.files("drex_jax.report").joinpath(name).read_text(encoding="utf-8")
