"""Frames as pictures: time from left to right, pitch from low to high, three rows a semitone, so that a picture reads as music.

Drawn with matplotlib's Agg canvas directly: no window, no global state, nothing that a server without a display lacks.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stylestream.features import FeatureConfig, LogFrequency

FLOOR_DB = -80.0  # of the picture; softer is black


def plot_pair(
    path: str | Path,
    song: NDArray[np.float32],
    result: NDArray[np.float32],
    sample_rate: int,
    *,
    titles: tuple[str, str] = ("song", "result"),
    max_seconds: float = 60.0,
) -> None:
    """Draw a song above what became of it, as log-frequency spectrograms with note names, into a PNG.

    Parameters
    ----------
    song, result : np.ndarray [shape=(C, N) and (C', N'), in −1 … 1]
        The mean of the channels is drawn.
    sample_rate : int [Hz]
        Of both.
    max_seconds : float
        Of a longer song only this much is drawn.
    """
    from matplotlib.figure import Figure

    config = FeatureConfig(sample_rate=sample_rate)
    figure = Figure(figsize=(12, 7.5), dpi=110, layout="constrained")
    for axes, title, y in zip(figure.subplots(2, 1, sharex=True), titles, (song, result), strict=True):
        image = _draw(axes, _levels_db(y, config, max_seconds), config)
        axes.set_title(title, loc="left", fontsize=13, parse_math=False)
    axes.set_xlabel("time, seconds")
    bar = figure.colorbar(image, ax=figure.axes, pad=0.01, aspect=40)
    bar.set_label("level, dB below the loudest of each picture")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # an emoji in a title becomes a box, which is no harm
        figure.savefig(path, format="png", metadata={"Software": None})  # equal pictures are equal files


def _levels_db(y: NDArray[np.float32], config: FeatureConfig, max_seconds: float) -> NDArray[np.float32]:
    """Frames in dB below the loudest cell, shape (F, T)."""
    mono = torch.from_numpy(np.ascontiguousarray(y[:, : round(max_seconds * config.sample_rate)].mean(axis=0, dtype=np.float32)))
    with torch.inference_mode():
        frames = LogFrequency(config)(mono[None])[0]  # (F, T), 0 is floor_db, 1 is 0 dB
    levels_db = (frames.numpy() - 1.0) * -config.floor_db
    return np.asarray(levels_db - levels_db.max(initial=config.floor_db))


def _draw(axes: Any, levels_db: NDArray[np.float32], config: FeatureConfig) -> Any:
    seconds = levels_db.shape[1] / config.frames_per_second
    image = axes.imshow(
        levels_db,
        origin="lower",
        aspect="auto",
        extent=(0, seconds, 0, config.n_bins),
        vmin=FLOOR_DB,
        vmax=0,
        cmap="magma",
        interpolation="antialiased",
    )
    rows = np.arange(0, config.n_bins, config.bins_per_octave) + 0.5  # the middle of the row
    numbers = [24 + 12 * octave for octave in range(len(rows))]
    axes.set_yticks(rows, [f"{note_name(number)}  {_hz(number)}" for number in numbers])
    axes.set_yticks(rows + config.bins_per_octave * 7 / 12, [note_name(number + 7) for number in numbers], minor=True, fontsize=7)
    axes.set_ylabel("note and frequency")
    return image


def _hz(number: int) -> str:
    """Frequency of a MIDI note, rounded, for an axis.

    >>> _hz(69), _hz(24), _hz(108)
    ('440 Hz', '33 Hz', '4.2 kHz')
    """
    hz = 440 * 2 ** ((number - 69) / 12)
    return f"{hz:.0f} Hz" if hz < 1000 else f"{hz / 1000:.1f} kHz"


def note_name(number: int) -> str:
    """Name of a MIDI note, in scientific pitch.

    >>> note_name(60), note_name(69), note_name(24)
    ('C4', 'A4', 'C1')
    """
    return f"{('C', 'C♯', 'D', 'E♭', 'E', 'F', 'F♯', 'G', 'A♭', 'A', 'B♭', 'B')[number % 12]}{number // 12 - 1}"
