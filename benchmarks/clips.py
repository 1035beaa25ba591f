"""One clip as a style, against the song equalised to that clip, on pairs chosen by hash.

    python benchmarks/clips.py DATA --out docs/clips.md        DATA: a collection with midi.csv

A pair is two pieces that training has not heard, and one band to play both: of every second pair a bundled style's instruments, of the
others (scores of three parts and more) three General MIDI programs drawn by hash, one for the lowest part, one for the highest, one for
those between. The *clip* is one piece as the band plays it (FluidR3). The *song* is the other's piano reduction (for the piano: other
instruments) in the SoundFont that training never heard. The *truth* is the song as the band plays it.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylestream import baselines, metrics, midi, passages, recipes
from stylestream.recipes import StyleRecipe

Array = NDArray[np.floating]
BANDS = ("rock", "choir", "strings", "piano", "chiptune")  # whose instruments do not depend on the score's own
PROGRAMS = range(88)  # General MIDI up to the leads; pads and effects have no pitch of their own to keep
LOWEST = (*range(32, 40), 42, 43, 57, 58, 70, 87)  # basses, and what else plays one


@dataclass
class Pair:
    """Waveforms (2, N) at 44.1 kHz."""

    name: str
    known: bool  # a bundled style's band
    song: Array
    clip: Array
    truth: Array


def band(seed: bytes) -> tuple[str, StyleRecipe]:
    """Three programs by hash: lowest part, those between, highest part."""
    rng = np.random.default_rng(list(hashlib.sha256(seed).digest()))
    low, middle, high = int(rng.choice(LOWEST)), *map(int, rng.choice(PROGRAMS, 2, replace=False))

    def programs(tracks: Sequence[Any]) -> list[int]:
        pitch = [sum(note.pitch for note in track.notes) / max(1, len(track.notes)) for track in tracks]
        chosen = [middle] * len(tracks)
        chosen[int(np.argmin(pitch))] = low
        chosen[int(np.argmax(pitch))] = high
        return chosen

    return f"programs {low}, {middle}, {high}", replace(recipes.recipe_of("piano"), programs=programs, source="piano")


def own_band(style: str) -> StyleRecipe:
    """A bundled style's recipe; a choir's parts are all voices, whatever the score says."""
    recipe = recipes.recipe_of(style)
    return replace(recipe, programs=lambda tracks: [52] * len(tracks)) if style == "choir" else recipe


def pairs(data: Path, count: int, *, split: recipes.Split, seconds: float, clip_seconds: float) -> Iterator[Pair]:
    """The pairs, in an order nobody chose."""
    protocol, renderer = passages.Protocol(pieces=-(-count // len(BANDS)), seconds=seconds), passages.Renderer(passages.default_cache())
    found = {style: _distinct(data, style, protocol, split) for style in BANDS}
    several = [excerpt for together in zip(*found.values(), strict=False) for excerpt in together if _parts(excerpt) >= 3]
    for i in range(count):
        style, turn = BANDS[i // 2 % len(BANDS)], i // 2 // len(BANDS)
        pool, turn = (found[style], turn) if i % 2 == 0 else (several, i // 2)
        song, clip = pool[turn % len(pool)], replace(pool[(turn + len(pool) // 2) % len(pool)], seconds=clip_seconds)
        name, recipe = (style, own_band(style)) if i % 2 == 0 else band(song.content + clip.content)
        target = recipes.target_score(midi.load_score(song.content), recipe)
        yield Pair(
            name=f"{name}: {Path(song.piece.path).stem[:40]}",
            known=i % 2 == 0,
            song=renderer.render(passages.song_score(target, song.content, recipe), protocol.song_soundfont, song),
            clip=renderer.render(recipes.target_score(midi.load_score(clip.content), recipe), protocol.truth_soundfont, clip),
            truth=renderer.render(target, protocol.truth_soundfont, song),
        )


def _parts(excerpt: passages.Excerpt) -> int:
    return sum(bool(len(track.notes)) and not track.is_drum for track in midi.load_score(excerpt.content).tracks)


def _distinct(data: Path, style: str, protocol: passages.Protocol, split: recipes.Split) -> list[passages.Excerpt]:
    """Excerpts of different music."""
    chosen = passages.excerpts(data, style, protocol, split=split)[0]
    return list({excerpt.piece.group: excerpt for excerpt in reversed(chosen)}.values())[::-1]


METRICS = ("log_mel_l1", "mfcc")


def scores(pair: Pair, folder: Path) -> dict[str, dict[str, float]]:
    """Row → metric → value."""
    import soundfile

    from stylestream.transfer import load_style

    path = folder / "clip.wav"
    soundfile.write(path, pair.clip.T, metrics.SAMPLE_RATE, subtype="FLOAT")
    made = {
        "copy": pair.song,
        "equalise": baselines.equalise(pair.song, baselines.mean_frames(pair.clip)),
        "clip": load_style(path).transfer(pair.song, metrics.SAMPLE_RATE, drums=0.0),
    }
    truth = metrics.prepare(pair.truth)
    heard = {row: metrics.prepare(y) for row, y in made.items()}
    return {
        row: {"log_mel_l1": metrics.log_mel_l1(truth, sound), "mfcc": metrics.mfcc_distance(truth, sound)} for row, sound in heard.items()
    }


def table(names: Sequence[str], known: Sequence[bool], found: Sequence[dict[str, dict[str, float]]]) -> str:
    """Markdown: means and wins, then every pair."""

    def values(row: str, key: str, which: Sequence[int]) -> Array:
        return np.array([found[i][row][key] for i in which])

    lines = [
        "| pairs | row | " + " | ".join(METRICS) + " | nearer than equalise: log-mel L1 | MFCC | both |",
        "|---" * (len(METRICS) + 5) + "|",
    ]
    sets: dict[str, Sequence[int]] = {
        "all": range(len(found)),
        "a bundled style's band": np.flatnonzero(known),
        "a band by hash": np.flatnonzero(~np.array(known)),
    }
    for title, which in sets.items():
        for row in found[0]:
            nearer = [values(row, key, which) < values("equalise", key, which) for key in ("log_mel_l1", "mfcc")]
            wins = [*(n.sum() for n in nearer), (nearer[0] & nearer[1]).sum()] if row in ("copy", "clip") else ["", "", ""]
            cells = [f"{values(row, key, which).mean():.2f}" for key in METRICS]
            lines.append(f"| {title} | {row} | " + " | ".join([*cells, *(f"{w} of {len(which)}" if w != "" else "" for w in wins)]) + " |")
    lines += [
        "",
        "## Pair by pair",
        "",
        "Log-mel L1 in dB and MFCC distance.",
        "",
        "| band: song | copy | equalise | clip |",
        "|---|---|---|---|",
    ]
    for name, f in zip(names, found, strict=True):
        cells = [f"{f[row]['log_mel_l1']:.2f}, {f[row]['mfcc']:.0f}" for row in ("copy", "equalise", "clip")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


TEXT = """# A recording as a style

Written by `python benchmarks/clips.py DATA {arguments}`: {count} pairs of the {split} split, {seconds:g} s of
every song, {clip_seconds:g} s of every clip.

{about}
*equalise* is the song filtered to the mean spectrum of the clip; *clip* is `stylestream transfer SONG -s CLIP`, no training at all.

"""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--split", default="test", choices=("test", "valid"))
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--clip-seconds", type=float, default=20.0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    names, known, found = [], [], []
    lengths = {"seconds": options.seconds, "clip_seconds": options.clip_seconds}
    with tempfile.TemporaryDirectory() as folder:
        for pair in pairs(options.data, options.pairs, split=options.split, **lengths):
            names.append(pair.name)
            known.append(pair.known)
            found.append(scores(pair, Path(folder)))
            print(pair.name, {row: round(f["log_mel_l1"], 2) for row, f in found[-1].items()}, flush=True)
    about = (__doc__ or "").split("with midi.csv\n\n")[1]
    how = {"arguments": " ".join(sys.argv[2:]), "count": len(found), "split": options.split, "about": about}
    options.out.write_text(TEXT.format(**how, **lengths) + table(names, known, found), encoding="utf-8")


if __name__ == "__main__":
    main()
