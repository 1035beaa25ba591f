"""Frames as pictures: time from left to right, pitch from low to high, three rows a semitone, so that a picture reads as music.

Drawn with matplotlib's Agg canvas directly: no window, no global state, nothing that a server without a display lacks.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence
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


_SPLIT_COLOURS = {"train": "#3b528b", "valid": "#5ec962", "test": "#fde725"}


def plot_dataset(
    path: str | Path,
    *,
    title: str,
    hours: Mapping[str, Mapping[str, float]],
    lengths: tuple[Sequence[float], Sequence[int]],
    levels: tuple[Sequence[float], Sequence[int]],
    spectra: Mapping[str, NDArray[np.float32]],
    config: FeatureConfig,
    max_styles: int = 40,
) -> None:
    """Draw what is in a dataset: hours of each style, lengths, levels, and how each style's music lies over pitch; into a PNG.

    Parameters
    ----------
    hours : mapping
        Style → split → hours.
    lengths, levels : (edges, counts)
        Histograms, in seconds and LUFS; the last bin is open.
    spectra : mapping of style to array [shape=(F,), about 0 … 1]
        Mean frames.
    max_styles : int
        Of more styles only the longest are drawn.
    """
    from matplotlib.figure import Figure

    order = sorted(hours, key=lambda style: -sum(hours[style].values()))[:max_styles]
    height = max(4.0, 0.24 * len(order))
    figure = Figure(figsize=(14, 3.2 + height), dpi=110, layout="constrained")
    (by_style, pitch), (length, level) = figure.subplots(2, 2, height_ratios=(height, 2.6))
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, parse_math=False)
    _draw_hours(by_style, {style: hours[style] for style in order})
    _draw_spectra(pitch, {style: spectra[style] for style in order}, config)
    _draw_histogram(length, *lengths, "length of a song, seconds")
    _draw_histogram(level, *levels, "loudness, LUFS")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(path, format="png", metadata={"Software": None})


def _draw_hours(axes: Any, hours: Mapping[str, Mapping[str, float]]) -> None:
    rows, left = np.arange(len(hours)), np.zeros(len(hours))
    unit, scale = ("hours", 1) if max((sum(parts.values()) for parts in hours.values()), default=0) >= 0.5 else ("minutes", 60)
    for split in sorted({split for parts in hours.values() for split in parts}, key=[*_SPLIT_COLOURS].index):
        width = scale * np.array([parts.get(split, 0.0) for parts in hours.values()])
        axes.barh(rows, width, left=left, color=_SPLIT_COLOURS[split], label=split)
        left += width
    _name_styles(axes, hours)
    axes.set_xlabel(unit)
    axes.legend(loc="lower right", frameon=False)


def _draw_spectra(axes: Any, spectra: Mapping[str, NDArray[np.float32]], config: FeatureConfig) -> None:
    levels_db = np.stack([(x - 1) * -config.floor_db for x in spectra.values()])  # 0 dB is the frames' 1
    levels_db -= levels_db.max(axis=1, keepdims=True)
    axes.imshow(levels_db, aspect="auto", vmin=-50, vmax=0, cmap="magma", interpolation="nearest")
    octaves = np.arange(0, config.n_bins, config.bins_per_octave)
    axes.set_xticks(octaves, [note_name(24 + 12 * octave) for octave in range(len(octaves))])
    _name_styles(axes, spectra)
    axes.set_xlabel("mean spectrum: note; black is 50 dB below each style's own loudest")


def _name_styles(axes: Any, styles: Iterable[str]) -> None:
    names = [style or "(none)" for style in styles]
    axes.set_yticks(np.arange(len(names)), names, parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.5)  # the longest on top


def _draw_histogram(axes: Any, edges: Sequence[float], counts: Sequence[int], label: str) -> None:
    there = np.flatnonzero(counts)
    first, last = (int(there[0]), int(there[-1]) + 1) if there.size else (0, 1)
    names = [*(f"{edge:g}" for edge in edges), "…"]
    axes.bar(np.arange(first, last) + 0.5, counts[first:last], width=0.94, color="#21918c")  # bins of any width, equally wide
    axes.set_xticks(np.arange(first, last + 1), names[first : last + 1])
    axes.set_xlabel(label)
    axes.set_ylabel("songs")


# --- what a training shows while it runs -------------------------------------------------------------------------------------------


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


# --- plots of numbers, as SVG that a page can hold ---------------------------------------------------------------------------------

Curve = tuple[Sequence[float], Sequence[float], Sequence[float]]  # value, low and high at each place; NaN where there is none
COLOURS = (
    "#0b6e99",
    "#b8500b",
    "#4d7c26",
    "#7b4fa3",
    "#8a6d00",
    "#a3324a",
    "#5a5a5a",
    "#00796b",
)  # of equal lightness, told apart by the colour-blind
INK, PALE = "#333333", "#999999"


def plot_dots(rows: Mapping[str, tuple[float, float, float]], *, label: str, highlight: str = "") -> str:
    """A value with its interval for each row, one under another, as SVG text.

    Parameters
    ----------
    rows : mapping of str to (value, low, high)
    label : str
        Of the axis, with its unit.
    highlight : str
        The row that the plot is about.
    """
    figure, (axes,) = _figure(1, (7.0, 0.7 + 0.28 * len(rows)))
    for place, (name, (value, low, high)) in enumerate(rows.items()):
        colour = COLOURS[1] if name == highlight else COLOURS[0]
        axes.plot([low, high], [place, place], color=colour, linewidth=2.0, solid_capstyle="round")
        axes.plot([value], [place], "o", color=colour, markersize=6)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.grid(axis="x", color="#e5e5e5")
    axes.set_xlabel(label)
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    return _svg(figure)


def plot_lines(panels: Sequence[tuple[str, Sequence[str], Mapping[str, Curve]]], *, label: str, zero: bool = True) -> str:
    """Panels of curves with their intervals, side by side on one scale, as SVG text.

    Parameters
    ----------
    panels : sequence of (title, places, name → curve)
    label : str
        Of the upright axis, with its unit.
    zero : bool
        Whether that axis begins at 0.
    """
    figure, every = _figure(len(panels), (3.6 * len(panels) + 1.2, 3.0), sharey=True)
    for axes, (title, places, named) in zip(every, panels, strict=True):
        for colour, (name, (value, low, high)) in zip(itertools.cycle(COLOURS), named.items(), strict=False):
            at = range(len(places))
            axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(at, value, "o-", color=colour, linewidth=1.8, markersize=4, label=name)
        axes.set_xticks(range(len(places)), places, rotation=35 if max(map(len, places)) > 4 else 0)
        axes.set_title(title, loc="left", fontsize=10, parse_math=False)
        axes.grid(color="#e5e5e5")
    every[0].set_ylabel(label)
    if zero:
        every[0].set_ylim(bottom=0)
    if len(panels[0][2]) > 1:
        every[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))  # beside, not over, the curves
    return _svg(figure)


def plot_spectrograms(sounds: Mapping[str, NDArray[np.float32]], sample_rate: int, *, max_seconds: float = 30.0) -> bytes:
    """Songs under one another as log-frequency spectrograms, as a small JPEG.

    Parameters
    ----------
    sounds : mapping of title to array [shape=(C, N)]
    """
    import io

    from matplotlib.figure import Figure

    config = FeatureConfig(sample_rate=sample_rate)
    figure = Figure(figsize=(9.0, 2.0 * len(sounds)), dpi=80, layout="constrained")
    for axes, (title, y) in zip(np.atleast_1d(figure.subplots(len(sounds), 1, sharex=True)), sounds.items(), strict=True):
        _draw(axes, _levels_db(y, config, max_seconds), config)
        axes.set_title(title, loc="left", fontsize=9, parse_math=False)
        axes.set_ylabel("")
        axes.tick_params(axis="y", which="minor", labelleft=False)
        axes.tick_params(labelsize=6)
    axes.set_xlabel("time, seconds", fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, format="jpeg", pil_kwargs={"quality": 80, "optimize": True})
    return file.getvalue()


def _figure(columns: int, size: tuple[float, float], **settings: Any) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    every = list(np.atleast_1d(figure.subplots(1, columns, **settings)))
    for axes in every:
        axes.tick_params(colors=INK, labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(PALE)
    return figure, every


def _svg(figure: Any) -> str:
    """The figure as an element of a page: text stays text, and equal figures are equal."""
    import io

    import matplotlib

    file = io.StringIO()
    with (
        warnings.catch_warnings(),
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "stylestream", "font.family": "sans-serif"}),
    ):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = file.getvalue()
    return text[text.index("<svg") :]
