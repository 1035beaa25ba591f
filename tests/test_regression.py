"""A gate for the bundled styles: on a small frozen set they stay as far along the way as they were measured to be.

The set is two scores that are written here, by chance with a fixed seed: chords, a bass and a tune, six seconds of each, song and truth
both in the SoundFont of training. It is no test of quality (``docs/quality.md`` is) but of change: a vocoder that smears, a network that
is loaded wrongly, a metric that means something else.

The values are those of the styles as bundled. The bounds are three times the measured spread (of chroma, which hardly moves, ten times): of
two trainings of strings and piano the same passage (six, of these scores and two more) differed by at most 0.034 in the part of the way,
0.024 in note AUC and 0.002 in chroma. Copy and ceiling need no training and did not differ; what is allowed of them is for other versions
of FluidSynth. After a new training that is better than this, print the values with ``pytest tests/test_regression.py -rP`` and write them
here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("librosa", reason="evaluation needs the extra [eval]")
pytest.importorskip("mir_eval", reason="evaluation needs the extra [eval]")
pytest.importorskip("symusic", reason="evaluation needs the extra [midi]")


from stylestream.evaluate import Contenders, Judge, Protocol, Task, excerpts

FROZEN = Protocol(pieces=2, seconds=6.0, start=0.0, song_soundfont="fluidr3", resamples=100)


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
    for seed in range(2):
        write_score(root / f"{seed}.mid", seed)
    return root


# way, chroma and note AUC of the style, log-mel L1 of copy and ceiling
VALUES = {
    ("strings", "0.mid"): (0.505, 0.970, 0.901, 12.351, 1.280),
    ("strings", "1.mid"): (0.516, 0.972, 0.956, 10.839, 1.043),
    ("piano", "0.mid"): (0.645, 0.988, 0.846, 10.778, 1.230),
    ("piano", "1.mid"): (0.488, 0.966, 0.901, 10.514, 0.990),
}
WAY_SPREAD, CHROMA_SPREAD, AUC_SPREAD = 0.10, 0.02, 0.072


@pytest.fixture(scope="module")
def measured(frozen: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, dict[str, float]]]:
    """Rows by style and score."""
    judge = Judge(FROZEN, tmp_path_factory.mktemp("cache"), rows=["none"])
    found = {}
    for style in ("strings", "piano"):
        for excerpt in excerpts(frozen, style, FROZEN)[0]:
            found[style, excerpt.piece.path] = judge.score(Task(Contenders.find(style), style, excerpt))["rows"]
    return found


@pytest.mark.parametrize(("style", "score"), list(VALUES))
def test_a_bundled_style_is_as_far_along_the_way_as_it_was(measured: dict[tuple[str, str], Any], style: str, score: str) -> None:
    rows, (way, chroma, auc, copied, best) = measured[style, score], VALUES[style, score]
    distance = {row: cells["log_mel_l1"] for row, cells in rows.items()}
    reached = (distance["copy"] - distance[style]) / (distance["copy"] - distance["ceiling"])
    values = reached, rows[style]["chroma"], rows[style]["note_auc"], distance["copy"], distance["ceiling"]
    print((style, score), [round(value, 3) for value in values])
    assert reached >= way - WAY_SPREAD
    assert rows[style]["chroma"] >= chroma - CHROMA_SPREAD
    assert rows[style]["note_auc"] >= auc - AUC_SPREAD
    assert distance["copy"] == pytest.approx(copied, abs=0.3)
    assert distance["ceiling"] <= best + 0.15


def test_the_gate_is_no_open_door(measured: dict[tuple[str, str], Any]) -> None:
    """The song itself would not pass: its way is none."""
    assert all(way - WAY_SPREAD > 0.3 for way, *_ in VALUES.values())
    for (style, score), rows in measured.items():
        assert rows["copy"]["log_mel_l1"] > 1.5 * rows[style]["log_mel_l1"], score
