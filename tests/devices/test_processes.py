"""Runs of two processes over loopback: equal results, and every way in which one process may end."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from drex_jax.cli import exit_status

ROOT = pathlib.Path(__file__).parents[2]
PATIENCE = 240  # seconds until a test gives up on processes that hang
TINY = (
    f"--config={ROOT / 'experiments' / 'quickstart.py'}",
    "--config.data.synthetic.num_interactions=300",
    "--config.data.synthetic.num_users=20",
    "--config.data.synthetic.num_items=15",
    "--config.text.enabled=false",
    "--config.model.state_size=4",
    "--config.model.feature_size=4",
    "--config.train.bptt_windows=2",
    "--config.train.epochs=2",
    "--config.baselines=('global_mean',)",
)
LONG = (*TINY, "--config.train.epochs=60", "--config.train.patience=60", "--config.evaluate.ranking=false")


class Ended(NamedTuple):
    """The result of a process."""

    status: int
    out: str
    err: str


def environment(devices: int = 1, **others: str) -> dict[str, str]:
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)} | others


def start(number: int, port: int, *command: str) -> subprocess.Popen[str]:
    """One of two processes."""
    return subprocess.Popen(
        [sys.executable, *command],
        env=environment(JAX_COORDINATOR_ADDRESS=f"127.0.0.1:{port}", JAX_NUM_PROCESSES="2", JAX_PROCESS_ID=str(number)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Pair:
    """The two processes of one run."""

    def __init__(self, *commands: tuple[str, ...]):
        port = free_port()
        self.processes = [start(number, port, *command) for number, command in enumerate(commands)]

    def ended(self) -> list[Ended]:
        found = []
        for process in self.processes:
            out, err = process.communicate(timeout=PATIENCE)
            found.append(Ended(process.returncode, out, err))
        return found

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def pair() -> Iterator[Any]:
    """Start pairs of processes, which end with the test at the latest."""
    started: list[Pair] = []

    def begin(*commands: tuple[str, ...]) -> Pair:
        started.append(Pair(*commands))
        return started[-1]

    yield begin
    for each in started:
        each.kill()


def run_of_two(*arguments: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    command = ("-m", "drex_jax.main", *arguments, "--config.devices.distributed=true")
    return command, command


def scripts(first: str, second: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Code that joins two processes and then does different things in them."""
    begin = "import os, pathlib, time\nfrom drex_jax.devices import processes\n"
    begin += "processes.connect(True)\nprocesses.agree(True)\n"
    return ("-c", begin + first), ("-c", begin + second)


def run_of_one(*arguments: str) -> None:
    """The same run by one process with two devices."""
    command = [sys.executable, "-m", "drex_jax.main", *arguments]
    subprocess.run(command, env=environment(devices=2), check=True, capture_output=True, timeout=PATIENCE)


