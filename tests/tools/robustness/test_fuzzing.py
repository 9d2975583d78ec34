"""Every reader on a few hostile inputs (tools/fuzz.py: a million), and the detection of a lost row."""

from __future__ import annotations

import pathlib
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drex_jax.data.mmrec_build import amazon_ratings
from drex_jax.data.readers.chunk import Chunk
from tools.robustness.fuzzing import mutations, targets
from tools.robustness.fuzzing.target import Target, content_of, count_json, count_records

SLOW = {"run": 10, "model": 2}  # number of inputs; other targets get 25


@pytest.fixture(scope="module", params=targets.TARGETS)
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Target, int]:
    folder = tmp_path_factory.mktemp("hostile") / "target"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DREX_JAX_DATA", raising=False)  # the same inputs everywhere
        return targets.TARGETS[request.param][0](folder), SLOW.get(request.param, 25)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax: callbacks after an error
def test_good_and_hostile_input(target: tuple[Target, int]) -> None:
    reading, inputs = target
    for seed in reading.seeds:
        reading.check(seed)

    @settings(max_examples=inputs, derandomize=True, deadline=None, database=None)
    @given(st.integers(0, 2**32))
    def hostile(seed: int) -> None:
        draw = random.Random(seed)
        reading.check(mutations.mutated(draw.choice(reading.seeds), draw))

    hostile()


def test_a_lost_row_is_noticed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = amazon_ratings.read

    def lossy(*arguments: object) -> Iterator[Chunk]:
        for chunk in read(*arguments):  # pyright: ignore[reportArgumentType]
            yield Chunk(chunk.user, chunk.item, chunk.timestamp[1:], chunk.rating, chunk.text)

    reading = targets.TARGETS["amazon_ratings"][0](tmp_path / "target")
    reading.check(reading.seeds[0])
    monkeypatch.setattr(amazon_ratings, "read", lossy)
    with pytest.raises(AssertionError, match="11 kept, 0 of 12"):
        reading.check(reading.seeds[0])


def test_rows_are_counted() -> None:
    assert count_json(b'{}\n\n \r\n{"a"\n') == 2
    assert count_records(b"a,b\n1,2\n\n3\n", ",") == 2
    assert count_records(b'1,"2\n3"\n4,5\n', ",", 2) == 2
    assert count_records(b'1,"2\n', ",", 2) is None
    assert content_of(mutations.GZIP + b"no gzip") is None


def test_accidents_happen_to_every_file() -> None:
    rows = b"".join(b'{"user": "u%d", "rating": %d}\n' % (n, n) for n in range(9))
    made = {mutations.mutated(rows, random.Random(seed)) for seed in range(300)}
    assert len(made) > 250
    assert any(each.startswith(mutations.GZIP) for each in made)
    assert any(each.startswith(mutations.BOM) or mutations.BOM in each for each in made)
    assert any(b"\r\n" in each for each in made)
    assert max(map(len, made)) <= mutations.MOST
