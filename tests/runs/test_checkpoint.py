"""Checkpoints: the newest readable one, warnings for others, refusal of other shapes and types."""

from __future__ import annotations

import gc
import logging
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from drex_jax.common.errors import DivergedError, UserError
from drex_jax.runs import checkpoint
from drex_jax.runs.checkpoint import Checkpoints, load_model, save_model

# A read that Orbax gives up leaves coroutines behind, of which Python complains when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
LIKE = {
    "w": jnp.zeros((64, 3)),
    "empty": jnp.zeros((8, 0)),
    "n": jnp.zeros((), jnp.int32),
    "none": {},
    "no": ((), None),
}


def arrays(value: int) -> dict[str, Any]:
    return LIKE | {"w": jnp.full((64, 3), float(value)), "n": jnp.asarray(value, jnp.int32)}


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Collect unfinished coroutines before the next test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    with Checkpoints(folder) as checkpoints:
        for step in (1, 5, 7):
            checkpoints.save(step, arrays(step), {"step": step, "value": None})
    return folder


@pytest.fixture
def folder(saved: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return shutil.copytree(saved, tmp_path / "checkpoints")


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def restored(folder: pathlib.Path, like: Any = LIKE) -> tuple[int, Any, dict[str, Any]] | None:
    with Checkpoints(folder) as checkpoints:
        return checkpoints.restore(like)


def test_newest_is_restored_and_the_oldest_is_gone(folder: pathlib.Path) -> None:
    found = restored(folder)
    assert found is not None
    step, tree, facts = found
    assert (step, facts) == (7, {"step": 7, "value": None})
    np.testing.assert_array_equal(tree["w"], arrays(7)["w"])
    assert sorted(path.name for path in folder.iterdir() if path.name.isdigit()) == ["5", "7"]


def test_nothing_saved(tmp_path: pathlib.Path) -> None:
    assert restored(tmp_path / "new") is None


def test_step_is_saved_once(folder: pathlib.Path) -> None:
    with Checkpoints(folder) as checkpoints, pytest.raises(RuntimeError, match="step 7"):
        checkpoints.save(7, arrays(7), {})


def truncate(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: pathlib.Path) -> None:
    path.write_bytes(b"")


def flip(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [truncate, empty, flip, pathlib.Path.unlink])
def test_any_damaged_file_of_the_newest_step(
    saved: pathlib.Path, tmp_path: pathlib.Path, damage: Callable[[pathlib.Path], None]
) -> None:
    """With any damaged file, either the step is still complete, or the step before it is used."""
    fallen_back = 0
    for number, file in enumerate(files(saved / "7")):
        folder = shutil.copytree(saved, tmp_path / str(number))
        damage(folder / file.relative_to(saved))
        found = restored(folder)
        assert found is not None, file
        step, tree, facts = found
        assert facts["step"] == step, file
        np.testing.assert_array_equal(tree["w"], arrays(step)["w"])
        fallen_back += step == 5
    assert fallen_back >= 3


@pytest.mark.parametrize("what", ["w", "n", "facts"])
def test_what_decodes_and_is_not_what_was_saved(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """Damage of one bit, in an array or in a number, that Orbax does not notice."""
    restore = checkpoint.ocp.CheckpointManager.restore

    def damaged(self: Any, step: int, **arguments: Any) -> Any:
        found = restore(self, step, **arguments)
        if step == 7 and what == "facts":
            found["facts"]["facts"]["step"] = 6
        elif step == 7:
            bits = np.asarray(found["arrays"][what]).copy()
            bits.reshape(-1).view(np.uint8)[-1] ^= 1
            found["arrays"][what] = jnp.asarray(bits)
        return found

    monkeypatch.setattr(checkpoint.ocp.CheckpointManager, "restore", damaged)
    found = restored(folder)
    assert found is not None
    assert (found[0], found[2]["step"]) == (5, 5)
    assert any("checkpoint 7" in (said := record.getMessage()) and "SHA-256" in said for record in caplog.records)
    assert not (folder / "7").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_not_saved(folder: pathlib.Path, value: float) -> None:
    with Checkpoints(folder) as checkpoints, pytest.raises(DivergedError, match="w is not finite after step 9"):
        checkpoints.save(9, arrays(9) | {"w": jnp.full((64, 3), 1.0).at[60, 2].set(value)}, {})
    found = restored(folder)
    assert found is not None
    assert found[0] == 7


def test_a_digest_is_of_names_types_shapes_and_values() -> None:
    one = {"a": jnp.zeros((2, 3), jnp.bfloat16), "b": jnp.zeros(())}
    assert checkpoint.digest_of(one) == checkpoint.digest_of(dict(reversed(one.items())))
    others = [
        {"c": one["a"], "b": one["b"]},
        one | {"a": jnp.zeros((3, 2), jnp.bfloat16)},
        one | {"a": jnp.zeros((2, 3), jnp.float16)},
        one | {"b": jnp.ones(())},
        one | {"b": -jnp.zeros(())},
    ]
    assert len({checkpoint.digest_of(each) for each in [one, *others]}) == 6


def test_a_model_without_a_digest_is_of_an_older_version(tmp_path: pathlib.Path) -> None:
    with checkpoint.ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "model", {"w": arrays(1)["w"], "n": arrays(1)["n"]})
    np.testing.assert_array_equal(load_model(tmp_path / "model", LIKE)["w"], arrays(1)["w"])


def test_empty_step_folder(folder: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "9").mkdir()
    with caplog.at_level(logging.WARNING), Checkpoints(folder) as checkpoints:
        found = checkpoints.restore(LIKE)
        assert found is not None
        assert found[0] == 7
        checkpoints.save(9, arrays(9), {"step": 9})  # the damaged step was removed, so it can be written again
    assert any("checkpoint 9" in record.getMessage() for record in caplog.records)
    found = restored(folder)
    assert found is not None
    assert found[0] == 9


def test_a_file_in_place_of_the_folder(tmp_path: pathlib.Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(UserError, match="checkpoints: is no folder; remove it"):
        restored(tmp_path / "checkpoints")


def test_no_step_can_be_read(folder: pathlib.Path) -> None:
    for step in ("5", "7"):
        shutil.rmtree(folder / step / "arrays")
    with pytest.raises(UserError, match=r"none of the checkpoints \[7, 5\]"):
        restored(folder)


@pytest.mark.parametrize(
    "like",
    [
        LIKE | {"w": jnp.zeros((64, 4))},
        LIKE | {"w": jnp.zeros((32, 3))},
        LIKE | {"w": jnp.zeros((64, 3), jnp.bfloat16)},
        LIKE | {"n": jnp.zeros((), jnp.float32)},
        LIKE | {"more": jnp.zeros(2)},
        {"w": LIKE["w"]},
    ],
)
def test_other_shapes_types_and_names_are_refused(folder: pathlib.Path, like: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="none of the checkpoints"):
        restored(folder, like)
    save_model(folder / "model", arrays(1))
    with pytest.raises(UserError, match="model: no finished model"):
        load_model(folder / "model", like)


def test_model(tmp_path: pathlib.Path) -> None:
    save_model(tmp_path / "model", arrays(1))
    save_model(tmp_path / "model", arrays(2))  # replaces it
    tree = load_model(tmp_path / "model", LIKE)
    np.testing.assert_array_equal(tree["w"], arrays(2)["w"])


@pytest.mark.parametrize("damage", [truncate, empty, flip, pathlib.Path.unlink])
def test_damaged_model(tmp_path: pathlib.Path, damage: Callable[[pathlib.Path], None]) -> None:
    save_model(tmp_path / "model", arrays(1))
    refused = 0
    for number, file in enumerate(files(tmp_path / "model")):
        folder = shutil.copytree(tmp_path / "model", tmp_path / str(number))
        damage(folder / file.relative_to(tmp_path / "model"))
        try:
            tree = load_model(folder, LIKE)
        except UserError as error:
            refused += str(folder) in str(error)
        else:
            np.testing.assert_array_equal(tree["w"], arrays(1)["w"])
    assert refused >= 2
    with pytest.raises(UserError, match="nowhere"):
        load_model(tmp_path / "nowhere", LIKE)


def test_a_model_that_would_fill_the_memory(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save_model(tmp_path / "model", {"zeros": np.zeros(10**6)})
    assert checkpoint.load_arrays(tmp_path / "model")["zeros"].shape == (10**6,)
    monkeypatch.setattr(checkpoint, "EXPANDS_FREELY", 10**6)
    with pytest.raises(UserError, match=r"no finished model can be read there \(8,000,0.. bytes of arrays in"):
        checkpoint.load_arrays(tmp_path / "model")