def lines(workdir: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def results(workdir: pathlib.Path) -> dict[str, Any]:
    return json.loads((workdir / "results.json").read_text())


def test_two_processes_give_the_results_of_one(pair: Any, tmp_path: pathlib.Path) -> None:
    run_of_one(*TINY, f"--workdir={tmp_path / 'one'}")
    first, second = pair(*run_of_two(*TINY, f"--workdir={tmp_path / 'two'}")).ended()
    assert (first.status, second.status) == (0, 0), first.err + second.err
    one, two = results(tmp_path / "one"), results(tmp_path / "two")
    assert [entry["environment"]["processes"] for entry in (one, two)] == [1, 2]
    assert [entry["environment"]["devices"] for entry in (one, two)] == [2, 2]
    for way, metrics in one["test"].items():
        assert two["test"][way] == pytest.approx(metrics, abs=1e-4)
    assert two["baselines"]["global_mean"]["test"] == one["baselines"]["global_mean"]["test"]
    assert [line["step"] for line in lines(tmp_path / "two")] == [line["step"] for line in lines(tmp_path / "one")]
    assert "run directory" in first.out
    assert "run directory" not in second.out
    assert "training" in first.err
    assert second.err == ""


@pytest.mark.thorough
def test_a_signal_to_one_stops_both_and_one_goes_on(pair: Any, tmp_path: pathlib.Path) -> None:
    workdir = tmp_path / "run"
    both = pair(*run_of_two(*LONG, f"--workdir={workdir}"))
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and not (
        (workdir / "metrics.jsonl").exists() and len((workdir / "metrics.jsonl").read_text()) > 0
    ):
        time.sleep(0.02)
    both.processes[1].send_signal(signal.SIGTERM)
    first, second = both.ended()
    assert (first.status, second.status) == (exit_status.STOPPED, exit_status.STOPPED), first.err + second.err
    assert "saved" in first.err
    assert "saved" in second.err
    (saved,) = (int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert saved == lines(workdir)[-1]["step"] < 120
    run_of_one(*LONG, f"--workdir={workdir}")
    assert [line["step"] for line in lines(workdir)] == list(range(1, 121))
    assert results(workdir)["timing"]["resumed_from"] == saved


def test_a_mistake_ends_both(pair: Any, tmp_path: pathlib.Path) -> None:
    missing = tmp_path / "missing.csv"
    arguments = (*TINY, "--config.data.format=table", f"--config.data.path={missing}", f"--workdir={tmp_path / 'run'}")
    first, second = pair(*run_of_two(*arguments)).ended()
    assert (first.status, second.status) == (exit_status.MISTAKE, exit_status.MISTAKE), first.err + second.err
    assert f"drex_jax: {missing}: no such file" in first.err
    assert second.err == "drex_jax: ended by process 0 of this run, whose output says why\n"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("time.sleep(600)", "processes.leave(75)"),
        ("processes.leave(75)", "processes.wait()"),
        ("processes.agree(True)", "processes.leave(75)"),
        ("processes.leave(75)", "processes.leave(75)"),
    ],
)
def test_who_leaves_takes_the_other_along(pair: Any, first: str, second: str) -> None:
    ended = pair(*scripts(first, second)).ended()
    assert [process.status for process in ended] == [75, 75], ended
    for process, does in zip(ended, (first, second), strict=True):
        assert ("ended by process" in process.err) == ("leave" not in does)


def test_signals_are_answered_while_waiting(pair: Any) -> None:
    """The end of the interpreter needs no other process."""
    answer = (
        "import signal\nsignal.signal(signal.SIGTERM, lambda *_: processes.leave(75))\nprint('ready', flush=True)\n"
    )
    both = pair(*scripts("time.sleep(600)", answer + "processes.wait()"))
    while both.processes[1].stdout.readline() not in ("ready\n", ""):
        pass
    both.processes[1].send_signal(signal.SIGTERM)
    assert [process.status for process in both.ended()] == [75, 75]


def test_a_killed_process_does_not_leave_the_other_waiting(pair: Any) -> None:
    ended = pair(*scripts("os.kill(os.getpid(), 9)", "processes.wait()")).ended()
    assert ended[0].status == -signal.SIGKILL
    assert ended[1].status not in (0, -signal.SIGKILL)


def test_a_folder_that_is_not_shared_is_told(pair: Any, tmp_path: pathlib.Path) -> None:
    script = f"""
processes.SHARED_SECONDS = 1.0
for name in ("shared", str(processes.is_main_process())):
    here = pathlib.Path({str(tmp_path)!r}) / name
    if processes.is_main_process():
        here.touch()
    try:
        processes.await_file(here)
    except ValueError as error:
        print("told", error)
    else:
        print("seen", processes.exists_on_main_process(here), processes.exists_on_main_process(here / "missing"))
"""
    for process in pair(*scripts(script, script)).ended():
        assert "seen True False\n" in process.out, process.err
        assert "told" in process.out, process.err
        assert "--workdir must be on a file system that they share" in process.out
