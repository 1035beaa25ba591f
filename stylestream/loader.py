"""Batches of random crops of a dataset for a training with torch: several workers, several ranks, any address.

*An epoch is a list.* Crop number ``i`` is a pure function of ``(seed, i)``: which song, where, which view. Ranks and workers only share the
list out, so the same crops come whatever their number, none twice, none left out, and a training that was interrupted goes on with the
crop it had come to. Chance is a hash of these numbers (SplitMix64), not the state of a generator, so that it is the same in every process,
on every machine and in every version of NumPy.

Conventions: ``view`` is what a model is shown, ``target`` what it shall paint: the same passage, (B, F, T). Without views they are
the same.

References
----------
.. [1] G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from stylestream.dataset import Dataset
from stylestream.recipes import Split

Array = NDArray[Any]
Weights = Literal["songs", "seconds", "styles"] | Mapping[str, float]

_SONG, _FIRST, _OTHER, _VIEW = range(4)  # what chance decides, each by numbers of its own


def _uniform(seed: int, index: Array, purpose: int) -> Array:
    """Numbers in [0, 1), each a function of its own index: SplitMix64 [1]_."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        z = np.asarray(index, np.uint64) * np.uint64(4) + np.uint64(purpose)
        z = _mix(z * np.uint64(0x9E3779B97F4A7C15) + _mix(np.uint64(seed % 2**64) + np.uint64(0x9E3779B97F4A7C15)))
    return np.asarray((z >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _mix(z: Any) -> Any:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class Crops(TorchDataset[dict[str, torch.Tensor]]):
    """Random crops of a dataset's songs, by number.

    Parameters
    ----------
    data : Dataset, path or str
        A built dataset, its folder, or an address that fsspec knows.
    crop_frames : int
        Length of a crop; shorter songs are left out.
    split : "train", "valid" or "test"
    styles : sequence of str, optional
        Only these, in the order of their ids; all of the dataset when not given.
    songs : sequence of str, optional
        Only songs of these ids, for example those under a licence.
    weights : "songs", "seconds", "styles", or a mapping of style to weight
        "songs": an epoch has every song once, in an order of its own. Otherwise an epoch is as long, and each crop's song is drawn: every
        second of music equally often, every style equally often, or each style as often as its weight says.
    other : float in [0, 1]
        Share of crops whose view is another orchestration, where the song has any; the others are shown the target.
    phase : bool
        Give beat and bar phase, too.
    raw : bool
        Frames as uint8, as they lie in the dataset: a quarter of the bytes between processes and to a GPU. ``scale`` makes them [0, 1].
    seed : int
        Equal seeds give equal crops.

    Raises
    ------
    ValueError, OSError
        If the dataset cannot be read, or has no song that will do.

    Examples
    --------
    >>> crops = Crops("music/", styles=["rock", "jazz"], weights="styles")    # doctest: +SKIP
    >>> for batch in crops.loader(64, workers=4):                             # doctest: +SKIP
    ...     loss = model(batch["view"], batch["target"], batch["style"])
    """

    def __init__(
        self,
        data: Dataset | str | Path,
        *,
        crop_frames: int = 64,
        split: Split = "train",
        styles: Sequence[str] | None = None,
        songs: Sequence[str] | None = None,
        weights: Weights = "songs",
        other: float = 0.0,
        phase: bool = False,
        raw: bool = False,
        seed: int = 0,
    ) -> None:
        self.data = data if isinstance(data, Dataset) else Dataset(data)
        self.styles = tuple(self.data.description.styles if styles is None else styles)
        self.crop_frames, self.other, self.phase, self.raw, self.seed = crop_frames, other, phase, raw, seed
        if crop_frames < 1:
            raise ValueError(f"crop_frames {crop_frames}: at least 1")
        if not 0 <= other <= 1:
            raise ValueError(f"other {other}: a share, 0 to 1")
        self._choose_songs(split, songs)
        self._cumulative = None if weights == "songs" else np.cumsum(self._probabilities(weights))

    def _choose_songs(self, split: Split, songs: Sequence[str] | None) -> None:
        table = self.data.songs
        style_ids = {style: number for number, style in enumerate(self.styles)}
        own = np.array([style_ids.get(style, -1) for style in table["style"].to_pylist()], np.int64)
        frames = table["frames"].to_numpy().astype(np.int64)
        right_split = np.array([value == split for value in table["split"].to_pylist()], bool)
        wanted = np.ones(len(table), bool) if songs is None else np.isin(table["song_id"].to_pylist(), list(songs))
        self.songs = np.flatnonzero((own >= 0) & right_split & wanted & (frames >= self.crop_frames))  # places in the dataset
        if not len(self.songs):
            asked = ", ".join(self.styles) or "any style"
            raise ValueError(f"{self.data.location}: no {split} song of {asked} with {self.crop_frames} frames or more")
        self._style, self._frames = own[self.songs], frames[self.songs]
        self._views = table["views"].to_numpy().astype(np.int64)[self.songs]

    def _probabilities(self, weights: Weights) -> Array:
        share = (self._frames - self.crop_frames + 1).astype(np.float64)  # possible crops
        if weights == "seconds":
            return np.asarray(share / share.sum())
        of_style = np.bincount(self._style, share, minlength=len(self.styles))
        wanted = self._style_weights(weights) * (of_style > 0)
        if not wanted.sum() > 0:
            raise ValueError(f"weights {weights!r}: no song has a weight above 0")
        return np.asarray(share * (wanted / wanted.sum() / np.maximum(of_style, 1))[self._style])

    def _style_weights(self, weights: Weights) -> Array:
        if weights == "styles":
            return np.ones(len(self.styles))
        if not isinstance(weights, Mapping):
            raise ValueError(f"weights {weights!r}: songs, seconds, styles, or a mapping of style to weight")
        unknown = sorted(set(weights) - set(self.styles))
        if unknown or not all(0 <= weight < math.inf for weight in weights.values()):
            raise ValueError(f"weights: {f'no style {unknown[0]!r}' if unknown else 'numbers from 0 up'}; styles: {', '.join(self.styles)}")
        return np.array([float(weights.get(style, 0.0)) for style in self.styles])

    def __len__(self) -> int:
        """Crops in an epoch: as many as there are songs."""
        return len(self.songs)

    @property
    def scale(self) -> float:
        """What makes raw frames [0, 1]."""
        return self.data.description.step_db / -self.data.features.floor_db

    def plan(self, index: int | Sequence[int] | Array) -> dict[str, Array]:
        """Which crops the numbers stand for: ``song`` (its place in the dataset), ``first`` frame, ``view``, ``style``. Nothing is read.

        Numbers go on beyond the first epoch: crop ``i`` belongs to epoch ``i // len(self)``.
        """
        index = np.atleast_1d(np.asarray(index, np.int64))
        if index.min(initial=0) < 0:
            raise IndexError(f"crop {index.min()}: numbers begin at 0")
        chosen = self._drawn(index)
        room = self._frames[chosen] - self.crop_frames + 1
        is_other = (_uniform(self.seed, index, _OTHER) < self.other) & (self._views[chosen] > 0)
        view = 1 + np.floor(_uniform(self.seed, index, _VIEW) * self._views[chosen]).astype(np.int64)
        return {
            "song": self.songs[chosen],
            "first": np.floor(_uniform(self.seed, index, _FIRST) * room).astype(np.int64),
            "view": np.where(is_other, view, 0),
            "style": self._style[chosen],
        }

    def _drawn(self, index: Array) -> Array:
        if self._cumulative is not None:
            drawn = np.searchsorted(self._cumulative, _uniform(self.seed, index, _SONG) * self._cumulative[-1], side="right")
            return np.asarray(np.minimum(drawn, len(self) - 1))
        epoch, place = np.divmod(index, len(self))
        drawn = np.empty(len(index), np.int64)
        for each in np.unique(epoch):
            drawn[epoch == each] = self._order(int(each))[place[epoch == each]]
        return drawn

    def _order(self, epoch: int) -> Array:
        """The songs of an epoch in its order; the last one asked for is kept."""
        if getattr(self, "_ordered", (None,))[0] != epoch:
            numbers = epoch * len(self) + np.arange(len(self))
            self._ordered = epoch, np.argsort(_uniform(self.seed, numbers, _SONG), kind="stable")
        return np.asarray(self._ordered[1])

    def __getitem__(self, index: int | Sequence[int]) -> dict[str, torch.Tensor]:
        """One crop, or a batch of them for a sequence of numbers.

        Returns
        -------
        dict
            ``view``, ``target`` (F, T) float32, about [0, 1] (uint8 if raw), ``style``, ``song``, ``first`` int64, and ``phase`` (4, T)
            float32 if asked for; with a batch dimension in front for a sequence.
        """
        if isinstance(index, (int, np.integer)):
            return {key: value[0] for key, value in self[[int(index)]].items()}
        plan = self.plan(index)
        batch = {"target": self._frames_of(plan, np.zeros_like(plan["view"]))}
        batch["view"] = self._frames_of(plan, plan["view"], batch["target"]) if plan["view"].any() else batch["target"]
        batch |= {name: torch.from_numpy(plan[name]) for name in ("style", "song", "first")}
        if self.phase:
            batch["phase"] = torch.from_numpy(np.stack([self._phase(*where) for where in zip(plan["song"], plan["first"], strict=True)]))
        return batch

    def _frames_of(self, plan: Mapping[str, Array], views: Array, known: torch.Tensor | None = None) -> torch.Tensor:
        """Frames (B, F, T) of the planned crops in these views; where the view is 0, those that are known already."""
        levels = np.empty((len(views), self.crop_frames, self.data.features.n_bins), np.uint8)
        for place, (song, first, view) in enumerate(zip(plan["song"].tolist(), plan["first"].tolist(), views.tolist(), strict=True)):
            if known is None or view:
                levels[place] = self.data.read_levels(song, first, self.crop_frames, view=view)
        frames = torch.from_numpy(levels).transpose(1, 2)
        result = frames.contiguous() if self.raw else frames.float() * self.scale
        return result if known is None else torch.where(torch.from_numpy(views > 0)[:, None, None], result, known)

    def _phase(self, song: int, first: int) -> Array:
        return self.data.phase(int(song), int(first), self.crop_frames)

    def loader(
        self,
        batch_size: int,
        *,
        workers: int = 0,
        rank: int | None = None,
        ranks: int | None = None,
        drop_last: bool | None = None,
        start: int = 0,
        pin_memory: bool = False,
    ) -> DataLoader[dict[str, torch.Tensor]]:
        """Batches of this rank's share of an epoch; iterating again gives the next epoch.

        Parameters
        ----------
        batch_size : int
            Crops in a batch of one rank.
        workers : int
            Processes that read; 0 reads in this one. The batches are the same.
        rank, ranks : int
            This process's number, and how many there are; from ``torch.distributed`` when not given, else 0 of 1.
        drop_last : bool
            Leave out what does not fill a batch of every rank, so that all take the same number of steps. Default: with several ranks.
        start : int
            The crop to begin with, over all ranks: where an interrupted training goes on.
        """
        rank, ranks = _place(rank, ranks)
        drop_last = ranks > 1 if drop_last is None else drop_last
        shares = Shares(len(self), batch_size, rank=rank, ranks=ranks, drop_last=drop_last, start=start)
        # spawned, like all our workers: a forked torch can hang, and a forked file position is shared
        context = "spawn" if workers else None
        return DataLoader(
            self, sampler=shares, batch_size=None, num_workers=workers, persistent_workers=workers > 0,
            multiprocessing_context=context, pin_memory=pin_memory, worker_init_fn=_one_thread if workers else None,
        )  # fmt: skip


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)  # workers share the cores among themselves


def _place(rank: int | None, ranks: int | None) -> tuple[int, int]:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if ranks is None:
        ranks = torch.distributed.get_world_size() if distributed else 1
    if rank is None:
        rank = torch.distributed.get_rank() if distributed else 0
    if not 0 <= rank < ranks:
        raise ValueError(f"rank {rank} of {ranks}: ranks are counted from 0")
    return rank, ranks


class Shares(Sampler[list[int]]):
    """Numbers of crops, in batches of one rank: of an epoch's crops, rank ``r`` of ``R`` takes ``r``, ``r + R``, ``r + 2 R``, …

    Parameters
    ----------
    crops : int
        In an epoch.
    start : int
        The crop to begin with. When it has been iterated over, the next epoch is the one after.
    """

    def __init__(self, crops: int, batch_size: int, *, rank: int = 0, ranks: int = 1, drop_last: bool = False, start: int = 0) -> None:
        if min(crops, batch_size, ranks) < 1 or start < 0:
            raise ValueError(f"{crops} crops, batches of {batch_size}, {ranks} ranks, from {start} on: nothing to share out")
        self.crops, self.batch_size, self.rank, self.ranks, self.drop_last = crops, batch_size, rank, ranks, drop_last
        self.start = start

    def __len__(self) -> int:
        """Batches of the coming epoch."""
        left = self.crops - self.start % self.crops
        mine = left // self.ranks if self.drop_last else len(range(self.rank, left, self.ranks))
        return mine // self.batch_size if self.drop_last else -(-mine // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        first, batches = self.start, len(self)
        end = (first // self.crops + 1) * self.crops
        self.start = end  # whoever iterates again wants the next epoch, even after a break
        mine = range(first + self.rank, end, self.ranks)
        for batch in range(batches):
            yield list(mine[batch * self.batch_size : (batch + 1) * self.batch_size])
