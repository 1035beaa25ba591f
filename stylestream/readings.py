"""A song without a score, as an estimator reads it: pitches and onsets; and the song itself after a codec and a gentle equaliser.

What a result keeps of a song is how far the reading of the result agrees with the reading of the song. The estimator errs, so its
agreement with itself on the same song, barely changed, is the most that can be asked for.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylestream import metrics
from stylestream.metrics import Sound

Array = NDArray[np.floating]

NOTE_DTYPE = [("onset_seconds", "f8"), ("offset_seconds", "f8"), ("pitch", "i8"), ("velocity", "i8"), ("drum", "?")]
AGAINST_LOUDEST = 0.4  # a pitch is read where its salience is at least this part of the frame's greatest,
AGAINST_SONG = 0.1  # and this part of the song's
SHORTEST_FRAMES = 5  # 58 ms
MOST_NOTES = 6  # at once: the salience of chords has more false peaks than true ones beyond
MP3_KBPS = 128
MILD_EQ_DB = 3.0  # up in the lows, down in the highs


def reading(sound: Sound) -> NDArray[Any]:
    """Notes of a recording, as ``midi.notes`` gives those of a score; loudness is not read."""
    roll = pitches(sound)
    runs = [(pitch, start, stop) for row, pitch in zip(roll, metrics.PITCHES, strict=True) for start, stop in _runs(row)]
    notes = np.zeros(len(runs), dtype=NOTE_DTYPE)
    for note, (pitch, start, stop) in zip(notes, runs, strict=True):
        note["pitch"], note["velocity"] = pitch, 64
        note["onset_seconds"], note["offset_seconds"] = start / metrics.FRAMES_PER_SECOND, stop / metrics.FRAMES_PER_SECOND
    return notes[np.lexsort((notes["pitch"], notes["onset_seconds"]))]


def pitches(sound: Sound) -> NDArray[np.bool_]:
    """Semitones that sound at every frame, (len(PITCHES), T): the salient peaks of the harmonic sum, over at least 58 ms."""
    from scipy.ndimage import binary_opening, maximum_filter1d

    S = sound.salience
    peak = (maximum_filter1d(S, 3, axis=0, mode="constant") == S) & (S > 0)
    strong = (AGAINST_LOUDEST * S.max(0, keepdims=True) <= S) & (AGAINST_SONG * S.max(initial=0.0) <= S)
    kept = np.sort(np.where(peak & strong, S, 0), axis=0)[-MOST_NOTES]
    roll = peak & strong & (np.maximum(kept, 1e-12) <= S)
    return np.asarray(binary_opening(roll, np.ones((1, SHORTEST_FRAMES))))


def _runs(row: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Starts and stops of the runs of True."""
    edges = np.diff(np.concatenate([[0], row.astype(np.int8), [0]]))
    return np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)], axis=1)


def mp3(y: Array, sample_rate: int = metrics.SAMPLE_RATE) -> Array:
    """The song through MP3 at about 128 kbit/s and back: (C, N) → (C, N), C at most 2."""
    import soundfile

    file = io.BytesIO()
    peak = max(float(np.abs(y).max(initial=0.0)), 1.0)
    settings: dict[str, Any] = {"bitrate_mode": "CONSTANT", "compression_level": _level(sample_rate)}
    soundfile.write(file, y[:2].T / peak, sample_rate, format="MP3", subtype="MPEG_LAYER_III", **settings)
    file.seek(0)
    back = soundfile.read(file, dtype="float32", always_2d=True)[0].T * np.float32(peak)
    aligned = np.pad(back[:, : y.shape[1]], ((0, 0), (0, max(0, y.shape[1] - back.shape[1]))))
    return aligned if aligned.shape[0] == y.shape[0] else np.repeat(aligned[:1], y.shape[0], axis=0)


def _level(sample_rate: int) -> float:
    """libsndfile's compression level, 0 to 1, of `MP3_KBPS`: it goes down from the highest bit rate of the layer to the lowest."""
    highest, lowest = (320, 32) if sample_rate >= 32000 else (160, 8)
    return (highest - MP3_KBPS) / (highest - lowest)


def mild_eq(y: Array, sample_rate: int = metrics.SAMPLE_RATE) -> Array:
    """The song with 3 dB more below 200 Hz and 3 dB less above 4 kHz: shelves of first order, (C, N) → (C, N)."""
    from scipy.signal import lfilter

    for hz, gain_db in ((200.0, MILD_EQ_DB), (4000.0, -MILD_EQ_DB)):
        b, a = _shelf(hz, gain_db, sample_rate, low=hz < 1000)
        y = lfilter(b, a, y, axis=-1)
    return y.astype(np.float32)


def _shelf(hz: float, gain_db: float, sample_rate: int, *, low: bool) -> tuple[Array, Array]:
    """First-order shelf by the bilinear transform: s + G w over s + w (low), G s + w over s + w (high)."""
    gain, w = 10 ** (gain_db / 20), np.tan(np.pi * hz / sample_rate)
    b = np.array([1 + gain * w, gain * w - 1]) if low else np.array([gain + w, w - gain])
    return b / (1 + w), np.array([1.0, (w - 1) / (1 + w)])
