"""Evaluation: the right passages, the right songs, honest intervals, and a report that says what is not known."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("librosa", reason="evaluation needs the extra [eval]")
pytest.importorskip("mir_eval", reason="evaluation needs the extra [eval]")
pytest.importorskip("symusic", reason="evaluation needs the extra [midi]")

from stylestream import dataset, evaluate, midi
from stylestream.evaluate import Contenders, Excerpt, Judge, Protocol

SHORT = Protocol(pieces=2, seconds=3.0, min_notes=5, song_soundfont="fluidr3", resamples=200)  # MuseScore's takes seconds to load


def write_piece(path: Path, *, bars: int = 6, low: int = 40, drums: bool = True) -> Path:
    """A tune, a bass and a drum at 120 beats a minute."""
    import symusic

    score: Any = symusic.Score(480)  # its stubs know less than it does
    score.tempos.append(symusic.Tempo(0, 120.0))
    tune: Any = symusic.Track("tune", 30, False)
    bass: Any = symusic.Track("bass", 33, False)
    kit: Any = symusic.Track("kit", 0, True)
    for beat in range(4 * bars):
        tune.notes.append(symusic.Note(480 * beat, 400, low + 24 + (0, 4, 7, 5)[beat % 4], 90))
        bass.notes.append(symusic.Note(480 * beat, 470, low + (0, 7)[beat % 2], 80))
        kit.notes.append(symusic.Note(480 * beat, 100, 38, 100))
    score.tracks.extend([tune, bass, kit] if drums else [tune, bass])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(score.dumps_midi())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("songs")
    for i in range(3):
        write_piece(root / f"piece {i}.mid", low=38 + i, drums=i < 2)
    write_piece(root / "short.mid", bars=1)
    (root / "broken.mid").write_bytes(b"MThd nonsense")
    return root


@pytest.fixture(scope="module")
def fonts() -> None:
    try:
        midi.Synthesizer().close()
    except ValueError as error:
        pytest.skip(str(error))


# --- passages


def test_passages_are_chosen_by_hash_and_refusals_are_said(folder: Path) -> None:
    many = Protocol(pieces=9, seconds=3.0, min_notes=10)
    chosen, refused = evaluate.excerpts(folder, "rock", many)
    assert {e.piece.path for e in chosen} == {"piece 0.mid", "piece 1.mid", "piece 2.mid"}
    assert [e.piece.path for e in chosen] == [p.path for p in evaluate.by_hash([e.piece for e in chosen])]
    assert set(refused) == {"short.mid", "broken.mid"}
    assert "8 notes in the excerpt; at least 10 are needed" in refused["short.mid"]
    first, _ = evaluate.excerpts(folder, "rock", Protocol(pieces=1, seconds=3.0, min_notes=10))
    assert first == chosen[:1]


def test_a_passage_begins_at_a_quarter_and_stays_inside(folder: Path) -> None:
    (a, *_), _ = evaluate.excerpts(folder, "rock", SHORT)
    assert a.start_seconds == pytest.approx(3, abs=0.01)  # a quarter of 12 s
    (b, *_), _ = evaluate.excerpts(folder, "rock", Protocol(pieces=1, seconds=10.0))
    assert b.start_seconds == pytest.approx(2, abs=0.05)
    (c, *_), _ = evaluate.excerpts(folder, "rock", Protocol(pieces=1, seconds=60.0))
    assert (c.start_seconds, c.seconds) == (0, pytest.approx(12, abs=0.05))


def test_notes_are_counted_from_the_passage_s_start(folder: Path) -> None:
    (excerpt, *_), _ = evaluate.excerpts(folder, "rock", SHORT)
    score = dataset.target_score(midi.load_score(excerpt.content), dataset.recipe_of("rock"))
    notes = evaluate.notes_of(score, excerpt)
    assert len(notes) == 12  # 6 beats of tune and bass; the drums are not in the score
    assert notes["onset_seconds"].min() == pytest.approx(0, abs=0.01)
    assert notes["onset_seconds"].max() == pytest.approx(2.5, abs=0.01)


def test_a_folder_without_a_usable_piece_says_why(tmp_path: Path) -> None:
    write_piece(tmp_path / "a.mid", bars=1)
    with pytest.raises(ValueError, match=r"no held-out piece for style 'rock'.*a\.mid: 8 notes"):
        evaluate.excerpts(tmp_path, "rock")


def test_the_song_is_a_piano_and_the_piano_s_song_is_not(folder: Path) -> None:
    content = (folder / "piece 0.mid").read_bytes()
    for style, piano in (("rock", True), ("piano", False)):
        recipe = dataset.recipe_of(style)
        target = dataset.target_score(midi.load_score(content), recipe)
        song = evaluate.song_score(target, content, recipe)
        assert len(midi.notes(song)) == len(midi.notes(target)) == 48
        assert all(track.program == 0 for track in song.tracks) == piano
        again = evaluate.song_score(target, content, recipe)
        assert [t.program for t in again.tracks] == [t.program for t in song.tracks]


@pytest.mark.data
def test_held_out_pieces_are_the_test_split(collection: Path) -> None:
    chosen, _ = evaluate.excerpts(collection, "strings", Protocol(pieces=3))
    assert len(chosen) == 3
    assert {e.piece.split for e in chosen} == {"test"}
    assert len({e.piece.group for e in chosen}) == 3


# --- statistics


def piece(path: str, rows: dict[str, float], metric: str = "log_mel_l1", **tables: Any) -> dict[str, Any]:
    return {"path": path, "rows": {name: {metric: value} for name, value in rows.items()}, **tables}


def test_the_way_is_none_for_copy_and_whole_for_the_ceiling() -> None:
    scored = [piece(str(i), {"copy": 8.0 + i, "rock": 4.5 + i, "ceiling": 1.0 + i}) for i in range(6)]
    part = evaluate.table(scored, {str(i): str(i) for i in range(6)}, "rows", Protocol())
    assert [part["way"][row]["mean"] for row in ("copy", "rock", "ceiling")] == pytest.approx([0, 0.5, 1])
    assert part["rows"]["rock"]["log_mel_l1"]["mean"] == pytest.approx(7)
    assert part["way"]["rock"]["low"] == pytest.approx(part["way"]["rock"]["high"])  # paired: the pieces' difficulty cancels


def test_the_interval_covers_the_mean_95_times_in_100(rng: np.random.Generator) -> None:
    hits = 0
    for trial in range(200):
        values = rng.normal(size=40)
        cell: dict[str, Any] = evaluate.interval(values, evaluate.resample([str(i) for i in range(40)], 300, seed=trial), np.mean)
        hits += cell["low"] < 0 < cell["high"]
    assert 180 <= hits <= 199  # a percentile bootstrap of 40 is slightly narrow


def test_pieces_of_one_group_are_drawn_together() -> None:
    drawn = evaluate.resample(["a", "a", "b"], 50)
    assert {tuple(sorted(sample.tolist())) for sample in drawn} == {(0, 0, 1, 1), (0, 1, 2), (2, 2)}


def test_nan_is_reported_and_never_averaged_away() -> None:
    scored = [piece("a", {"copy": 8.0, "rock": math.nan, "ceiling": 1.0}), piece("b", {"copy": 8.0, "rock": 4.0, "ceiling": 1.0})]
    part = evaluate.table(scored, {"a": "a", "b": "b"}, "rows", Protocol(resamples=50))
    assert part["rows"]["rock"]["log_mel_l1"] == {"mean": None, "low": None, "high": None, "n": 2, "nan": 1}
    assert part["way"]["rock"]["mean"] is None
    assert evaluate._cell(part["rows"]["rock"]["log_mel_l1"]) == "NaN (1 of 2)"


def cells(**values: float | None) -> dict[str, dict[str, Any]]:
    base = dict.fromkeys(evaluate.COLUMNS, 0.0) | {"chroma": 0.9, "flux": 0.8, "note_auc": 0.97} | values
    return {metric: {"mean": value, "low": value, "high": value, "n": 5} for metric, value in base.items()}


def report_of(ours: dict[str, Any], *, reached: float = 0.5, ripple_db: float = 0.0) -> dict[str, Any]:
    rows = {
        "copy": cells(log_mel_l1=9.0, mfcc=50.0),
        "equalise": cells(log_mel_l1=8.0, mfcc=30.0),
        "rock": ours,
        "ceiling": cells(log_mel_l1=1.0, modulation_20_43=ripple_db),
        "truth": cells(),
    }
    ways = {row: {"mean": reached, "low": reached, "high": reached, "n": 5} for row in rows}
    report: dict[str, Any] = {
        "style": "rock",
        "rows": rows,
        "way": ways,
        "with_drums": None,
        "pieces": [{}] * 5,
        "missing": ["plain"],
        "failures": {},
    }
    return report | {"claims": evaluate.claims(report, "rock")}


GOOD = {
    "log_mel_l1": 5.0,
    "mfcc": 20.0,
    "modulation_2_5": -1.0,
    "modulation_5_10": -4.0,
    "modulation_10_20": -9.0,
    "modulation_20_43": -9.0,
}


def test_every_promise_is_kept_by_a_good_style() -> None:
    assert [c["claim"] for c in report_of(cells(**GOOD))["claims"] if not c["holds"]] == []


@pytest.mark.parametrize(
    ("broken", "claim"),
    [
        ({"log_mel_l1": 6.9}, "log-mel L1 re equalise"),
        ({"mfcc": 26.0}, "MFCC distance re equalise"),
        ({"chroma": 0.89}, "chroma"),
        ({"note_auc": 0.94}, "note AUC"),
        ({"flux": 0.74}, "flux correlation"),
        ({"modulation_2_5": -3.1}, "modulation 2–5 Hz dB"),
        ({"modulation_5_10": -8.1}, "modulation 5–10 Hz dB"),
        ({"modulation_20_43": 0.3}, "modulation, worst band dB"),
        ({"modulation_10_20": None}, "modulation, worst band dB"),
        ({"chroma": None}, "chroma"),
    ],
)
def test_a_broken_promise_is_named(broken: dict[str, float | None], claim: str) -> None:
    report = report_of(cells(**(GOOD | broken)))
    assert [c["claim"] for c in report["claims"] if not c["holds"]] == [claim]


@pytest.mark.parametrize(("ours_db", "ceiling_db", "holds"), [(0.3, 0.8, True), (0.9, 0.8, False), (0.3, -0.8, False), (-0.1, -0.8, True)])
def test_ripple_is_measured_against_the_truth_or_where_it_is_higher_the_ceiling(ours_db: float, ceiling_db: float, holds: bool) -> None:
    report = report_of(cells(**(GOOD | {"modulation_20_43": ours_db})), ripple_db=ceiling_db)
    (claim,) = [c for c in report["claims"] if c["claim"] == "modulation, worst band dB"]
    assert claim["holds"] is holds
    assert claim["note"] == f"20–43 Hz, where the ceiling has {ceiling_db:+.2f}"
    assert (claim["value"], claim["bound"]) == (ours_db, max(ceiling_db, 0.0))


def test_baselines_are_found_where_they_are_said_to_lie(tmp_path: Path, tiny_style: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    style = tmp_path / "mine" / "tiny.safetensors"
    here = tmp_path / "here" / "benchmarks" / "baselines"
    for place in (style.parent / "baselines", here, tmp_path / "named"):
        place.mkdir(parents=True)
    style.write_bytes(tiny_style.read_bytes())
    monkeypatch.chdir(tmp_path / "here")
    assert Contenders.find(style).missing() == ["plain", "lstm2017"]
    (here / "tiny-lstm2017.safetensors").touch()
    (here / "tiny-plain.safetensors").touch()
    assert Contenders.find(style).plain == Path("benchmarks/baselines/tiny-plain.safetensors")
    (style.parent / "baselines" / "tiny-plain.safetensors").touch()  # nearer
    assert Contenders.find(style).plain == style.parent / "baselines" / "tiny-plain.safetensors"
    assert Contenders.find(style).lstm2017 == Path("benchmarks/baselines/tiny-lstm2017.safetensors")
    assert Contenders.find(style, tmp_path / "named").missing() == ["plain", "lstm2017"]
    with pytest.raises(ValueError, match="no such folder of baselines"):
        Contenders.find(style, tmp_path / "nowhere")


def test_the_tables_say_what_the_report_says() -> None:
    from rich.console import Console

    report = report_of(cells(**GOOD))
    text = evaluate.markdown(report)
    assert "|  | copy | equalise | rock | ceiling | truth |" in text
    assert "| part of the way |  | 50% | 50% [50%, 50%] |  |  |" in text
    assert "| log-mel L1, dB | 9.00 | 8.00 | 5.00 [5.00, 5.00] | 1.00 | 0.00 |" in text
    stream = io.StringIO()
    evaluate.show(report, Console(file=stream, width=80, no_color=True))
    printed = stream.getvalue()
    assert "part of the way 50% [50%, 50%], log-mel L1 5.00 [5.00, 5.00] dB" in printed
    assert "…" not in printed  # it fits a terminal
    assert "yes part of the way: 0.500 >= 0.400" in printed
    assert "row plain: not trained" in printed


def test_the_promises_are_a_table_that_says_which_are_not_kept() -> None:
    kept, broken = report_of(cells(**GOOD)), report_of(cells(**(GOOD | {"mfcc": 26.0})), reached=0.3)
    lines = evaluate.markdown_claims([kept, broken]).splitlines()
    assert lines[2] == "| part of the way | 0.50 ≥ 0.40 | **no:** 0.30, not ≥ 0.40 |"
    assert "| MFCC distance re equalise | 0.67 ≤ 0.85 | **no:** 0.87, not ≤ 0.85 |" in lines
    assert len(lines) == 2 + len(kept["claims"])
    assert "≤ 0.00 (2–5 Hz, where the ceiling has +0.00)" in lines[-1]


def test_the_summary_has_a_line_a_style_and_the_card_the_means() -> None:
    report = report_of(cells(**GOOD, centroid=None))
    assert evaluate.markdown_summary([report]).splitlines()[2] == "| rock | 9.00 | 8.00 |  |  | 5.00 | 1.00 | **50% [50%, 50%]** | 5 |"
    card = evaluate.card_metrics(report)
    assert card["rock"]["log_mel_l1"] == 5
    assert card["rock"]["way"] == 0.5
    assert "centroid" not in card["rock"]


# --- the whole, on songs made here


def test_a_render_is_kept_and_is_the_same_again(folder: Path, fonts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (excerpt, *_), _ = evaluate.excerpts(folder, "rock", SHORT)
    score = midi.load_score(excerpt.content)
    first = evaluate.Renderer(tmp_path).render(score, "fluidr3", excerpt)
    assert first.shape == (2, 3 * 44100)
    assert len(list(tmp_path.iterdir())) == 1

    def no_synthesizer(*_: object) -> None:
        raise AssertionError("rendered again")

    monkeypatch.setattr(midi, "Synthesizer", no_synthesizer)
    assert (evaluate.Renderer(tmp_path).render(score, "fluidr3", excerpt) == first).all()
    other = Excerpt(excerpt.piece, excerpt.content, excerpt.start_seconds + 0.5, excerpt.seconds)
    with pytest.raises(AssertionError, match="rendered again"):
        evaluate.Renderer(tmp_path).render(score, "fluidr3", other)


def test_judging_scores_truth_perfectly_and_the_ceiling_well(folder: Path, fonts: None, tiny_style: Path, tmp_path: Path) -> None:
    (excerpt, *_), _ = evaluate.excerpts(folder, "rock", SHORT)
    judged = Judge(Contenders.find(tiny_style), "rock", SHORT, tmp_path).score(excerpt)
    rows = judged["rows"]
    assert list(rows) == ["copy", "equalise", "tiny", "ceiling", "truth"]
    assert rows["truth"]["log_mel_l1"] == 0
    assert rows["ceiling"]["log_mel_l1"] < 0.4 * rows["copy"]["log_mel_l1"]
    assert rows["copy"]["note_auc"] > 0.9
    if "with_drums" in judged:
        assert judged["with_drums"]["copy"]["log_mel_l1"] > rows["copy"]["log_mel_l1"]
        assert judged["with_drums"]["truth"]["log_mel_l1"] == 0


def test_an_evaluation_is_a_report(folder: Path, fonts: None, tiny_style: Path, tmp_path: Path) -> None:
    from dataclasses import asdict

    import torch

    from stylestream.baselines import Lstm2017, Lstm2017Config
    from stylestream.style import Card, save_style

    torch.manual_seed(0)
    old = Lstm2017(Lstm2017Config(hidden=16, latents=4))
    (tmp_path / "b").mkdir()
    settings = {"model": "lstm2017", **asdict(old.config)}
    save_style(tmp_path / "b" / "tiny-lstm2017.safetensors", old.state_dict(), model_config=settings, feature_config={}, card=Card("old"))
    (tmp_path / "b" / "tiny-plain.safetensors").write_bytes(tiny_style.read_bytes())
    told: list[tuple[int, int]] = []
    report = evaluate.evaluate(
        folder,
        tiny_style,
        recipe="rock",
        protocol=SHORT,
        baselines_folder=tmp_path / "b",
        cache=tmp_path / "cache",
        jobs=1,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 2), (2, 2)]
    assert set(report["rows"]) == {"copy", "equalise", "plain", "lstm2017", "tiny", "ceiling", "truth"}
    assert report["rows"]["plain"] == report["rows"]["tiny"]
    assert set(report["rows"]["tiny"]["log_mel_l1"]) == {"mean", "low", "high", "n"}
    assert report["way"]["copy"]["mean"] == 0
    assert report["way"]["ceiling"]["mean"] == 1
    assert report["missing"] == []
    assert json.loads(evaluate.write_report(report, tmp_path / "REPORT").read_text()) == report
    assert evaluate.markdown(report).startswith("tiny: 2 held-out pieces")


def test_a_style_is_nothing_apart_from_its_copy_and_far_from_another(tiny_style: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    import torch

    from stylestream.style import load_style_file, save_style

    data = load_style_file(tiny_style)
    brighter = {**data.weights, "mean_frames": data.weights["mean_frames"] + torch.linspace(-0.2, 0.2, 324)}
    for name, weights in (("one", data.weights), ("two", data.weights), ("three", brighter)):
        save_style(
            tmp_path / f"{name}.safetensors", weights, model_config=data.model_config, feature_config=data.feature_config, card=data.card
        )
    y = rng.normal(scale=0.1, size=(2, 44100)).astype(np.float32)
    distances = evaluate.apart(y, [tmp_path / f"{name}.safetensors" for name in ("one", "two", "three")])
    assert distances["one–two"] == 0
    assert distances["one–three"] == distances["three–two"] > 1


def test_a_style_is_not_judged_on_songs_it_was_trained_on(folder: Path, fonts: None, tiny_style: Path, tmp_path: Path) -> None:
    from stylestream.style import load_style_file, save_style

    data = load_style_file(tiny_style)
    heard = {dataset.song_id((folder / "piece 1.mid").read_bytes()): [1, 2, 3]}
    path = tmp_path / "rock.safetensors"
    save_style(path, data.weights, model_config=data.model_config, feature_config=data.feature_config, card=data.card, fingerprints=heard)
    with pytest.raises(ValueError, match=r"trained on 1 of these songs \(piece 1\.mid\)"):
        evaluate.evaluate(folder, path, protocol=Protocol(pieces=9, seconds=3.0, min_notes=5, song_soundfont="fluidr3"), cache=tmp_path)


def test_a_style_without_a_recipe_needs_one_named(folder: Path, tiny_style: Path) -> None:
    with pytest.raises(ValueError, match="no recipe for style 'tiny'; known: rock"):
        evaluate.evaluate(folder, tiny_style)
