"""The guide and the notebook, executed as they are written."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder that looks like the root of the repository."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "experiments").symlink_to(ROOT / "experiments")
    return folder


def run(command: list[str], place: pathlib.Path) -> str:
    environment = os.environ | {
        "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1",
    }
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_guide_then_the_notebook(place: pathlib.Path) -> None:
    pytest.importorskip("matplotlib", reason="the report needs the extra `report`")
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "docs" / "guide.md").read_text(), re.DOTALL | re.MULTILINE)
    printed = [run(["bash", "-euc", block], place) for block in blocks]
    file, trained, asked, explained, updated, again, reported = printed
    assert file.startswith("author,hotel_id,rating,date,text")
    assert "test, prequential" in trained
    assert "somebody_new" in asked
    assert "rating is the predicted one, of 1..5" in asked
    assert re.search(r"predicted rating \d\.\d\d of 1\.\.5; score -?\d\.\d{4}, place \d+ of 60 items", explained)
    assert "keywords of user" in explained
    assert "last interactions of the item, by what each did to the predicted rating, via the item's state" in explained
    assert "100 interactions applied, 0 refused" in updated
    assert "nothing was changed" in again
    assert json.loads(again.strip().splitlines()[-1])["applied"] == 100
    assert (place / reported.strip().splitlines()[-1]).stat().st_size > 10_000

    cells = json.loads((ROOT / "docs" / "recommender.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    shown = "\n".join(
        "\n".join([*lines[:-1], f"print(repr(({lines[-1]})))"]) if not lines[-1].startswith(")") else "\n".join(lines)
        for lines in (cell.splitlines() for cell in code)
    )
    answers = run([sys.executable, "-c", shown], place)
    assert "PastInteraction(" in answers
    assert "Recommendation(item=" in answers.splitlines()[-1]
