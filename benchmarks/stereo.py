"""What becomes of a recording's stereo image: level difference and correlation of the channels, band by band, and the mono fold-down;
and of the image of a narrow one when the dial `width` is turned.

    python benchmarks/stereo.py AUDIO -s rock -s strings --out docs/stereo.md

AUDIO is a folder of recordings with audio.csv. Stereo recordings are taken by the hash of their names.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylestream import audio
from stylestream.metrics import flux_correlation, log_mel_l1
from stylestream.sound import prepare
from stylestream.style import list_styles
from stylestream.transfer import Dials, StyleTransfer, load_style
from stylestream.width import OCTAVES_HZ, widths_of

Array = NDArray[np.floating]
SAMPLE_RATE = 44100
BANDS_HZ = ((60, 250), (250, 500), (500, 1000), (1000, 2000), (2000, 4000), (4000, 8000), (8000, 16000))
SOUNDING_DB = 40.0  # below a recording's loudest band, a band has no image to keep

NARROW = {"half": 0.5, "mid only": 0.0}  # what is left of a recording's side
TURNS = (0.0, 0.5, 1.0)  # of the dial
WIDTH_SONGS = 4  # of the recordings: each is played six times


def recordings(folder: Path, count: int, seconds: float) -> dict[str, Array]:
    """Excerpts (2, N) of stereo recordings, from a quarter of their length on."""
    found: dict[str, Array] = {}
    files = (path for path in folder.rglob("*") if path.suffix.lower() in (".ogg", ".mp3", ".flac", ".wav", ".opus"))
    for path in sorted(files, key=lambda path: hashlib.sha256(path.name.encode()).hexdigest()):
        y, _ = audio.load(path, sample_rate=SAMPLE_RATE, max_seconds=90.0)
        y = y[:, y.shape[1] // 4 :][:, : round(seconds * SAMPLE_RATE)]
        if y.shape[0] == 2 and np.abs(y[0] - y[1]).max() > 1e-3:
            found[path.name] = y
        if len(found) == count:
            break
    return found


def image(y: Array) -> dict[str, Array]:
    """Of each band: level of the left over the right channel (dB), correlation, and power (dB)."""
    Y = np.fft.rfft(y, axis=1)
    hz = np.fft.rfftfreq(y.shape[1], 1 / SAMPLE_RATE)
    out: dict[str, list[float]] = {"level": [], "correlation": [], "power": []}
    for low, high in BANDS_HZ:
        left, right = Y[:, (hz >= low) & (hz < high)]
        powers = [float((np.abs(side) ** 2).sum()) + 1e-20 for side in (left, right)]
        out["level"].append(10 * np.log10(powers[0] / powers[1]))
        out["correlation"].append(float((left * right.conj()).real.sum()) / np.sqrt(powers[0] * powers[1]))
        out["power"].append(10 * np.log10(sum(powers)))
    return {key: np.array(values) for key, values in out.items()}


def compared(song: Array, made: Array) -> dict[str, Array]:
    """Differences of image, band by band (NaN where the song or the result has nothing), and of the fold-downs."""
    before, after = image(song), image(made)
    heard = np.logical_and(*(i["power"] > i["power"].max() - SOUNDING_DB for i in (before, after)))

    def fold_down(y: Array) -> float:
        return audio.loudness(np.repeat(y.mean(0, keepdims=True), 2, axis=0), SAMPLE_RATE) - audio.loudness(y, SAMPLE_RATE)

    return {
        "level": np.where(heard, np.abs(after["level"] - before["level"]), np.nan),
        "correlation": np.where(heard, after["correlation"] - before["correlation"], np.nan),
        "fold_down": np.array([fold_down(made) - fold_down(song)]),
    }


def null_db(a: Array, b: Array) -> float:
    """Power of the difference of two waveforms after the best common gain, relative to b."""
    a = a * (a * b).sum() / max(float((a * a).sum()), 1e-20)
    return 10 * np.log10(((a - b) ** 2).sum() / (b**2).sum() + 1e-20)


def lines(style: str, songs: dict[str, Array]) -> tuple[list[str], list[str]]:
    """A style's line of the summary, and its lines by band."""
    player, found, nulls = load_style(style), [], []
    for song in songs.values():
        made = player.transfer(song, SAMPLE_RATE, drums=0.0)
        found.append(compared(song, made))
        mono = player.transfer(song.mean(0, keepdims=True), SAMPLE_RATE, drums=0.0)
        nulls.append(null_db(made.mean(0), mono[0]))
    all_of = {key: np.stack([f[key] for f in found]) for key in found[0]}
    level, correlation = all_of["level"], all_of["correlation"]
    cells: list[Any] = [
        *(f"{x:.2f}" for x in np.nanpercentile(level, [50, 90, 100])),
        *(f"{x:.3f}" for x in np.nanpercentile(np.abs(correlation), [50, 90, 100])),
        f"{np.nanmean(correlation):+.3f}",
        f"{all_of['fold_down'].mean():+.2f}",
        f"{max(nulls):.0f}",
    ]
    bands = [f"| {style} | level, dB | " + " | ".join(f"{x:.2f}" for x in np.nanmean(level, axis=0)) + " |"]
    bands.append("| | correlation | " + " | ".join(f"{x:+.3f}" for x in np.nanmean(correlation, axis=0)) + " |")
    return [f"| {style} | " + " | ".join(cells) + " |"], bands


