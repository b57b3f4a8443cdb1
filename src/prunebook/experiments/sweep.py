"""Fill a table, here or on the workers of a cluster: every run gets its row, even if workers are killed.

Each process does one run at a time, because torch has one random generator for the whole process. So a run
trains the same network wherever it is done.

Chapter: book/comparison.ipynb
"""

from __future__ import annotations

import logging
import threading
from argparse import ArgumentParser
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from prunebook.experiments.protocol import Row, Run
from prunebook.experiments.tables import append_row, drop_errors, missing

Measure = Callable[[Run], Row]

LIVES = 3  # a run that kills this many workers fails
LOOK = 2.0  # seconds between two looks for new workers
log = logging.getLogger(__name__)
_TURN = threading.RLock()


def sweep(
    runs: Sequence[Run], path: Path, measure: Measure, executor: Executor | None = None, retry: bool = False
) -> Iterator[Row]:
    """Measure the runs that have no row yet; as each ends, append its row to the table and yield it.

    A run that raises an error gets a row too, whose column `error` says why. A sweep that was stopped can be
    called again to do the rest, and several sweeps on one machine may fill one table.

    Args:
        runs: The runs to measure.
        path: The file of the table.
        measure: Returns the columns of a row that come after the run's settings. It must be a
            top-level function if there is an executor.
        executor: Where to run, such as `dask`. None means here, one run after the other.
        retry: Whether to repeat runs whose row holds an error.
    """
    if retry and path.is_file():
        drop_errors(runs, path)
    executor, work = executor or _Here(), partial(_attempt, measure)
    waiting, running = deque(missing(runs, path)), dict[Future[Row], Run]()
    # one run per worker: if more waited there, they would be blamed for its death, too
    width = getattr(executor, "width", runs.__len__)
    with tqdm(total=len(waiting), unit="run", desc=path.stem) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < width():
                    run = waiting.popleft()
                    if missing([run], path):
                        running[executor.submit(work, run)] = run
                    else:
                        bar.update()  # another process has done it
                for future in wait(running, timeout=LOOK, return_when=FIRST_COMPLETED).done:
                    row = _write(path, running[future], future, executor)
                    del running[future]
                    bar.update()
                    yield row
        finally:
            for future, run in running.items():
                if not future.cancel() and future.done() and not future.exception():
                    _write(path, run, future, executor)


def _write(path: Path, run: Run, future: Future[Row], executor: Executor) -> Row:
    try:
        measured = future.result()
    except getattr(executor, "died", ()):
        measured = {"error": "worker died"}
    return append_row(path, run, measured)


def _attempt(measure: Measure, run: Run) -> Row:
    """Measure a run, the only one in this process at the time; an error becomes one line of text."""
    with _TURN:
        try:
            return measure(run)
        except Exception as error:
            log.warning("%s", run, exc_info=True)
            return {"error": ": ".join(filter(None, [type(error).__name__, " ".join(str(error).split())]))}


class _Here(Executor):
    """Runs each task immediately, in the calling thread."""

    def width(self) -> int:
        return 1

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*arguments, **named))
        return future


@contextmanager
def dask(address: str) -> Iterator[Executor]:
    """Yield an executor that does one run at a time on each worker of a Dask cluster.

    Workers may come and go: if one is killed, its run is repeated on another. A run that kills three workers
    fails. A worker with several threads gives them all to torch. The workers need this package and the data.

    Args:
        address: The scheduler, such as "tcp://10.0.0.1:8786". Or "local" or "local:N", for N processes
            (default 2) of one thread each on this machine, which other machines cannot reach.

    Raises:
        ValueError: N is not a whole number of at least 1.
        ImportError: Dask is not installed.
    """
    try:
        from dask import config
        from distributed import Client, KilledWorker, LocalCluster, Worker, WorkerPlugin
    except ImportError as error:
        raise ImportError(
            'several processes need Dask, which is missing: pip install "prunebook[experiments]"'
        ) from error

    class TorchThreads(WorkerPlugin):  # type: ignore[misc]
        def setup(self, worker: Worker) -> None:
            torch.set_num_threads(worker.state.nthreads)

    local, _, n = address.partition(":")
    with ExitStack() as opened:
        if local == "local":
            if not (n or "2").isdecimal() or int(n or 2) < 1:
                raise ValueError(f'address must be "local:N" with N from 1 on, got "{address}"')
            # A killed worker may take longer to restart than Dask waits before it gives up on it.
            opened.enter_context(config.set({"distributed.deploy.lost-worker-timeout": "1h"}))
            # Dask has workers return freed memory at once, and asking for it again would take half the time.
            environment = config.get("distributed.nanny.pre-spawn-environ", {})
            kept = {name: value for name, value in environment.items() if name != "MALLOC_TRIM_THRESHOLD_"}
            opened.enter_context(config.set({"distributed.nanny.pre-spawn-environ": kept}))
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
    """Add the options that say where to do the runs, and whether to repeat those that failed."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--dask", metavar="ADDRESS", help='do the runs on a Dask cluster; "local:N": on N processes here'
    )
    where.add_argument(
        "--processes", dest="dask", metavar="N", type="local:{}".format, help="the same as --dask local:N"
    )
    parser.add_argument("--retry", action="store_true", help="do the runs again that failed")


def executor_of(address: str | None) -> AbstractContextManager[Executor | None]:
    """Return a context with the executor that the options ask for, or with None if they ask for none."""
    return nullcontext() if address is None else dask(address)
