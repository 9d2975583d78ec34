"""The door's promises: exit statuses, one line for a mistake, results on success."""

import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import types
from typing import Any

import pytest

import drex_jax.training
from drex_jax import main
from drex_jax.cli import command
from drex_jax.common.errors import Stopped, UserError
from drex_jax.config.tree import to_json
from drex_jax.runs import dataset
from drex_jax.runs.layout import RESULT_KEYS, SCHEMA
from drex_jax.training.settings import base, settings_of

ROOT = pathlib.Path(__file__).parents[2]
EXPERIMENT = f"--config={ROOT / 'experiments' / 'quickstart.py'}"
TINY = (
    EXPERIMENT,
    "--config.data.synthetic.num_interactions=300",
    "--config.data.synthetic.num_users=20",
    "--config.data.synthetic.num_items=15",
    "--config.text.enabled=false",
    "--config.model.state_size=4",
    "--config.model.feature_size=4",
    "--config.train.bptt_windows=2",
    "--config.baselines=('global_mean', 'running_bias')",
    "--config.devices.count=1",
    "--config.devices.mapping=none",
)
RESULTS: dict[str, Any] = {
    "model": "drex",
    "dataset": {"name": "made up", "sha256": "0" * 64, "users": 3, "items": 4, "interactions": 10},
    "split": {"kind": "random", "sizes": {"train": 8, "validation": 1, "test": 1}},
    "seeds": [0],
    "test": {"prequential": {"mse": 0.25}},
    "baselines": {},
}


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """A stand-in for `drex_jax.training.experiment` that remembers how it was called."""
    fake = types.SimpleNamespace(calls=[])

    def train(config: object, workdir: pathlib.Path) -> dict[str, Any]:
        fake.calls.append(("train", config, workdir))
        return RESULTS

    def evaluate(workdir: pathlib.Path) -> dict[str, Any]:
        fake.calls.append(("evaluate", workdir))
        return RESULTS

    fake.train, fake.evaluate = train, evaluate
    monkeypatch.setitem(sys.modules, "drex_jax.training.experiment", fake)  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(drex_jax.training, "experiment", fake, raising=False)
    return fake


def run(*arguments: object) -> int:
    return main.run(["main", *map(str, arguments)])


def test_success_prints_results_and_where_they_are(
    trainer: types.SimpleNamespace, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(EXPERIMENT, f"--workdir={tmp_path}", "--config.train.epochs=2") == 0
    ((mode, settings, workdir),) = trainer.calls
    assert (mode, settings.train.epochs, workdir) == ("train", 2, tmp_path)
    out, err = capsys.readouterr()
    assert "0.2500" in out
    assert str(tmp_path) in out
    assert err == ""


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("the file x has 3 columns,\n not 4"), 2, "drex_jax: the file x has 3 columns, not 4\n"),
        (Stopped("stopped at step 7"), 75, "drex_jax: stopped at step 7\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x"),
            2,
            "drex_jax: cannot write runs/x (No space left on device); make room or give another --workdir, "
            "then run the same command\n",
        ),
        (
            OSError(errno.EACCES, "Permission denied", "runs/x/run.lock"),
            2,
            "drex_jax: cannot write runs/x/run.lock (Permission denied); make room or give another --workdir, "
            "then run the same command\n",
        ),
        (
            OSError("4096 requested and 0 written"),
            2,
            "drex_jax: cannot write to the disk (4096 requested and 0 written); make room or give another --workdir, "
            "then run the same command\n",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
            2,
            "drex_jax: cannot write to the disk (No usable temporary directory found in ['/tmp']); make room or give "
            "another --workdir, then run the same command\n",
        ),
        (
            ValueError("OUT_OF_RANGE: Failed to write 2 bytes to file 12: File too large [os_error_code='27']"),
            2,
            "drex_jax: cannot write to the disk (File too large); make room or give another --workdir, "
            "then run the same command\n",
        ),
        (BrokenPipeError(), 75, "drex_jax: stopped, as its output was closed; the same command continues\n"),
    ],
)
def test_exceptions_with_a_status(
    trainer: types.SimpleNamespace,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    status: int,
    line: str,
) -> None:
    def fail(*_: object) -> None:
        raise error

    trainer.train = fail
    assert run(EXPERIMENT, f"--workdir={tmp_path}") == status
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("way", ["reader", "full", "latin-1", "utf-8"])
def test_output_that_cannot_be_written(way: str) -> None:
    text, times = "\u00f6\u0151 \udcff", 1 << 16 if way == "reader" else 1
    code = "import sys; from drex_jax.cli.exit_status import exit_code, print_stdout; "
    code += f"sys.exit(exit_code(lambda: print_stdout({text!a} * {times})))"
    environment = os.environ | {"PYTHONIOENCODING": way if "-" in way else "utf-8"}
    with open("/dev/full", "w") as full:
        out = full if way == "full" else subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=out, stderr=subprocess.PIPE, env=environment, cwd=ROOT
        )
        if way == "reader":
            assert process.stdout is not None
            process.stdout.read(1)
            process.stdout.close()
            process.stdout = None
        printed, err = process.communicate()
    if way == "full":
        assert (process.returncode, err.count(b"\n")) == (2, 1)
        assert b"No space left on device" in err
        return
    assert (process.returncode, err) == (0, b"")
    expected = {"latin-1": b"\xf6\\u0151 \\udcff\n", "utf-8": "\u00f6\u0151 ".encode() + b"\\udcff\n"}
    assert printed == expected.get(way)


