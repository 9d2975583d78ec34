"""Saving: of two writers one, whole or not at all; what was loaded is what is saved; places where nothing can be."""

from __future__ import annotations

import pathlib
import resource
import shutil
from typing import Any

import numpy as np
import pytest

from drex_jax import Recommender
from drex_jax.common.errors import UserError
from drex_jax.data import storage
from drex_jax.serving import update_log

LAST = 2e9


@pytest.fixture
def run(finished_popularity: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(finished_popularity, tmp_path / "run"))


def updated(run: pathlib.Path, user: str, moment: float = LAST) -> Recommender:
    recommender = Recommender.load(run)
    assert recommender.update([{"user": user, "item": "item1", "timestamp": moment}]).applied == 1
    return recommender


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def test_two_who_save_at_the_same_moment(run: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, write = updated(run, "ann"), updated(run, "bob"), update_log.write_text

    def meanwhile(*arguments: Any) -> None:
        with pytest.raises(UserError, match="is being updated by somebody else at this moment"):
            other.save()
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(update_log, "write_text", meanwhile)
        one.save()
    with pytest.raises(UserError, match="somebody else has updated it"):
        other.save()
    loaded = Recommender.load(run)
    assert (loaded.knows_user("ann"), loaded.knows_user("bob")) == (True, False)


def test_nobodys_batch_is_lost_to_who_had_nothing_to_save(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    idle = Recommender.load(run)
    updated(run, "bob").save()
    idle.save()
    with pytest.raises(UserError, match="1 updates, and had 0 when it was loaded"):
        idle.save(tmp_path / "copy")
    assert [each.name for each in tmp_path.iterdir()] == ["run"]
    idle.update([{"user": "ann", "item": "item1", "timestamp": LAST}])
    for folder in (None, tmp_path / "copy"):
        with pytest.raises(UserError, match="1 updates, and had 0 when it was loaded"):
            idle.save(folder)
    assert Recommender.load(run).knows_user("bob")


def test_a_load_while_somebody_commits(run: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    updated(run, "ann").save()
    writers, read = [updated(run, "bob", LAST + 1)], update_log._read

    def slowly(*arguments: Any) -> Any:
        if writers:
            writers.pop().save()  # takes the batch away that was to be read
        return read(*arguments)

    monkeypatch.setattr(update_log, "_read", slowly)
    assert Recommender.load(run).knows_user("bob")


def test_an_update_that_was_interrupted_is_not_gone_on_from(run: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recommender, before = Recommender.load(run), files(run)
    row = {"user": "ann", "item": "new", "timestamp": LAST}

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recommender._live.updater, "advance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            recommender.update([row])
    for question in (
        lambda: recommender.update([row | {"user": "bob"}]),
        recommender.save,
        lambda: recommender.recommend("ann", 2),
        lambda: recommender.explain("ann"),
    ):
        with pytest.raises(UserError, match="load the run again"):
            question()
    assert files(run) == before


def test_a_disk_that_is_full(run: pathlib.Path) -> None:
    """NumPy's error has no number then, and of a small file there is none."""
    updated(run, "ann").save()
    recommender = updated(run, "bob", LAST + 1)
    assert len(recommender._live.states) == 2  # made before there is no room
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (50, 100, 130, 140):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
            with pytest.raises(UserError, match="cannot be written"):
                recommender.save()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        loaded = Recommender.load(run)
        assert (loaded.knows_user("ann"), loaded.knows_user("bob")) == (True, False)
    recommender.save()
    assert Recommender.load(run).knows_user("bob")


def test_columns_that_were_not_written_whole(run: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recommender, write = updated(run, "ann"), storage._save

    def cut(path: pathlib.Path, column: np.ndarray) -> None:
        write(path, column)
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 1)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "_save", cut)
        with pytest.raises(UserError, match="not written whole"):
            recommender.save()
    assert not Recommender.load(run).knows_user("ann")
    recommender.save()
    assert Recommender.load(run).knows_user("ann")


@pytest.mark.parametrize("column", ["rows/user.npy", "rows/item.npy", "interactions/timestamp.npy"])
def test_a_bit_that_flips_in_an_update(run: pathlib.Path, column: str) -> None:
    """The columns are as well formed as they were."""
    updated(run, "ann").save()
    file = run / "updates" / "1" / column
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"updates/1: what is there is not what was saved"):
        Recommender.load(run)


def test_places_where_nothing_can_be_saved(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    recommender, before = updated(run, "ann"), files(run)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for folder, message in {
        run / "within": "is within the run directory",
        run / "deep" / "within": "is within the run directory",
        tmp_path / "file" / "x": "cannot be written",
        tmp_path / "link": "exists already",
        tmp_path / ("y" * 300): "File name too long",
        "a\0b": "is no directory",
        5: "is no directory",
    }.items():
        with pytest.raises(UserError, match=message) as told:
            recommender.save(folder)  # pyright: ignore[reportArgumentType]
        assert "\n" not in str(told.value)
    assert files(run) == before
    assert {each.name for each in tmp_path.iterdir()} == {"run", "file", "link"}
    (run / "updates").write_text("")  # in the way
    with pytest.raises(UserError, match="cannot be written"):
        recommender.save()
    shutil.rmtree(run)
    for folder in (None, tmp_path / "copy"):
        with pytest.raises(UserError, match="no longer there"):
            recommender.save(folder)
    assert not run.exists()
