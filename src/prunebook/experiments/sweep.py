"""Tables of long runs on several processes or machines: every run gets its row, whatever dies on the way.

Each process does one run at a time, because torch's random numbers belong to the process: a run gives the
same row wherever it is done.

Chapter: book/comparison.ipynb
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import threading
from argparse import ArgumentParser, Namespace
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from prunebook.experiments.tables import Run, append_row, drop_errors, fill, missing

Measure = Callable[[Run], dict[str, object]]

LIVES = 3  # workers that a run may kill
LOOK = 2.0  # seconds after which a sweep looks for new workers
log = logging.getLogger(__name__)


class WorkerDiedError(RuntimeError):
    """The process that did a run was killed, ``LIVES`` times."""


def sweep(
    runs: Sequence[Run],
    path: Path,
    measure: Measure[Run],
    executor: Executor | None = None,
    retry: bool = False,
) -> Iterator[dict[str, object]]:
    """Measure the runs that have no row yet; as each ends, append its row to the table and yield it.

    A run that raises gets a row too: its column ``error`` says why, where that of the others is empty. What
    is stopped goes on where it stopped, and several sweeps of one machine may fill one table.

    Args:
        runs: frozen dataclasses.
        path: the table.
        measure: returns what the row says besides the run itself; for an executor a top-level function.
        executor: where to run, such as `processes` or `dask`; None: here, one after the other.
        retry: do the runs again whose rows hold an error.
    """
    if retry and path.is_file():
        drop_errors(runs, path)
    work = partial(_attempt, measure)
    return fill(runs, path, work) if executor is None else _spread(runs, path, work, executor)


def _spread(
    runs: Sequence[Run], path: Path, work: Measure[Run], executor: Executor
) -> Iterator[dict[str, object]]:
    """Keep each worker busy with one run; the others wait here, so that a death never is blamed on them."""
    waiting = deque(missing(runs, path))
    width = getattr(executor, "width", runs.__len__)
    running: dict[Future[dict[str, object]], Run] = {}
    with tqdm(total=len(waiting), unit="run", desc=path.stem) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < width():
                    run = waiting.popleft()
                    if missing([run], path):
                        running[executor.submit(work, run)] = run
                    else:
                        bar.update()  # another process has been faster
                for future in wait(running, timeout=LOOK, return_when=FIRST_COMPLETED).done:
                    row = _write(path, running[future], future, executor)
                    del running[future]
                    bar.update()
                    yield row
        finally:
            for future, run in running.items():
                if not future.cancel() and future.done() and not future.exception():
                    _write(path, run, future, executor)


def _write(path: Path, run: Any, future: Future[dict[str, object]], executor: Executor) -> dict[str, object]:
    try:
        measured = future.result()
    except getattr(executor, "died", ()):
        measured = {"error": "worker died"}
    row = asdict(run) | measured
    append_row(path, row, run)
    return row


_TURN = threading.RLock()


def _attempt(measure: Measure[Run], run: Run) -> dict[str, object]:
    """Measure a run, alone in this process, and say in one line what it raised."""
    with _TURN:
        try:
            return measure(run) | {"error": ""}
        except Exception as error:
            log.warning("%s", run, exc_info=True)
            return {"error": ": ".join(filter(None, [type(error).__name__, " ".join(str(error).split())]))}


@contextmanager
def processes(n: int, threads: int | None = None) -> Iterator[Executor]:
    """Give an executor of ``n`` processes on this machine, and end them.

    A process that is killed is replaced, and its run done again; a run that kills three fails with
    `WorkerDiedError`. The processes import the main module, so that must not start them when it is imported.

    Args:
        n: how many, from 1 on.
        threads: of torch in each; None: those of this process divided by ``n``, at least 1.

    Raises:
        ValueError: an argument is below 1.
    """
    for name, value in {"n": n, "threads": threads}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    executor = _Processes(n, threads or max(1, torch.get_num_threads() // n))
    try:
        yield executor
    finally:
        executor.end()


class _Processes(ThreadPoolExecutor):
    """Threads with a process each: one that dies takes one run with it."""

    died = WorkerDiedError

    def __init__(self, n: int, threads: int) -> None:
        super().__init__(n)
        self.threads = threads
        self.own = threading.local()
        self.all: list[SpawnProcess] = []
        self.ended = False
        self.lock = threading.Lock()

    def width(self) -> int:
        return self._max_workers

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        return super().submit(self._ask, pickle.dumps(partial(function, *arguments, **named)))

    def _ask(self, call: bytes) -> Any:
        """Have a call done in this thread's process, and return what it returned."""
        for _ in range(LIVES):
            if not hasattr(self.own, "pipe"):
                self.own.pipe = self._start()
            try:
                self.own.pipe.send_bytes(call)
                fine, answer = self.own.pipe.recv()
            except (EOFError, OSError):
                del self.own.pipe
                continue
            if not fine:
                raise answer
            return answer
        raise WorkerDiedError(f"the worker died {LIVES} times")

    def _start(self) -> Connection:
        with self.lock:
            if self.ended:
                raise CancelledError
            spawn = multiprocessing.get_context("spawn")  # a forked torch may hang
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(theirs, self.threads))
            process.start()
            theirs.close()  # so that ours ends with the process
            self.all.append(process)
            return ours

    def end(self) -> None:
        """Kill the processes, and the runs that they do."""
        with self.lock:
            self.ended = True
            for process in self.all:
                process.kill()
        self.shutdown(cancel_futures=True)
        for process in self.all:
            process.join()


