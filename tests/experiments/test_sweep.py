"""Sweeps on executors: whatever dies, every run has one row. Called as a script, this is a sweep to kill."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch

from prunebook.experiments import tables
from prunebook.experiments.protocol import Row, Run
from prunebook.experiments.sweep import add_executor_options, dask, executor_of, sweep

PATIENCE = 300.0  # seconds, on a machine that is slow and busy


def measure(run: Run) -> Row:
    """Leave a file that says who began, and square the number."""
    folder = Path(run.folder)
    (folder / f"began-{run.number}-{os.getpid()}-{time.monotonic_ns()}").touch()
    if run.number >= run.kills:
        os.kill(os.getpid(), signal.SIGKILL)
    if run.number >= run.waits:
        until((folder / "go").is_file)
    trim = os.environ.get("MALLOC_TRIM_THRESHOLD_", "")
    return {"square": run.number**2, "threads": torch.get_num_threads(), "trim": trim}


def until(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(str(holds))
        time.sleep(0.02)


def odd(run: Run) -> Row:
    """Square odd numbers only."""
    if run.number % 2 == 0:
        raise ValueError(f"number must be odd,\n  got {run.number}")
    return measure(run)


def make_runs(folder: Path, count: int = 6, waits: int = 99, kills: int = 99) -> list[Run]:
    """Return runs of which those from ``waits`` on wait for the file "go", those from ``kills`` on kill."""
    return [Run(number=number, folder=str(folder), waits=waits, kills=kills) for number in range(count)]


def began(folder: Path, number: int) -> list[int]:
    """Return the processes that began a run."""
    return [int(path.name.split("-")[2]) for path in folder.glob(f"began-{number}-*")]


def begun_times(folder: Path, count: int = 6) -> list[int]:
    return [len(began(folder, number)) for number in range(count)]


def squares(table: Path) -> list[tuple[int, str]]:
    return sorted((int(str(row["number"])), str(row["square"])) for row in tables.read_rows(table))


def is_alive(pid: int) -> bool:
    """Tell whether a process is there and no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def script(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start this file in a process of its own, on the runs that the arguments describe."""
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, str(folder), "--processes", "2", *arguments],
            stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": "2"},  # of which each worker shall use one
            start_new_session=True,  # with its workers, so that they can be interrupted as by a terminal
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def test_every_run_gets_a_row_and_a_failed_one_says_why(tmp_path):
    table, runs = tmp_path / "table.csv", make_runs(tmp_path, 3)
    rows = list(sweep(runs, table, odd))
    assert [row.get("error") for row in rows] == [
        "ValueError: number must be odd, got 0",
        None,
        "ValueError: number must be odd, got 2",
    ]
    stored = tables.read_rows(table)
    assert list(stored[0]) == ["number", "folder", "waits", "kills", "square", "threads", "trim", "error"]
    assert [row.get("square", "") for row in stored] == ["", "1", ""]
    assert [row["error"] for row in stored] == [row.get("error", "") for row in rows]


def test_failed_runs_are_done_again_only_when_asked_for(tmp_path):
    table, runs = tmp_path / "table.csv", make_runs(tmp_path, 4)
    assert list(sweep(runs, table, measure, retry=True)) != []  # there is no table yet
    table.unlink()
    list(sweep(runs, table, odd))
    assert list(sweep(runs, table, measure)) == []
    again = list(sweep(runs[:2], table, measure, retry=True))
    assert [row["number"] for row in again] == [0]
    assert squares(table) == [(0, "0"), (1, "1"), (2, ""), (3, "9")]
    assert [row["number"] for row in sweep(runs, table, measure, retry=True)] == [2]
    assert squares(table) == [(number, str(number**2)) for number in range(4)]


def test_an_executor_gives_the_rows_that_this_process_gives(tmp_path):
    runs = make_runs(tmp_path)
    here = list(sweep(runs, tmp_path / "here.csv", odd))
    with ThreadPoolExecutor(3) as threads:
        there = list(sweep(runs, tmp_path / "there.csv", odd, threads))
    assert sorted(there, key=lambda row: row["number"]) == here
    assert squares(tmp_path / "there.csv") == squares(tmp_path / "here.csv")


def test_a_process_does_one_run_at_a_time(tmp_path):
    """Torch's random numbers belong to the process, so runs beside each other would mix theirs."""

    def draw(run: Run) -> Row:
        torch.manual_seed(run.number)
        time.sleep(0.01)  # lets another thread in, were it not for the lock
        return {"drawn": torch.rand(1).item()}

    runs = make_runs(tmp_path, 8)
    with ThreadPoolExecutor(4) as threads:
        rows = list(sweep(runs, tmp_path / "table.csv", draw, threads))
    for row in rows:
        torch.manual_seed(int(str(row["number"])))
        assert row["drawn"] == torch.rand(1).item()


def test_sweeps_that_fill_one_table_measure_no_run_twice(tmp_path):
    table, runs = tmp_path / "table.csv", make_runs(tmp_path)
    with ThreadPoolExecutor(1) as threads:
        threads.width = lambda: 1  # as the executors of this module say it
        one = sweep(runs, table, measure, threads)
        first = next(one)
        rest = list(sweep(runs[::-1], table, measure))
        assert list(one) == []
    assert sorted(row["number"] for row in [first, *rest]) == list(range(6))
    assert begun_times(tmp_path) == [1] * 6


def test_a_sweep_that_is_left_keeps_what_was_done_and_drops_the_rest(tmp_path):
    table, runs = tmp_path / "table.csv", make_runs(tmp_path, 4)
    futures: list[Future[object]] = [Future() for _ in runs]
    executor = ThreadPoolExecutor(1)
    executor.submit = lambda work, run: futures[run.number]
    for number in (0, 1):
        futures[number].set_result({"square": number**2, "error": ""})
    futures[2].set_running_or_notify_cancel()
    rows = sweep(runs, table, measure, executor)
    next(rows)
    rows.close()
    executor.shutdown()
    assert squares(table) == [(0, "0"), (1, "1")]
    assert [future.cancelled() for future in futures] == [False, False, False, True]


def test_what_is_no_fault_of_a_run_stops_the_sweep(tmp_path):
    """An executor that fails, and Ctrl-C in a run: what was done stays, and nothing else is written."""
    table, runs = tmp_path / "table.csv", make_runs(tmp_path, 3)
    future: Future[object] = Future()
    future.set_exception(RuntimeError("no cluster"))
    with ThreadPoolExecutor(1) as executor:
        executor.submit = lambda work, run: future
        with pytest.raises(RuntimeError, match="no cluster"):
            list(sweep(runs, table, measure, executor))
    assert not table.exists()

    def interrupted(run: Run) -> Row:
        if run.number == 1:
            raise KeyboardInterrupt
        return measure(run)

    with pytest.raises(KeyboardInterrupt):
        list(sweep(runs, table, interrupted))
    assert squares(table) == [(0, "0")]
    assert [row["number"] for row in sweep(runs, table, measure)] == [1, 2]


@pytest.mark.slow
def test_a_killed_worker_loses_no_run_and_a_run_that_kills_workers_ends(tmp_path):
    """Run 2 waits, and its worker is killed; run 5 kills each worker that begins it."""
    with script(tmp_path, "--waits", "2", "--kills", "5") as process:
        until(lambda: began(tmp_path, 2))
        (worker,) = began(tmp_path, 2)
        os.kill(worker, signal.SIGKILL)
        until(lambda: not is_alive(worker))
        (tmp_path / "go").touch()
        assert process.wait(PATIENCE) == 0
    rows = tables.read_rows(tmp_path / "table.csv")
    assert squares(tmp_path / "table.csv") == [*((number, str(number**2)) for number in range(5)), (5, "")]
    assert {row["number"]: row["error"] for row in rows if row["error"]} == {"5": "worker died"}
    assert {row["threads"] for row in rows if not row["error"]} == {"1"}  # not two in each
    assert {row["trim"] for row in rows} == {""}  # memory that is freed at once costs time
    times = begun_times(tmp_path)
    # a worker keeps what is done until it is fetched, so that more may die with it
    assert times[2] >= 2
    assert times[5] >= 3


@pytest.mark.slow
def test_a_killed_sweep_goes_on_with_what_is_missing(tmp_path):
    """Runs 3 and 4 wait when everything is killed."""
    table = tmp_path / "table.csv"
    with script(tmp_path, "--waits", "3") as process:
        until(lambda: len(tables.read_rows(table)) == 3 and began(tmp_path, 3) and began(tmp_path, 4))
        process.send_signal(signal.SIGKILL)
        workers = began(tmp_path, 3) + began(tmp_path, 4)
        until(lambda: not any(map(is_alive, workers)))  # they do not go on alone
    assert squares(table) == [(0, "0"), (1, "1"), (2, "4")]
    (tmp_path / "go").touch()
    with script(tmp_path, "--waits", "3") as process:
        assert process.wait(PATIENCE) == 0
    assert squares(table) == [(number, str(number**2)) for number in range(6)]
    assert begun_times(tmp_path) == [1, 1, 1, 2, 2, 1]


@pytest.mark.slow
def test_an_interrupted_sweep_stops_at_once(tmp_path):
    with script(tmp_path, "--waits", "1") as process:
        until(lambda: began(tmp_path, 0) and began(tmp_path, 1) and began(tmp_path, 2))
        workers = began(tmp_path, 1) + began(tmp_path, 2)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE) not in (0, None)
        until(lambda: not any(map(is_alive, workers)))
    assert squares(tmp_path / "table.csv") == [(0, "0")]
    assert begun_times(tmp_path) == [1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("address", ["local:0", "local:two", "local:-1"])
def test_a_cluster_needs_workers(address):
    complaint = f'address must be "local:N" with N from 1 on, got "{address}"'
    with pytest.raises(ValueError, match=complaint), dask(address):
        pass


def test_without_dask_it_says_what_to_install_and_works_here(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r'pip install "prunebook\[experiments\]"'), dask("local"):
        pass
    with executor_of(None) as executor:
        assert len(list(sweep(make_runs(tmp_path), tmp_path / "table.csv", measure, executor))) == 6


def test_options_say_where_runs_are_done():
    parser = argparse.ArgumentParser()
    add_executor_options(parser)
    chosen = parser.parse_args([])
    assert (chosen.dask, chosen.retry) == (None, False)
    assert parser.parse_args(["--processes", "3"]).dask == "local:3"
    assert parser.parse_args(["--dask", "tcp://10.0.0.1:8786", "--retry"]).retry
    with pytest.raises(SystemExit):
        parser.parse_args(["--processes", "3", "--dask", "local"])


def main() -> None:
    """Sweep over six runs, as a command would."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--waits", type=int, default=99)
    parser.add_argument("--kills", type=int, default=99)
    add_executor_options(parser)
    chosen = parser.parse_args()
    runs = make_runs(chosen.folder, waits=chosen.waits, kills=chosen.kills)
    with executor_of(chosen.dask) as executor:
        list(sweep(runs, chosen.folder / "table.csv", measure, executor, chosen.retry))


if __name__ == "__main__":
    main()
