"""What a training sounds and looks like while it runs: an excerpt to listen to, the canvas being painted, the curve.

In the preview folder, at every showing: ``step-N.ogg``, the song, the result and the target after one another; ``step-N.png``, the
canvas after every step of the painter between song and target; ``curve.png``, the held-out score so far, between its two lines: what
copying the song scores, and what the target itself scores after the way through frames and back. The excerpt is of a held-out piece.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylestream import audio, corpus
from stylestream.corpus import FrameStore
from stylestream.draw import Draw
from stylestream.files import whole_file
from stylestream.train import distance_db, stand_in
from stylestream.vocoder import Analysis, Vocoder

SECONDS = 4.0  # of music in an excerpt
PAUSE_SECONDS = 0.4  # between song, result and target


def sound_of(x: Tensor, *, iterations: int = 8) -> Tensor:
    """Waveform (1, N) of frames (F, T) alone, at the working loudness: the phase is made up, so it is a little hollow.

    >>> x = torch.zeros(324, 87)
    >>> x[135:138] = 0.8
    >>> tuple(sound_of(x, iterations=2).shape)
    (1, 44032)
    """
    vocoder, frames = Vocoder(method="pghi", iterations=iterations), x.shape[-1]
    low, high = (torch.ones(band.n_fft // 2 + 1, frames, dtype=torch.complex64) for band in (vocoder.low, vocoder.high))
    silence = torch.zeros(1, (frames - 1) * vocoder.features.config.hop_length)
    return vocoder.synthesise(x.float().cpu(), Analysis(silence, low, high, (), 0))


class Excerpt:
    """A passage of a held-out piece: the song that is shown, and the target.

    Parameters
    ----------
    held_out : FrameStore
    seconds : float
        Taken from a quarter of the piece on: past the introduction.
    """

    def __init__(self, held_out: FrameStore, *, seconds: float = SECONDS) -> None:
        _, self.style, first, count = max(held_out.songs, key=lambda song: song[3])
        frames = min(count, round(seconds * 44100 / 512))
        start = first + min(count // 4, count - frames)
        window = slice(start, start + frames)
        self.target = held_out.frames[0, window].T.float()[None] / corpus.LEVELS  # (1, F, T)
        self.song = stand_in(held_out, window, self.target)
        self.phase = held_out.phase[window].T.float()[None] / 127

    @functools.cached_property
    def sounds(self) -> tuple[Tensor, Tensor]:
        """Song and target, (1, N) each."""
        return sound_of(self.song[0]), sound_of(self.target[0])

    @functools.cached_property
    def ceiling_db(self) -> float:
        """How far the target's frames are from themselves after the way to a sound and back."""
        target = self.target.cpu()
        return distance_db(Vocoder().features(self.sounds[1])[..., : target.shape[-1]], target)

    def canvases(self, model: Draw) -> Tensor:
        """The canvas after every step, and with its texture: (K + 1, F, T)."""
        style = self.style if model.config.styles > 1 else 0
        return model.transfer(self.song, style=style, phase=self.phase, canvases=True)[:, 0].float().cpu()

    def heard(self, result: Tensor) -> NDArray[np.float32]:
        """Song, result (F, T) and target after one another, (N,); the result has the song's phase, as a transfer has."""
        song, target = self.sounds
        vocoder = Vocoder()
        styled = vocoder.synthesise(result, vocoder.analyse(song))
        pause = torch.zeros(1, round(PAUSE_SECONDS * 44100))
        y = torch.cat([song, pause, styled, pause, target], 1)[0].numpy()
        return np.asarray(y * min(1.0, 0.9 / max(float(np.abs(y).max()), 1e-6)), dtype=np.float32)


def show(model: Draw, excerpt: Excerpt, history: Sequence[Mapping[str, float]], folder: Path, step: int, writer: Any = None) -> None:
    """Write excerpt, canvases and curve of the weights as they are.

    Parameters
    ----------
    history : sequence of rows of scores
    writer : torch.utils.tensorboard.SummaryWriter, optional
        Gets sound and pictures too.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    canvases = excerpt.canvases(model)
    y = excerpt.heard(canvases[-1])
    audio.save(folder / f"step-{step}.ogg", y, 44100)
    titles = ["the song", *(f"canvas {k}" for k in range(1, len(canvases))), "with texture", "the target"]
    pictures = [excerpt.song[0].cpu().numpy(), *canvases.numpy(), excerpt.target[0].cpu().numpy()]
    figures = {f"step-{step}.png": canvas_figure(pictures, titles), "curve.png": curve_figure(history)}
    for name, figure in figures.items():
        with whole_file(folder / name) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})
    if writer is not None:
        writer.add_audio("excerpt: song, result, target", y[None], step, sample_rate=44100)
        for name, figure in zip(("canvas", "curve"), figures.values(), strict=True):
            writer.add_image(name, pixels(figure), step, dataformats="HWC")


def canvas_figure(pictures: Sequence[NDArray[np.float32]], titles: Sequence[str]) -> Any:
    """Frames (F, T) beside each other, low notes below; as a matplotlib figure."""
    from matplotlib.figure import Figure

    columns = -(-len(pictures) // 2)
    figure = Figure(figsize=(2.2 * columns, 6), dpi=80, layout="constrained")
    for axes, x, title in zip(figure.subplots(2, columns, squeeze=False).flat, pictures, titles, strict=False):
        axes.imshow(x, origin="lower", aspect="auto", vmin=0.1, vmax=1.0, cmap="magma", interpolation="antialiased")
        axes.set_title(title, fontsize=9, parse_math=False)
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


def curve_figure(history: Sequence[Mapping[str, float]]) -> Any:
    """Held-out way over minutes, with the lines of copying and of the ceiling; as a matplotlib figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=80, layout="constrained")
    axes = figure.subplots()
    minutes = [row["seconds"] / 60 for row in history]
    axes.plot(minutes, [100 * row["score/way"] for row in history], marker=".", label="held-out transfer")
    axes.axhline(0, color="gray", linestyle=":", label="copying the song")
    if history and "score/ceiling" in history[-1]:
        axes.axhline(100 * history[-1]["score/ceiling"], color="gray", linestyle="--", label="ceiling: the target through the vocoder")
    axes.set_xlabel("minutes of training")
    axes.set_ylabel("way from song to target, %")
    axes.legend(loc="lower right", fontsize=8)
    return figure


def pixels(figure: Any) -> NDArray[np.uint8]:
    """A figure's picture, (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
