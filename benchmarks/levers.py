"""What a lever does to what is heard: styles with it and without it, on held-out pieces (validation split), which is where it is set.

    python benchmarks/levers.py DATA -s jazz --postnet --out TABLE
    python benchmarks/levers.py DATA -s piano -s strings --setting partial_lift=0,0.2,0.4 --out TABLE
    python benchmarks/levers.py DATA -s piano -s strings --soundfont musescore,fluidr3,FILE.sf2 --out TABLE
    python benchmarks/levers.py DATA -s piano -s strings --chain "none,small room,hall,compressor,MP3,all" --out TABLE
    tools/fill docs/sound.md postnet TABLE

A SoundFont is what plays the song, a chain what it goes through then; nothing but what a style is given changes. A setting is one of
the network's that a transfer heeds (``draw.DrawConfig``). Square brackets are 95 % intervals over the pieces; the difference to a style's
first line is taken piece by piece. A style may be a file, ``NAME=FILE``: that is how a post-net is tried before
it is shipped (``tools/make_styles.py postnet``). Song and truth are those of the reduction protocol.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylestream import baselines, bootstrap, metrics, midi, passages, recipes
from stylestream.files import whole_file
from stylestream.transfer import StyleTransfer, load_style

Array = NDArray[np.floating]
RATE = 44100
Heard = list[tuple[Any, Any, Any]]  # (song, truth, notes) of held-out pieces
COLUMNS: dict[str, Callable[..., float]] = {
    "log-mel L1, dB": lambda truth, y, notes: metrics.log_mel_l1(truth, y),
    "MFCC distance": lambda truth, y, notes: metrics.mfcc_distance(truth, y),
    "note AUC": lambda truth, y, notes: metrics.note_auc(y, notes),
    "flux corr.": lambda truth, y, notes: metrics.flux_correlation(truth, y),
    **{
        f"{low}–{high} Hz, dB": lambda truth, y, notes, band=index: list(metrics.modulation_difference(truth, y).values())[band]
        for index, (low, high) in enumerate(((2, 5), (5, 10), (10, 20), (20, 43)))
    },
}


def room(y: Array, *, seconds: float, wet_db: float) -> Array:
    """A song (C, N) in a room: after 20 ms, noise that dies away by 60 dB in so many seconds, twice as fast in the treble."""
    from scipy.signal import fftconvolve, lfilter

    t, rng = np.arange(round(seconds * RATE)) / RATE, np.random.default_rng(0)
    noise = rng.standard_normal((len(y), len(t)))
    tail = lfilter([0.2], [1, -0.8], noise) * 10 ** (-3 * t / seconds) + 0.2 * noise * 10 ** (-6 * t / seconds)
    tail = np.pad(tail * 10 ** (wet_db / 20) / np.sqrt((tail**2).sum(1, keepdims=True)), ((0, 0), (RATE // 50, 0)))
    return np.asarray(y + fftconvolve(y, tail, axes=1)[:, : y.shape[1]], dtype=np.float32)


def compressor(y: Array, *, ratio: float = 4.0, release_seconds: float = 0.1) -> Array:
    """A song (C, N) four to one above the level that a quarter of it exceeds, the channels together."""
    from scipy.signal import lfilter

    hop = 64
    level = np.sqrt(np.convolve(np.square(y).mean(0), np.ones(256) / 256, "same") + 1e-10)[::hop]
    wanted = np.maximum(level / np.percentile(level, 75), 1) ** (1 / ratio - 1)
    slow = float(np.exp(-hop / (RATE * release_seconds)))
    gain = lfilter([1 - slow], [1, -slow], wanted, zi=[slow * wanted[0]])[0]
    return np.asarray(y * np.interp(np.arange(y.shape[1]), np.arange(len(gain)) * hop, gain), dtype=np.float32)


CHAINS: dict[str, Callable[[Array], Array]] = {
    "none": lambda y: y,
    "small room": lambda y: room(y, seconds=0.4, wet_db=-8),
    "hall": lambda y: room(y, seconds=2.0, wet_db=-6),
    "compressor": compressor,
    "MP3": baselines.mp3,
    "all": lambda y: baselines.mp3(compressor(room(y, seconds=1.2, wet_db=-8))),
}


def passages_of(options: argparse.Namespace, name: str, soundfont: str = "musescore") -> Heard:
    """(song, truth, notes) of held-out pieces."""
    protocol, recipe = passages.Protocol(pieces=options.pieces, seconds=options.seconds), recipes.recipe_of(name)
    renderer, found = passages.Renderer(options.cache), []
    for excerpt in passages.excerpts(options.data, name, protocol, split="valid")[0]:
        score = midi.load_score(excerpt.content)
        target = recipes.target_score(score, recipe)
        song = passages.song_score(score if recipe.layers else target, excerpt.content, recipe)
        found.append(
            (renderer.render(song, soundfont, excerpt), renderer.render(target, "fluidr3", excerpt), passages.notes_of(target, excerpt))
        )
    return found


def scores(heard: Heard, make: Callable[[Any, Any], Any]) -> Array:
    """Of what ``make`` makes of (song, truth), (passages, columns)."""
    rows = []
    for song, truth, notes in heard:
        a, b = metrics.matched(metrics.prepare(truth), metrics.prepare(make(song, truth)))
        rows.append([measure(a, b, notes) for measure in COLUMNS.values()])
    return np.array(rows)


def variants(options: argparse.Namespace, text: str) -> Iterator[tuple[str, StyleTransfer, Heard]]:
    """What the second column says, the style so, and what it is given."""
    name, _, path = text.partition("=")
    if options.soundfont:
        style = load_style(path or name)
        for soundfont in options.soundfont.split(","):
            yield Path(soundfont).stem, style, passages_of(options, name, soundfont)
        return
    heard = passages_of(options, name)
    if options.chain:
        style = load_style(path or name)
        for chain in options.chain.split(","):
            yield chain, style, [(CHAINS[chain](song), truth, notes) for song, truth, notes in heard]
        return
    if options.postnet:
        style = load_style(path or name)
        if style.draw.postnet is None:
            raise SystemExit(f"{text}: has no post-net; make one with tools/make_styles.py postnet")
        yield "with", style, heard
        style.draw.postnet = None
        yield "without", style, heard
        return
    setting, _, values = options.setting.partition("=")
    for value in values.split(","):
        network = load_style(path or name).draw
        network.config = replace(network.config, **{setting: float(value)})
        yield value, StyleTransfer(network), heard


def measure_style(options: argparse.Namespace, text: str) -> list[str]:
    """Lines of the table."""
    lines: list[str] = []
    limits: dict[int, list[Array]] = {}  # of the same passages the same
    first: Array | None = None
    for kind, style, heard in variants(options, text):
        if id(heard) not in limits:
            limits = {id(heard): [scores(heard, make)[:, 0] for make in (lambda song, truth: song, baselines.ceiling)]}
        found = scores(heard, lambda song, truth, style=style: style.transfer(song, RATE))  # type: ignore[misc]
        first = found if first is None else first
        lines.append(f"| {text.partition('=')[0]} | {kind} | " + " | ".join(cells(found, first, *limits[id(heard)])) + " |")
        print(lines[-1], flush=True)
    return lines


def cells(found: Array, first: Array, copy: Array, ceiling: Array) -> Iterator[str]:
    """Of a line: the way, what it is more than the first line's in L1, and the means of all columns."""
    draws = bootstrap.resample([str(i) for i in range(len(found))], 2000)
    way = bootstrap.interval(np.stack([copy, ceiling, found[:, 0]]), draws, part_of_the_way)
    yield "{mean:.1f} % [{low:.1f}, {high:.1f}]".format_map(way)
    more = bootstrap.interval(found[:, 0] - first[:, 0], draws)
    yield "" if found is first else "{mean:+.2f} [{low:+.2f}, {high:+.2f}]".format_map(more)
    yield from (f"{v:.3f}" if "AUC" in c else f"{v:.2f}" for c, v in zip(COLUMNS, found.mean(0), strict=True))


def part_of_the_way(values: Array, axis: int) -> Any:
    """Of copies, ceilings and results (3, passages), per cent."""
    copy, ceiling, result = values.mean(axis)
    return 100 * (copy - result) / (copy - ceiling)


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-s", "--style", action="append", required=True)
    lever = parser.add_mutually_exclusive_group(required=True)
    lever.add_argument("--postnet", action="store_true", help="with and without the style's")
    lever.add_argument("--setting", help="NAME=VALUE,VALUE,…")
    lever.add_argument("--soundfont", help="NAME,FILE,…: what plays the songs")
    lever.add_argument("--chain", help=f"of {', '.join(CHAINS)}: what the songs go through")
    parser.add_argument("--pieces", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--cache", type=Path, default=Path("build/levers"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines = [line for style in options.style for line in measure_style(options, style)]
    setting = f"`{(options.setting or '').partition('=')[0]}`"
    varied = (
        "post-net" if options.postnet else "the song's SoundFont" if options.soundfont else "the song through" if options.chain else setting
    )
    head = ["style", varied, "part of the way", "L1 more than in the first line, dB", *COLUMNS]
    table = "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *lines])
    if options.out:
        with whole_file(options.out) as temporary:
            temporary.write_text(f"{table}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
