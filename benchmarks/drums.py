"""What the drum layer plays, beside the drums of the pieces themselves: docs/drums.md's tables, on held-out pieces.

    python benchmarks/drums.py DATA -s rock -s jazz -s electronic --count 10

The song is the piece's piano reduction without drums in MuseScore_General; the truth is the piece with its drums in FluidR3. Nothing of the
layer was made of these pieces: it comes from the training split.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylestream import bootstrap, drumming, drums, metrics, midi, recipes
from stylestream.passages import Protocol, Renderer, excerpts, recipe_named, song_score
from stylestream.rhythm import Beats, BeatTracker
from stylestream.style import find_style, load_style_file
from stylestream.transfer import Dials, Hearing, StyleTransfer, load_style

Array = NDArray[np.floating]
RATE = drums.SAMPLE_RATE
BANDS = {"low": (30, 150), "mid": (150, 5000), "high": (5000, 16000)}  # where bass drums, snares and cymbals are
MEL_HZ = 700 * (10 ** (np.linspace(2595 * np.log10(1 + 30 / 700), 2595 * np.log10(1 + 16000 / 700), 130)[1:-1] / 2595) - 1)
NEAR_SECONDS = 0.05
SPREAD = (5, 95)  # percentiles of the style's own songs


def beats_in(style: StyleTransfer, y: Array) -> Array:
    """Beats that the tracker finds, reliable or not."""
    tracker = BeatTracker(frames_per_second=style.config.frames_per_second, bins_per_octave=style.config.bins_per_octave)
    import torch

    sound = metrics.prepare(y)
    tracker.push(style.vocoder.features(torch.from_numpy(sound.y.astype(np.float32))).numpy())
    return tracker.beats().beat_seconds


def f_measure(reference: Array, estimate: Array, *, within: float = NEAR_SECONDS) -> float:
    """Of two lists of beats, each matched once."""
    if not len(reference) or not len(estimate):
        return math.nan
    import mir_eval

    return float(mir_eval.beat.f_measure(reference, estimate, f_measure_threshold=within))


def band_flux(y: Array) -> dict[str, Array]:
    """Rise of the log-mel spectrum from frame to frame, in each band."""
    rise = np.maximum(np.diff(metrics.prepare(y).log_mel, axis=1), 0)
    return {name: rise[(low <= MEL_HZ) & (high > MEL_HZ)].mean(0) for name, (low, high) in BANDS.items()}


def flux_correlation(truth: dict[str, Array], made: dict[str, Array]) -> dict[str, float]:
    """Correlation of the band fluxes, and their mean."""
    with np.errstate(invalid="ignore"):
        found = {f"flux_{name}": float(np.corrcoef(truth[name][: len(made[name])], made[name][: len(truth[name])])[0, 1]) for name in BANDS}
    return found | {"flux_mean": float(np.mean([*found.values()]))}


def bars_played(hits: drums.Hits, bars: Sequence[drums.Bar]) -> tuple[list[Array], list[int]]:
    """Rows (tick, note, velocity) of each bar that a song was drummed to."""
    found, beats = [], []
    for bar in bars:
        edges = bar.edges - 0.04  # a hit a little early belongs to the beat it is meant for
        inside = (hits.seconds >= edges[0]) & (hits.seconds < edges[-1])
        place = np.interp(hits.seconds[inside], bar.edges, np.arange(len(bar.edges)))
        found.append(np.stack([np.round(place * drums.TICKS), hits.notes[inside], np.full(inside.sum(), 100)], axis=1).astype(np.int64))
        beats.append(len(bar.edges) - 1)
    return found, beats


def told_the_beats(style: StyleTransfer, song: Array, heard: Hearing, score: Any, excerpt: Any) -> Array:
    """A transfer with drums in which no beat had to be found: what is still unlike the truth's drums is another drummer's taste."""
    beats, downbeats = (found - excerpt.start_seconds for found in midi.beats(score))
    inside = [found[(found >= 0) & (found < excerpt.seconds)] for found in (beats, downbeats)]
    known = replace(heard, pulse=replace(heard.pulse, beats=Beats(*inside, 1.0), drummed=None))
    return np.concatenate([*style.render(lambda: [song], known, Dials(drums=drums.USUAL_DRUMS))], axis=1)


def scored(style: StyleTransfer, excerpt: Any, recipe: Any, renderer: Renderer) -> dict[str, float]:
    """All numbers of one piece."""
    score = midi.load_score(excerpt.content)
    target, full = (recipes.target_score(score, recipe, drums=d) for d in (False, True))
    song = renderer.render(song_score(target, excerpt.content, recipe), "musescore", excerpt)
    true_drums, true_rest = (renderer.render(drumming.parts_of(full, drums=d), "fluidr3", excerpt) for d in (True, False))
    if not np.abs(true_drums).max() > 1e-4:
        raise ValueError("no drums in the passage")
    heard = style.listen(lambda: [song], RATE, len(song), peak=False)
    assert style.layer is not None
    hits = drums.plan_hits(style.layer, heard.pulse)
    made, without = (style.transfer(song, RATE, drums=d) for d in (drums.USUAL_DRUMS, 0.0))
    told = told_the_beats(style, song, heard, full, excerpt)
    row = {"beats found": float(heard.beats.reliable), "truth level": drumming.balance_db(true_drums, true_rest)}
    truth = band_flux(true_drums)
    for name, y in (("copy", song), ("without", without), ("with", made), ("told", told), ("truth", true_drums + true_rest)):
        row |= {f"{name} {key}": value for key, value in flux_correlation(truth, band_flux(y)).items()}
    if not len(hits):
        return row
    in_song = heard.beats.beat_seconds
    near = np.abs(hits.seconds[None] - in_song[:, None]).min(1) if len(in_song) else np.ones(0)
    row["beats hit"] = float((near < NEAR_SECONDS).mean())
    true_beats = midi.beats(full)[0] - excerpt.start_seconds
    true_beats = true_beats[(true_beats >= 0) & (true_beats < excerpt.seconds)]
    row["true beat F1"] = f_measure(true_beats, in_song)
    row["true beat F1 counted"] = f_measure(true_beats, drums.counted(heard.pulse).beats.beat_seconds)
    row["beat F1"] = f_measure(in_song, beats_in(style, made))
    row["beat F1 without"] = f_measure(in_song, beats_in(style, without))
    row["beat F1 truth"] = f_measure(in_song, beats_in(style, true_drums + true_rest))
    row["level"] = drumming.layer_balance_db(style.layer, style, song)
    return row | {
        f"pattern {k}": v for k, v in drums.bar_statistics(*bars_played(hits, drums.song_bars(drums.counted(heard.pulse)))).items()
    }


def spread(data: Path, recipe: Any, count: int) -> dict[str, Array]:
    """Pattern statistics of the style's own songs, training split."""
    chosen, _ = drumming.training_pieces(data, recipe, count)
    rows = [
        drums.bar_statistics(hits, beats)
        for hits, beats, _ in (drumming.drum_bars(s) for _, s in drumming.read_scores(data, chosen))
        if hits
    ]
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def interval(values: Sequence[float], *, digits: int = 2) -> str:
    """Mean with its 95 % interval over pieces."""
    there = np.array([v for v in values if math.isfinite(v)])
    if not len(there):
        return "–"
    cell = bootstrap.interval(there, bootstrap.resample([str(i) for i in range(len(there))], 2000, seed=0))
    return f"{cell['mean']:.{digits}f} [{cell['low']:.{digits}f}, {cell['high']:.{digits}f}]"