def _serve(pipe: Connection, threads: int) -> None:
    """Do what comes through a pipe, as long as the process at its other end lives."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal interrupts this one too; the parent ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    while True:
        call = pipe.recv_bytes()
        try:
            answer = pickle.dumps((True, pickle.loads(call)()))
        except Exception as error:
            answer = pickle.dumps((False, error))
        pipe.send_bytes(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def dask(address: str) -> Iterator[Executor]:
    """Give an executor on the workers of a Dask cluster, one run at a time on each.

    Workers may come and go: the run of one that is killed is done on another, and a run that kills several
    fails. A worker with several threads gives them all to torch. The workers need this package, and the data.

    Args:
        address: of the scheduler, such as "tcp://10.0.0.1:8786"; or "local" or "local:N" for a cluster of N
            processes (default 2) with one thread each on this machine, which nothing outside it can reach.

    Raises:
        ValueError: N is no number from 1 on.
        ImportError: dask.distributed is not installed.
    """
    try:
        from dask import config
        from distributed import Client, KilledWorker, LocalCluster, Worker, WorkerPlugin
    except ImportError as error:
        raise ImportError("a Dask cluster needs one more package: pip install prunebook[cluster]") from error

    class TorchThreads(WorkerPlugin):  # type: ignore[misc]
        def setup(self, worker: Worker) -> None:
            torch.set_num_threads(worker.state.nthreads)

    local, _, n = address.partition(":")
    with ExitStack() as opened:
        if local == "local":
            if not (n or "2").isdecimal() or n == "0":
                raise ValueError(f'address must be "local:N" with N from 1 on, got "{address}"')
            # A killed worker may take longer to be back than Dask waits before it gives the place up.
            opened.enter_context(config.set({"distributed.deploy.lost-worker-timeout": "1h"}))
            cluster = LocalCluster(
                n_workers=int(n or 2),
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address=None,
                scheduler_kwargs={"allowed_failures": LIVES - 1},
            )
            address = opened.enter_context(cluster)
        client = opened.enter_context(Client(address))
        client.register_plugin(TorchThreads(), name="prunebook")  # replaces that of an earlier sweep
        executor = client.get_executor(pure=False)
        executor.width = lambda: max(1, len(client.nthreads()))
        executor.died = KilledWorker
        yield executor


def add_executor_options(parser: ArgumentParser) -> None:
    """Add the options that say where a command's runs are done."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--processes", type=int, metavar="N", help="do N runs at once, in a process each")
    where.add_argument(
        "--dask", metavar="ADDRESS", help='do the runs on a Dask cluster; "local:N": on N workers here'
    )
    parser.add_argument("--retry", action="store_true", help="do the runs again that failed")


def executor_of(chosen: Namespace) -> AbstractContextManager[Executor | None]:
    """Give the executor that a command's options ask for; None where they do not."""
    if chosen.dask is not None:
        return dask(chosen.dask)
    if chosen.processes is not None:
        return processes(chosen.processes)
    return nullcontext()
