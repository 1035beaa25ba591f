"""A stream of samples ↔ chunks with their surroundings: cut, worked on by a few threads, and put in order again.

A *chunk* is a part of a song with as much of the song on each side as the work on it can see, so that chunks are the whole. Memory
holds a few of them, however long the song.

Conventions: waveforms (C, N); frames are counted in hops from the song's first sample.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

Array = np.ndarray[Any, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Chunk:
    """A part of a song with its surroundings.

    ``y (C, n)`` starts at frame ``first_frame``; the chain's output is wanted for its frames ``inner``, and of them, what ``keep`` (samples
    relative to the first inner frame) says is the song's part. ``last``: the song ends with it.
    """

    y: Array
    first_frame: int
    inner: slice
    keep: slice
    last: bool


def cut_into_chunks(
    blocks: Iterable[Array], chunk_frames: int, overlap_frames: int, inner_frames: int, hop_length: int, *, first_frames: int | None = None
) -> Iterator[Chunk]:
    """Cut a stream of blocks (C, any) into chunks with their surroundings, holding one chunk at a time.

    Parameters
    ----------
    chunk_frames : int
        Length of the part that a chunk is kept for.
    overlap_frames : int
        What the chunk has on each side, as far as the song goes.
    inner_frames : int
        What of the overlap belongs to ``Chunk.inner``.
    first_frames : int, optional
        Length of the first chunk's part, where somebody waits for it.
    """
    chunk, overlap = (first_frames or chunk_frames) * hop_length, overlap_frames * hop_length
    held: list[Array] = []
    first, count, begin = 0, 0, 0  # where `held` starts, how much it is, and where the next chunk's own part begins
    for block in blocks:
        held.append(block)
        count += block.shape[1]
        while first + count >= begin + chunk + overlap + hop_length:  # a hop more: then the song does not end here
            y = np.concatenate(held, axis=1)
            end = begin + chunk + overlap - first
            yield _chunk(y[:, :end], first, begin, begin + chunk, inner_frames, hop_length, last=False)
            begin, chunk = begin + chunk, chunk_frames * hop_length
            start = max(begin - overlap, 0)
            held, count, first = [y[:, start - first :].copy()], first + count - start, start
    if first + count > begin:
        y = np.concatenate(held, axis=1)
        yield _chunk(y, first, begin, first + count, inner_frames, hop_length, last=True)


def _chunk(y: Array, first: int, begin: int, end: int, inner_frames: int, hop_length: int, *, last: bool) -> Chunk:
    start = max((begin - first) // hop_length - inner_frames, 0)
    stop = 1 + y.shape[1] // hop_length if last else (end - first) // hop_length + inner_frames + 1
    offset = begin - first - start * hop_length
    return Chunk(np.ascontiguousarray(y), first // hop_length, slice(start, stop), slice(offset, offset + end - begin), last)


def in_order(function: Callable[[Chunk], T], chunks: Iterable[Chunk], *, workers: int, first_alone: bool = False) -> Iterator[T]:
    """Map with a few threads: results in order, a bounded number of chunks in memory, nothing running after the last.

    ``first_alone``: no other is begun before the first is done, so that whoever waits for it gets all of the machine.
    """
    if workers <= 1:
        yield from map(function, chunks)
        return
    with THREADS.lent(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        pending: deque[Future[T]] = deque()
        try:
            for chunk in chunks:
                pending.append(pool.submit(function, chunk))
                if first_alone:
                    wait(pending)
                    first_alone = False
                if len(pending) > workers:  # one waits, so that no worker does
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


class Threads:
    """torch's number of threads belongs to the process: transfers that run at once must not take each other's 1 for the user's number."""

    def __init__(self) -> None:
        self._lock, self._users, self._own = threading.Lock(), 0, 1

    def count(self) -> int:
        """How many threads torch has when no transfer is running."""
        with self._lock:
            return self._own if self._users else torch.get_num_threads()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let the threads of a pool set theirs to one; afterwards the number is what it was."""
        with self._lock:
            self._own = self._own if self._users else torch.get_num_threads()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                torch.set_num_threads(self._own)


THREADS = Threads()


class Queue:
    """Samples pushed and not yet pulled."""

    def __init__(self, channels: int) -> None:
        self._held: deque[Array] = deque()
        self._empty = np.zeros((channels, 0), np.float32)
        self.pulled = 0

    def push(self, y: Array) -> None:
        """Hold a block (C, n)."""
        self._held.append(y)

    def pull(self, count: int) -> Array:
        """Give the next ``count`` samples; fewer where no more are held."""
        parts = [self._empty]
        while count > 0 and self._held:
            y = self._held.popleft()
            if y.shape[1] > count:
                self._held.appendleft(y[:, count:])
                y = y[:, :count]
            parts.append(y)
            count -= y.shape[1]
            self.pulled += y.shape[1]
        return np.concatenate(parts, axis=1)