def report(name: str, rows: Sequence[dict[str, float]], own: dict[str, Array]) -> str:
    """Markdown of one style."""

    def all_of(key: str) -> list[float]:
        return [row[key] for row in rows if key in row]

    lines = [
        f"### {name}: {len(rows)} held-out pieces, a clear beat in {int(sum(all_of('beats found')))} of them",
        "",
        "| | |",
        "|---|---|",
    ]
    lines.append(f"| the song's beats that are hit within {1000 * NEAR_SECONDS:.0f} ms | {interval(all_of('beats hit'))} |")
    lines.append(f"| F1 of the beats found in the song, against the score's | {interval(all_of('true beat F1'))} |")
    lines.append(f"| F1 of the beats that are drummed to, against the score's | {interval(all_of('true beat F1 counted'))} |")
    lines.append(f"| F1 of the beats found in the result, against those found in the song | {interval(all_of('beat F1'))} |")
    lines.append(f"| the same without drums | {interval(all_of('beat F1 without'))} |")
    lines.append(f"| F1 of the beats found in the truth, against those found in the song | {interval(all_of('beat F1 truth'))} |")
    lines.append(f"| drums against the rest, LU | {interval(all_of('level'), digits=1)}; median {np.median(all_of('level')):.1f} |")
    lines.append(f"| the same in the truth | {interval(all_of('truth level'), digits=1)}; median {np.median(all_of('truth level')):.1f} |")
    lines += ["", "| band flux against the truth's drums | low | mid | high | mean |", "|---|---:|---:|---:|---:|"]
    for row, what in (
        ("copy", "copy the song"),
        ("without", "the style without drums"),
        ("with", "the style with drums"),
        ("told", "the same, told the score's beats"),
        ("truth", "truth"),
    ):
        lines.append(f"| {what} | " + " | ".join(interval(all_of(f"{row} flux_{band}")) for band in (*BANDS, "mean")) + " |")
    gains = [interval([row[f"with flux_{band}"] - row[f"copy flux_{band}"] for row in rows]) for band in (*BANDS, "mean")]
    lines.append("| the style with drums, more than copy | " + " | ".join(gains) + " |")
    lines += ["", f"| pattern | result | the style's songs, {SPREAD[0]} to {SPREAD[1]} % | results inside |", "|---|---:|---:|---:|"]
    for key, values in own.items():
        low, high = np.percentile(values, SPREAD)
        made = np.array(all_of(f"pattern {key}"))
        inside = ((made >= low - 1e-9) & (made <= high + 1e-9)).mean() if len(made) else math.nan
        lines.append(f"| {WORDS[key]} | {interval(made.tolist())} | {low:.2f} to {high:.2f} | {inside:.0%} |")
    return "\n".join([*lines, ""])


WORDS = {
    "hits": "hits in four beats",
    "syncopation": "bass and snare drum off the beat",
    "kick": "bass drum, share of hits",
    "snare": "snare, share of hits",
    "hat": "hi-hat and ride, share of hits",
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-s", "--style", action="append", required=True)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--split", choices=("test", "valid"), default="test", help="settings are chosen on valid")
    parser.add_argument("--own", type=int, default=80, help="of the style's own songs, for the spread of patterns")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "stylestream-drums")
    options = parser.parse_args()
    renderer = Renderer(options.cache)
    for name in options.style:
        path = find_style(name)
        style, recipe, known = load_style(path), recipe_named(path.stem), load_style_file(path).fingerprints
        protocol = Protocol(pieces=3 * options.count, seconds=options.seconds)
        found, _ = excerpts(options.data, path.stem, protocol, known=known, split=options.split)
        rows: list[dict[str, float]] = []
        for excerpt in found:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    rows.append(scored(style, excerpt, recipe, renderer))
            except ValueError:
                continue  # no drums in the passage
            if len(rows) == options.count:
                break
        print(report(path.stem, rows, spread(options.data, recipe, options.own)), flush=True)


if __name__ == "__main__":
    main()