def own_widths() -> list[str]:
    """How wide the music of each bundled style is, a line each."""
    return [f"| {entry.name} | " + " | ".join(map(in_db, load_style(entry.path).widths)) + " |" for entry in list_styles() if entry.bundled]


def in_db(width: float, *, least: float = 1e-4) -> str:
    """A ratio of powers; a dash where there is nothing, or next to it."""
    return f"{round(10 * np.log10(width))}" if width > least else "–"


def wider(style: str, songs: dict[str, Array]) -> list[str]:
    """A style's lines about narrow songs: how wide they become, and what becomes of their fold-down and their attacks."""
    player, found = load_style(style), []
    if not any(player.widths):
        return []
    for narrow, share in NARROW.items():
        rows: dict[float, list[list[float]]] = {turn: [] for turn in TURNS}
        for y in songs.values():
            mid = y.mean(0, keepdims=True)
            made = turned(player, (mid + share * (y - mid)).astype(np.float32))
            folded, left = ({turn: prepare(part, SAMPLE_RATE) for turn, part in parts.items()} for parts in folds(made))
            for turn, result in made.items():
                error = ((result.mean(0) - made[0.0].mean(0)).astype(float) ** 2).sum() / (made[0.0].mean(0).astype(float) ** 2).sum()
                numbers = [np.corrcoef(result)[0, 1], error, log_mel_l1(folded[0.0], folded[turn]), flux_correlation(left[0.0], left[turn])]
                rows[turn].append([*widths_of(result, SAMPLE_RATE), *numbers])
        for turn, numbers in rows.items():
            *widths, alike, _, _, flux = np.median(numbers, axis=0)
            null, l1 = np.max(numbers, axis=0)[-3:-1]
            cells = [*map(in_db, widths), f"{alike:.2f}", in_db(null, least=0.0), f"{l1:.4f}", f"{flux:.3f}"]
            found.append(f"| {style} | {narrow} | {turn:g} | " + " | ".join(cells) + " |")
    return found


def turned(player: StyleTransfer, song: Array) -> dict[float, Array]:
    """A song at each position of the dial, before the final gain."""
    heard = player.listen(lambda: [song], SAMPLE_RATE, 2, peak=False)
    return {turn: np.concatenate([*player.render(lambda: [song], heard, Dials(width=turn))], axis=1) for turn in TURNS}


