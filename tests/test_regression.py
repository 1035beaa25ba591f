"""A gate for the bundled styles: on a small frozen set they stay as far along the way as they were measured to be.

The set is four scores that are written here, by chance with a fixed seed: chords, a bass and a tune, six seconds of each, song and truth
both in the SoundFont of training. It is no test of quality (``docs/quality.md`` is) but of change: a vocoder that smears, a network that
is loaded wrongly, a metric that means something else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("librosa", reason="evaluation needs the extra [eval]")
pytest.importorskip("mir_eval", reason="evaluation needs the extra [eval]")
pytest.importorskip("symusic", reason="evaluation needs the extra [midi]")


from stylestream.evaluate import Protocol

FROZEN = Protocol(pieces=4, seconds=6.0, start=0.0, song_soundfont="fluidr3", resamples=100)


def write_score(path: Path, seed: int, *, bars: int = 4) -> Path:
    """Four chords, a bass, and a tune that wanders over them, at 110 beats a minute."""
    import symusic

    rng = np.random.default_rng(seed)
    score: Any = symusic.Score(480)
    score.tempos.append(symusic.Tempo(0, 110.0))
    chords: Any = symusic.Track("chords", 0, False)
    bass: Any = symusic.Track("bass", 32, False)
    tune: Any = symusic.Track("tune", 0, False)
    key = 48 + int(rng.integers(0, 12))
    for bar in range(bars):
        root = key + int(rng.choice([0, 5, 7, 9]))
        chords.notes.extend(symusic.Note(1920 * bar, 1800, root + step + 12, 70) for step in (0, 4, 7))
        for beat in range(4):
            bass.notes.append(symusic.Note(1920 * bar + 480 * beat, 420, root - 12, 85))
            for half in range(2):
                pitch = root + 24 + int(rng.choice([0, 2, 4, 7, 9]))
                tune.notes.append(symusic.Note(1920 * bar + 480 * beat + 240 * half, 220, pitch, int(rng.integers(70, 110))))
    score.tracks.extend([chords, bass, tune])
    path.write_bytes(score.dumps_midi())
    return path


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory, fonts: None) -> Path:
    root = tmp_path_factory.mktemp("frozen")
    for seed in range(4):
        write_score(root / f"{seed}.mid", seed)
    return root
