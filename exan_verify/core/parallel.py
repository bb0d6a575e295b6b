"""Work shared out by joblib: over processes of this machine, or over the workers of a dask cluster."""

from __future__ import annotations

import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from exan_verify.errors import InputError, WorkerError, short

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

PER_WORKER = 8
"""Items that are handed out at once, per worker: memory holds so many, and at the end of such a part a worker
waits for at most one item of the others, a sixteenth of the time on average."""

_PATIENCE = 60.0
"""Seconds that a cluster may be without any worker: new ones are started in less."""

_TICK = 1.0
_CONNECTING = 10.0
"""Seconds between two looks at a cluster that is silent, and until one that does not answer is given up."""

_CLIENT: ContextVar[Any] = ContextVar("client", default=None)
"""The client of the cluster of :func:`cluster`."""


def each(function: Callable[[_Item], _Result], items: Iterable[_Item], *, jobs: int = 1) -> Iterator[_Result]:
    """``function(item)`` for all items, as they are finished: in any order but for ``jobs=1``.

    ``items`` are drawn on this thread, a few per worker before the first result is there, so that any number
    of them may come. Inside :func:`cluster` its workers do the work, whatever ``jobs`` says; what one of
    them loses by dying another one does again. Raises what ``function`` raises, and :class:`WorkerError`.
    """
    client = _CLIENT.get()
    if jobs == 1 and client is None:
        yield from map(function, items)
        return
    import joblib  # slow to load: only where work is shared out

    # max_nbytes=None: joblib would put arrays into shared memory, where they stay until the last item
    parallel = joblib.Parallel(n_jobs=jobs, batch_size=1, max_nbytes=None, return_as="generator_unordered")
    waiting, most = iter(items), PER_WORKER * joblib.effective_n_jobs(jobs)
    with _naming_lost_workers(client), parallel:
        while part := list(islice(waiting, most)):
            found = parallel(joblib.delayed(function)(item) for item in part)
            try:
                # "yield from" would close joblib's generator before its warning can be kept quiet
                for one in found if client is None else _watched(found, client):  # noqa: UP028
                    yield one
            finally:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # that results nobody waits for any more were not used
                    _abandon(found)


def in_order(function: Callable[..., _Result], items: Sequence[Any], *, jobs: int) -> Iterator[_Result]:
    """``function(item)`` for all items in their order, many short ones at a time: on this machine, or on the
    backend that the caller has chosen with ``joblib.parallel_config``.
    """
    if jobs == 1 or len(items) == 1:
        yield from map(function, items)
        return
    import joblib

    yield from joblib.Parallel(n_jobs=jobs)(joblib.delayed(function)(item) for item in items)


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Inside, :func:`each` and joblib work on the dask cluster whose scheduler is at ``address``; None: here.

    Raises :class:`InputError` where dask is not installed, or no cluster with a worker answers.
    """
    if address is None:
        yield
        return
    if not isinstance(address, str):
        raise InputError(f"dask={short(address)} cannot be used; give a scheduler's address, host:port")
    try:
        import distributed
    except ImportError:
        raise InputError(
            "dask.distributed is not installed; pip install 'exan-verify[dask]', or use jobs"
        ) from None
    import joblib

    try:
        client: Any = distributed.Client(address, timeout=_CONNECTING, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"no dask scheduler answers at {address} ({reason}); check the address") from None
    with client:
        if not client.ncores():
            raise InputError(f"the dask cluster at {address} has no workers; start some (dask worker)")
        token = _CLIENT.set(client)
        try:
            with joblib.parallel_config(backend="dask", client=client):
                yield
        finally:
            _CLIENT.reset(token)


@contextmanager
def _naming_lost_workers(client: Any) -> Iterator[None]:
    """One error of ours for what joblib and dask say of workers that are gone."""
    from concurrent.futures import BrokenExecutor, CancelledError

    lost: tuple[type[BaseException], ...] = (BrokenExecutor, CancelledError)
    said = "a worker process was killed, as the system does when memory runs out; use fewer jobs"
    if client is not None:
        from distributed import KilledWorker

        lost += (KilledWorker,)
        said = (
            "the dask cluster has dropped work that it had taken: its scheduler is gone, or an item ended "
            "several workers, as memory that runs out does; start it again, with more memory, and resume"
        )
    try:
        yield
    except Exception as error:
        # a scheduler that is gone shows in many ways: timeouts, closed connections, cancelled work
        if isinstance(error, lost) or (client is not None and client.status != "running"):
            raise WorkerError(f"{said} ({type(error).__name__})") from None
        raise


def _watched(found: Iterator[_Result], client: Any) -> Iterator[_Result]:
    """The results of a cluster. joblib waits for ever for one that is gone, so it waits on another thread."""
    ready: queue.SimpleQueue[Callable[[], _Result] | None] = queue.SimpleQueue()

    def wait() -> None:
        try:
            for one in found:
                ready.put(partial(_given, one))
            ready.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again on the thread that asked
            ready.put(partial(_raised, error))

    threading.Thread(target=wait, daemon=True, name="exan-cluster").start()
    seen = time.monotonic()
    while True:
        try:
            one = ready.get(timeout=_TICK)
        except queue.Empty:
            if client.status != "running":
                raise WorkerError(
                    "the dask cluster is gone: its scheduler no longer answers; start it again and resume"
                ) from None
            if client.ncores():
                seen = time.monotonic()
            elif time.monotonic() - seen > _PATIENCE:
                raise WorkerError(
                    "the dask cluster has lost all its workers; start some and resume"
                ) from None
            continue
        if one is None:
            return
        yield one()


def _given(one: _Result) -> _Result:
    return one


def _raised(error: BaseException) -> Any:
    raise error


def _abandon(found: Any) -> None:
    """Tell joblib that no more results are wanted, unless another thread still waits for one."""
    if not found.gi_running:
        found.close()