def folds(made: dict[float, Array]) -> tuple[dict[float, Array], dict[float, Array]]:
    """Fold-downs, and left channels."""
    return {turn: y.mean(0) for turn, y in made.items()}, {turn: y[0] for turn, y in made.items()}


TEXT = """# Stereo

Written by `python benchmarks/stereo.py AUDIO {arguments}`: {count} stereo recordings chosen by hash, {seconds:g} s of each,
compared with themselves in each style. The bands: {bands} Hz. Bands more than 40 dB below the loudest have no image to keep.

*Level*: by how much the level of the left over the right channel has changed in a band, dB: median, 90th percentile and largest over
bands and recordings. *Correlation*: by how much the correlation of the channels has changed, the same; *mean* with its sign: above 0 the
result is narrower than the song. *Fold-down*: loudness of the mono fold-down relative to the stereo, in the result over that in the
song, dB: below 0 something is lost in mono. *Null*: the fold-down of the stereo result against the song folded down first and then
played in the style, at its worst, dB: both are the same, so stereo costs a mono listener nothing.

The bounds that a style is to keep: in nine bands of ten the level stays within 2.5 dB and the correlation within 0.35, and the fold-down
loses no more than 0.3 dB. Single bands of single songs change more (*largest*).

| style | level: median | 90 % | largest | correlation: median | 90 % | largest | mean | fold-down, dB | null, dB |
|---|---|---|---|---|---|---|---|---|---|
"""

WIDER = """
## Wider where the style is

`--width` 0, the default, keeps the song's image, as above. Turned up, a stereo result gets a side made of its mid, octave by octave as far
as the style's music is wider than the song (`stylestream/width.py`): all-passes that are over in 25 ms, nothing below 120 Hz, nothing where
the song is as wide already, and nothing beyond channels that are not alike (0 dB). The mid stays what it is, so a mono listener hears no
difference. Mono songs stay mono; songs of more than two channels are left alone. The style's drums are in the mid and become wide with it,
bass drums excepted. A style is as wide as its training music, played by its SoundFont: where the scores leave all instruments in the
middle, as those of jazz nearly do, the dial has next to nothing to do; where they all do, as in rock, it is refused, in words.

Side over mid of the styles' own music, dB, by octave (Hz); medians over 24 training songs (`python tools/make_styles.py widths`).

"""

NARROWER = """
{songs} of the recordings, made narrow: half of their side, or none of it (two channels alike). In the result side over mid, dB, and
*alike*, the correlation of the channels: medians. *Null*: the fold-down against that of width 0, before the final gain, dB, at its worst;
*L1*: the log-mel distance of the two at its worst, dB; *attacks*: correlation of the left channel's spectral flux with that of width 0,
median. Styles whose music has no side are left out.

"""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path)
    parser.add_argument("-s", "--style", action="append", required=True)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    songs = recordings(options.audio, options.count, options.seconds)
    made = [lines(style, songs) for style in options.style]
    names = [f"{low}–{high}" for low, high in BANDS_HZ]
    how = {"arguments": " ".join(sys.argv[2:]), "count": len(songs), "seconds": options.seconds, "bands": ", ".join(names)}
    text = TEXT.format(**how) + "\n".join(line for summary, _ in made for line in summary)
    head = ["", "", "## Band by band", "", "Means over the recordings.", "", "| style | | " + " | ".join(names) + " |", "|---" * 9 + "|"]
    text += "\n".join([*head, *(line for _, bands in made for line in bands), ""])
    octaves = " | ".join(map(str, OCTAVES_HZ))
    text += WIDER + "\n".join([f"| style | {octaves} |", "|---" * 10 + "|", *own_widths(), ""])
    few = dict([*songs.items()][:WIDTH_SONGS])
    head = [f"| style | song | width | {octaves} | alike | null, dB | L1, dB | attacks |", "|---" * 16 + "|"]
    text += NARROWER.format(songs=len(few)) + "\n".join([*head, *(line for style in options.style for line in wider(style, few)), ""])
    options.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
