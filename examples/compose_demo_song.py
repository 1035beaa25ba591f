"""Compose "Lamplight", the song that `stylestream demo` plays: the MIDI file, and its rendering.

    python examples/compose_demo_song.py stylestream/demo

Thirteen bars in C minor for flute, clarinet, harp and double bass: none of the bundled styles, so that each of them has something
to do. The melody is written out; harp and bass follow the chords; the last bars slow down. Rendered with FluidR3 (Debian:
fluid-soundfont-gm, MIT), so that whoever runs the demo needs no synthesizer. The same script gives the same bytes of MIDI.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import soundfile
import symusic

from stylestream.midi import Synthesizer

QUARTER = 480  # ticks
NOTES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}

# One line a bar; "C5 1.5" is a note and its length in beats.
MELODY = """
C5 1.5 D5 .5 Eb5 1 G5 1
F5 1.5 Eb5 .5 C5 2
Bb4 .5 Eb5 .5 G5 1 F5 .5 Eb5 .5 D5 .5 Eb5 .5
F5 1.5 D5 .5 Bb4 2
Ab4 .5 C5 .5 F5 1 Ab5 1.5 G5 .5
G5 1 F5 .5 Eb5 .5 D5 1 Eb5 1
F5 1 Eb5 .5 D5 .5 Ab5 1 F5 1
D5 1.5 Eb5 .25 D5 .25 B4 1 G4 1
C5 .5 D5 .5 Eb5 .5 G5 .5 C6 1.5 Bb5 .5
Ab5 1 G5 .5 Ab5 .5 Bb5 1 Ab5 .5 F5 .5
G5 1.5 Bb5 .5 Bb5 1 G5 .5 E5 .5
F5 .5 Ab5 .5 C6 1 B5 1 D5 .5 G5 .5
C6 4
"""
INNER_VOICE = """
G4 2 Eb4 2
Eb4 3 C4 1
G4 2 Ab4 1 G4 1
F4 2 D4 1 F4 1
C4 2 F4 2
Eb4 1 G4 2 G4 1
Ab4 2 C4 1 Ab4 1
B3 2 F4 1 D4 1
Eb4 2 G4 1 G4 1
C5 1 Ab4 1 F4 1 D4 1
Eb4 1 G4 1 C5 1 Bb4 1
Ab4 1 F4 1 G4 1 F4 1
Eb4 4
"""
# Per bar one or two chords: bass note, then the four strings of the harp's figure from below.
CHORDS = """
C2 C3 G3 C4 Eb4
Ab1 Ab2 Eb3 C4 Eb4
Eb2 Eb3 Bb3 Eb4 G4
Bb1 Bb2 F3 D4 F4
F2 F3 C4 F4 Ab4
C2 C3 G3 C4 Eb4
D2 D3 Ab3 C4 F4
G1 G2 F3 B3 D4
C2 C3 G3 C4 Eb4
Ab1 Ab2 Eb3 C4 Eb4 | Bb1 Bb2 F3 D4 F4
Eb2 Eb3 Bb3 Eb4 G4 | E2 E3 Bb3 C4 G4
F2 F3 C4 F4 Ab4 | G1 G2 F3 B3 D4
C2 C3 G3 Eb4 C5
"""
FIGURE = (0, 1, 2, 3, 2, 1, 2, 1)  # strings of the harp, in eighths


def pitch(name: str) -> int:
    """MIDI number of a note name.

    >>> pitch("C4"), pitch("Eb4"), pitch("B3")
    (60, 63, 59)
    """
    return 12 * (int(name[-1]) + 1) + NOTES[name[0]] - name.count("b")


def written(text: str) -> list[tuple[float, float, int]]:
    """Notes of a written part: onset and length in beats, pitch."""
    words = text.split()
    lengths = [float(word) for word in words[1::2]]
    onsets = np.cumsum([0.0, *lengths[:-1]])
    return [(float(onset), length, pitch(name)) for onset, length, name in zip(onsets, lengths, words[::2], strict=True)]


def chords() -> list[tuple[float, float, list[int]]]:
    """Chords: onset and length in beats, pitches (bass first)."""
    bars = [[[pitch(name) for name in half.split()] for half in line.split("|")] for line in CHORDS.strip().splitlines()]
    return [
        (4.0 * bar + 4.0 / len(halves) * i, 4.0 / len(halves), half) for bar, halves in enumerate(bars) for i, half in enumerate(halves)
    ]


def harp() -> list[tuple[float, float, int]]:
    """Broken chords in eighths that ring on; the last chord is rolled."""
    notes = []
    for onset, beats, (_, *strings) in chords()[:-1]:
        notes += [(onset + step / 2, 1.0, strings[FIGURE[step]]) for step in range(int(2 * beats))]
    onset, beats, (_, *strings) = chords()[-1]
    return notes + [(onset + i / 8, beats - i / 8, string) for i, string in enumerate([*strings, strings[-1] + 12])]


def bass() -> list[tuple[float, float, int]]:
    """Root, fifth or octave, root: long, short, long."""
    notes = []
    for onset, beats, (root, *_) in chords()[:-1]:
        notes += [(onset, 1.5, root), (onset + 1.5, 0.5, root + 12)]
        if beats == 4:
            notes += [(onset + 2, 1.0, root), (onset + 3, 1.0, root + (7 if root != pitch("D2") else 6))]
    onset, beats, (root, *_) = chords()[-1]
    return [*notes, (onset, beats, root)]


def loudness(onset: float, level: int) -> int:
    """Velocity: swells over four bars, falls back at the end, leans on the beats."""
    phrase = np.sin(np.pi * (onset % 16) / 16)
    accent = 6 if onset % 4 == 0 else 3 if onset % 1 == 0 else 0
    return int(np.clip(level + 12 * phrase + accent - (14 if onset >= 48 else 0), 1, 127))


def part(name: str, program: int, notes: list[tuple[float, float, int]], *, level: int, pan: int, gate: float = 0.95) -> symusic.Track:
    """One instrument: its notes in ticks, its place from left (0) to right (127)."""
    track = symusic.Track(name=name, program=program)
    track.controls.append(symusic.ControlChange(0, 10, pan))
    for onset, beats, number in notes:
        track.notes.append(symusic.Note(round(onset * QUARTER), round(beats * gate * QUARTER), number, loudness(onset, level)))
    return track


def compose() -> symusic.Score:
    """The whole song, 32 seconds."""
    score = symusic.Score(QUARTER)
    score.time_signatures.append(symusic.TimeSignature(0, 4, 4))
    for beat, quarters_per_minute in ((0, 100), (44, 96), (46, 90), (47, 82), (48, 76)):
        score.tempos.append(symusic.Tempo(beat * QUARTER, qpm=quarters_per_minute))
    score.tracks.append(part("Flute", 73, written(MELODY), level=84, pan=52))
    score.tracks.append(part("Clarinet", 71, written(INNER_VOICE), level=64, pan=84))
    score.tracks.append(part("Harp", 46, harp(), level=70, pan=36, gate=1.0))
    score.tracks.append(part("Bass", 32, bass(), level=80, pan=64))
    return score


def main(folder: Path) -> None:
    """Write ``lamplight.mid`` and ``lamplight.ogg``."""
    score = compose()
    folder.mkdir(parents=True, exist_ok=True)
    score.dump_midi(folder / "lamplight.mid")
    with Synthesizer("fluidr3") as synthesizer:
        y = synthesizer.render(score, tail_seconds=1.5)
    sample_rate = synthesizer.sample_rate
    y *= 0.7 / np.abs(y).max()
    y[:, -sample_rate // 2 :] *= np.linspace(1, 0, sample_rate // 2, dtype=np.float32)  # the harp still rings: let it fade, not stop
    with soundfile.SoundFile(folder / "lamplight.ogg", "w", sample_rate, 2, "VORBIS", format="OGG", compression_level=0.3) as file:
        for start in range(0, y.shape[-1], sample_rate):  # in pieces: libvorbis overflows its stack on a long one
            file.write(y.T[start : start + sample_rate])
    print(f"{y.shape[-1] / sample_rate:.1f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