def test_a_bug_keeps_its_traceback(trainer: types.SimpleNamespace, tmp_path: pathlib.Path) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a bug of ours")

    trainer.train = fail
    with pytest.raises(ValueError, match="a bug of ours"):
        run(EXPERIMENT, f"--workdir={tmp_path}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_outside_the_loop(
    trainer: types.SimpleNamespace, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    def kill(*_: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(10)

    trainer.train = kill
    before = signal.getsignal(number)
    assert run(EXPERIMENT, f"--workdir={tmp_path}") == 75
    assert signal.getsignal(number) is before
    assert number.name in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mode", "left"), [("update", "saved whole or not at all; run the same command"), ("explain", "nothing to save")]
)
def test_a_stop_says_what_it_leaves(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mode: str,
    left: str,
) -> None:
    from drex_jax.cli import answers

    monkeypatch.setattr(answers, "answer", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    (tmp_path / "config.json").write_text(to_json(settings_of(base())))
    asked = {"update": "--interactions=x", "explain": "--user=x"}[mode]
    assert run(f"--workdir={tmp_path}", f"--mode={mode}", asked) == 75
    assert left in capsys.readouterr().err


@pytest.mark.parametrize("way", ["lost", "turned into another error"])
def test_signal_where_its_exception_does_not_get_through(
    trainer: types.SimpleNamespace, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    """As in a callback from C, which can only report it, and in the import of an extension module."""

    def kill(*_: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        except Stopped:
            if way != "lost":
                raise ImportError("Encountered an error while initializing the extension.") from None
        time.sleep(10)
        raise AssertionError("the stop was lost")

    trainer.train = kill
    assert run(EXPERIMENT, f"--workdir={tmp_path}") == 75
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert capsys.readouterr().err == (
        "drex_jax: stopped by SIGINT; everything so far is saved, and the same command continues\n"
    )


def test_mistake_in_the_flags_does_not_reach_training(
    trainer: types.SimpleNamespace, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(EXPERIMENT, f"--workdir={tmp_path / 'run'}", "--config.train.epochs=-1") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert trainer.calls == []
    assert not (tmp_path / "run").exists()


def test_program_help() -> None:
    done = subprocess.run([sys.executable, "-m", "drex_jax.main", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert "--config.train.epochs=5" in done.stdout
    assert "--workdir" in done.stdout


def test_program_mistake_is_one_line_without_jax() -> None:
    code = (
        "import sys; from drex_jax import main; status = main.run(sys.argv); assert 'jax' not in sys.modules; "
        "sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, EXPERIMENT, "--config.nothing=1"], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("drex_jax: unknown configuration field nothing")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["amazon.py:Musical_Instruments", "yelp.py", "movielens.py", "tripadvisor.py"])
def test_experiment_without_its_data(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv("DREX_JAX_DATA", str(tmp_path / "nowhere"))
    assert run(f"--config={ROOT / 'experiments' / name}", f"--workdir={tmp_path / 'run'}") == 2
    err = capsys.readouterr().err
    assert str(tmp_path / "nowhere") in err
    assert err.count("\n") == 1


def test_real_run_then_again_then_evaluate(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (*TINY, f"--workdir={tmp_path}", "--config.train.epochs=2")
    assert run(*arguments) == 0
    first = capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["baselines"]) == {"global_mean", "running_bias"}
    assert f"{results['test']['prequential']['mse']:.4f}" in first
    assert "synthetic" in first
    written = (tmp_path / "results.json").stat().st_mtime_ns
    assert run(f"--workdir={tmp_path}") == 0  # finished: printed again, not trained again
    assert (tmp_path / "results.json").stat().st_mtime_ns == written
    again = capsys.readouterr().out
    assert first.endswith(again)  # what reading said is not said again
    assert again.startswith("data ")
    assert run(f"--workdir={tmp_path}", "--mode=evaluate") == 0
    evaluated = capsys.readouterr().out
    assert f"{results['test']['prequential']['mse']:.4f}" in evaluated


def test_stopped_run_continues(tmp_path: pathlib.Path) -> None:
    arguments = [*TINY, f"--workdir={tmp_path}", "--config.train.epochs=60", "--config.train.patience=60"]
    command = [sys.executable, "-m", "drex_jax.main", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 75, err
    assert not (tmp_path / "results.json").exists()
    assert run(*arguments) == 0
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert (tmp_path / "results.json").exists()


@pytest.mark.parametrize("name", ["results.json", "history/columns.json", "history/facts.json"])
def test_damaged_run_directory_is_a_mistake_told_in_one_line(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A run directory made by hand as far as `evaluate` reads it before it meets the damage."""
    settings = command.load_experiment(str(ROOT / "experiments" / "quickstart.py"))
    (tmp_path / "config.json").write_text(to_json(settings_of(settings)))
    (tmp_path / "history").mkdir()
    (tmp_path / "results.json").write_text(json.dumps(dict.fromkeys(RESULT_KEYS) | {"schema": SCHEMA, "seeds": [0]}))
    facts = {"notices": [], "vocabulary": False, "seconds": {}}
    (tmp_path / "history" / "facts.json").write_text(json.dumps(dict.fromkeys(dataset.FACT_KEYS) | facts))
    (tmp_path / "history" / "columns.json").write_text("{}")
    damaged = tmp_path / name
    for contents in (b"\x93NU", b"{}", b"[]", b"null"):
        damaged.write_bytes(contents)
        assert run(f"--workdir={tmp_path}", "--mode=evaluate") == 2
        err = capsys.readouterr().err
        assert str(damaged) in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(("schema", "message"), [(99, "a newer drex_jax"), (True, "damaged"), (0, "damaged")])
@pytest.mark.parametrize("mode", ["train", "evaluate"])
def test_results_of_another_version(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], schema: object, message: str, mode: str
) -> None:
    (tmp_path / "config.json").write_text(to_json(settings_of(base())))
    (tmp_path / "results.json").write_text(json.dumps(dict.fromkeys(RESULT_KEYS) | {"schema": schema}))
    assert run(f"--workdir={tmp_path}", f"--mode={mode}") == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_mistake_in_the_data_leaves_the_directory_to_the_corrected_command(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, workdir = tmp_path / "few.csv", tmp_path / "run"
    arguments = ["--config.data.format=table", "--config.data.rating_min=1", "--config.data.rating_max=5"]
    unrated = "".join(f"u{n % 4},i{n % 5},,{n},x\n" for n in range(40))
    for rows, message in (
        ("", "no rows"),
        ("a,b,3,5,x\n", "part would be empty"),
        (unrated, "validation has no such metric here"),  # told when the data are there
    ):
        table.write_text("user,item,rating,timestamp,text\n" + rows)
        assert run(*TINY, f"--workdir={workdir}", f"--config.data.path={table}", *arguments) == 2
        assert message in capsys.readouterr().err
        assert {path.name for path in workdir.iterdir()} <= {"quarantine.jsonl"}
        arguments.append(f"--config.seed={len(arguments)}")  # another configuration than before
    (workdir / "replicas").mkdir()
    (workdir / "replicas" / "mine").touch()
    assert run(*TINY, f"--workdir={workdir}", f"--config.data.path={table}", *arguments) == 2
    assert (workdir / "replicas" / "mine").exists()  # was there before
    assert not (workdir / "config.json").exists()


@pytest.mark.parametrize("name", ["results.json", "history/facts.json", "checkpoints/1"])
def test_a_run_without_its_configuration_is_not_taken_for_this_one(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{}")
    assert run(*TINY, f"--workdir={tmp_path}") == 2
    err = capsys.readouterr().err
    assert "no config.json to say of which run" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "config.json").exists()
