"""`metrics.jsonl` after a restart: an incomplete end is dropped, a damaged line is reported, no step occurs twice."""

from __future__ import annotations

import json
import logging
import pathlib

import pytest

from drex_jax.runs.step_log import MetricsLog

LINES = [json.dumps({"step": step, "epoch": 1, "loss": 0.5 / step}) for step in range(1, 6)]


def gone_on(path: pathlib.Path, lines: list[str], caplog: pytest.LogCaptureFixture) -> tuple[list[int], list[str]]:
    """Return the logged steps after continuing from the third step, and the warnings."""
    path.write_text("\n".join(lines))
    with caplog.at_level(logging.WARNING), MetricsLog(path, 3) as log:
        log.write(5, 1, [{"loss": 0.1}, {"loss": 0.2}], {})
    return [json.loads(line)["step"] for line in path.read_text().splitlines()], caplog.messages


@pytest.mark.parametrize(
    ("lines", "steps", "lost"),
    [
        (LINES, [1, 2, 3, 4, 5], 0),
        ([*LINES[:4], LINES[4][:9]], [1, 2, 3, 4, 5], 0),
        ([LINES[0], LINES[1].replace('"', "?"), *LINES[2:]], [1, 3, 4, 5], 1),
        ([LINES[0], LINES[1].replace("2", "1"), *LINES[2:]], [1, 3, 4, 5], 1),
        ([LINES[0], "[]", "7", '{"step": "2"}', *LINES[2:]], [1, 3, 4, 5], 1),
        ([], [4, 5], 3),
    ],
)
def test_a_log_that_is_gone_on_with(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, lines: list[str], steps: list[int], lost: int
) -> None:
    found, said = gone_on(tmp_path / "metrics.jsonl", lines, caplog)
    assert found == steps
    assert [f"the lines of {lost} of 3 steps are damaged or gone" in each for each in said] == [True] * (lost > 0)
