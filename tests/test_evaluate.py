"""Evaluation: every row is made of the right songs, baselines are not made twice, and what goes wrong is said."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("librosa", reason="evaluation needs the extra [eval]")
pytest.importorskip("mir_eval", reason="evaluation needs the extra [eval]")
pytest.importorskip("symusic", reason="evaluation needs the extra [midi]")

from stylestream import baselines, evaluate, recipes, report
from stylestream.evaluate import Contenders, Judge, Protocol, Task

SHORT = Protocol(pieces=2, seconds=3.0, min_notes=5, song_soundfont="fluidr3", resamples=200)  # MuseScore's takes seconds to load


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
    assert Contenders.find(style).attention is None
    (here / "tiny-attention.safetensors").touch()
    assert Contenders.find(style).attention == Path("benchmarks/baselines/tiny-attention.safetensors")
    assert Contenders.find(style, tmp_path / "named").missing() == ["plain", "lstm2017"]
    with pytest.raises(ValueError, match="no such folder of baselines"):
        Contenders.find(style, tmp_path / "nowhere")


# --- many pieces → one report


def test_a_curve_that_breaks_on_one_piece_is_said_and_not_averaged_away() -> None:
    pieces = [{"group": name} for name in "abc"]
    parts = [{"flux": value} for value in (float("nan"), 2.0, 4.0)]
    assert evaluate._averaged(parts, pieces, SHORT)["flux"] == {"mean": None, "low": None, "high": None, "n": 3, "nan": 1}
    assert evaluate._averaged(parts, pieces, SHORT, absent=True)["flux"]["mean"] == 3.0  # an octave that one does not play


def test_one_melody_in_two_keys_is_one_piece_whatever_its_files_are_called(tmp_path: Path, scores: Path) -> None:
    import symusic

    folder = tmp_path / "songs"
    folder.mkdir()
    for number, notes in enumerate((np.arange(60) * 7 % 12, np.arange(60) * 5 % 11)):
        for key in (0, 3):
            score: Any = symusic.Score(480)
            track: Any = symusic.Track("tune", 0, False)
            for i, pitch in enumerate(notes):
                track.notes.append(symusic.Note(240 * i, 220, 55 + key + int(pitch), 90))
            score.tracks.append(track)
            (folder / f"{'xyzw'[2 * number + key // 3]}.mid").write_bytes(score.dumps_midi())
    chosen, _ = evaluate.excerpts(folder, "rock", replace(SHORT, pieces=4))
    contenders = Contenders("tiny", tmp_path / "tiny.safetensors", None, None, None)
    groups = evaluate._same_music([Task(contenders, "rock", excerpt) for excerpt in chosen])
    by_name = {excerpt.piece.path: groups[excerpt.id] for excerpt in chosen}
    assert by_name["x.mid"] == by_name["y.mid"] != by_name["z.mid"] == by_name["w.mid"]


# --- the whole, on songs made here


def known_to(path: Path, tiny_style: Path, heard: dict[str, list[int]]) -> Path:
    """A copy of the tiny style that was trained on these songs."""
    from stylestream.style import load_style_file, save_style

    data = load_style_file(tiny_style)
    return save_style(
        path, data.weights, model_config=data.model_config, feature_config=data.feature_config, card=data.card, fingerprints=heard
    )


def test_judging_scores_truth_perfectly_and_the_ceiling_well(scores: Path, fonts: None, tiny_style: Path, tmp_path: Path) -> None:
    (excerpt, other, *_), _ = evaluate.excerpts(scores, "rock", Protocol(pieces=3, seconds=3.0, min_notes=10))
    judge = Judge(SHORT, tmp_path, keep=tmp_path / "kept")
    task = Task(Contenders.find(tiny_style), "rock", excerpt, (other,))
    judged = judge.score(task)
    rows = judged["rows"]
    assert list(rows) == ["copy", "random", "equalise", "musaicing", "ulyanov", "tiny", "ceiling", "truth"]
    assert rows["truth"]["log_mel_l1"] == 0
    assert rows["ceiling"]["log_mel_l1"] < 0.4 * rows["copy"]["log_mel_l1"]
    assert rows["copy"]["note_auc"] > 0.9
    assert rows["random"]["chroma"] < rows["copy"]["chroma"]
    assert rows["truth"]["timbre_cosine"] == pytest.approx(1)
    assert all(0 <= rows[row]["style_probability"] <= 1 for row in rows)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} >= {"musaicing", "ulyanov"}  # they are kept
    assert set(judged["errors"]) == {"copy", "tiny", "ceiling"}
    if "with_drums" in judged:
        assert judged["with_drums"]["copy"]["log_mel_l1"] > rows["copy"]["log_mel_l1"]
        assert judged["with_drums"]["truth"]["log_mel_l1"] == 0
    for part in ("song", "style", "truth"):
        y = evaluate.kept_sound(tmp_path / "kept", "tiny", part, excerpt.id)
        assert y is not None
        assert y.shape == (2, 3 * 44100)


def test_baselines_are_made_once_and_the_style_every_time(
    scores: Path, fonts: None, tiny_style: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (excerpt, *_), _ = evaluate.excerpts(scores, "rock", SHORT)
    task = Task(Contenders.find(tiny_style), "rock", excerpt)
    first = Judge(SHORT, tmp_path).score(task)

    def not_again(*_: object, **__: object) -> Any:
        raise AssertionError("made again")

    monkeypatch.setattr(baselines, "equalise", not_again)
    monkeypatch.setattr(baselines, "ceiling", not_again)
    again = Judge(SHORT, tmp_path).score(task)
    assert again["rows"] == first["rows"]
    assert again["cost"]["equalise"] == first["cost"]["equalise"] > 0  # what it was the first time
    with pytest.raises(AssertionError, match="made again"):
        Judge(SHORT, tmp_path / "elsewhere").score(task)
    monkeypatch.setattr(evaluate, "versions", lambda: {"librosa": "another"})  # what measured then would measure otherwise now
    with pytest.raises(AssertionError, match="made again"):
        Judge(SHORT, tmp_path).score(task)


def test_another_style_is_another_row_beside_the_same_baselines(scores: Path, fonts: None, tiny_style: Path, tmp_path: Path) -> None:
    from stylestream.style import load_style_file, save_style

    data = load_style_file(tiny_style)
    other = {name: tensor * 1.5 if name.startswith("write") else tensor for name, tensor in data.weights.items()}
    path = save_style(
        tmp_path / "tiny.safetensors", other, model_config=data.model_config, feature_config=data.feature_config, card=data.card
    )
    (excerpt, *_), _ = evaluate.excerpts(scores, "rock", SHORT)
    judge = Judge(SHORT, tmp_path)
    one, two = (judge.score(Task(Contenders.find(style), "rock", excerpt))["rows"] for style in (tiny_style, path))
    assert one["copy"] == two["copy"]
    assert one["tiny"]["log_mel_l1"] != two["tiny"]["log_mel_l1"]


def test_only_the_rows_that_are_wanted_are_made(scores: Path, fonts: None, tiny_style: Path, tmp_path: Path) -> None:
    (excerpt, other, *_), _ = evaluate.excerpts(scores, "rock", Protocol(pieces=3, seconds=3.0, min_notes=10))
    judged = Judge(SHORT, tmp_path, rows=["none"]).score(Task(Contenders.find(tiny_style), "rock", excerpt, (other,)))
    assert list(judged["rows"]) == ["copy", "tiny", "ceiling", "truth"]


def test_a_silent_truth_is_a_failure_with_its_reason(
    scores: Path, fonts: None, tiny_style: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (excerpt, *_), _ = evaluate.excerpts(scores, "rock", SHORT)
    monkeypatch.setattr(evaluate.Renderer, "render", lambda *_: np.zeros((2, 3 * 44100), np.float32))
    with pytest.raises(ValueError, match="the truth is silent"):
        Judge(SHORT, tmp_path).score(Task(Contenders.find(tiny_style), "rock", excerpt))


def test_an_evaluation_is_a_report(scores: Path, fonts: None, tiny_style: Path, tmp_path: Path) -> None:
    from dataclasses import asdict

    import torch

    from stylestream import report
    from stylestream.baselines import Lstm2017, Lstm2017Config
    from stylestream.draw import Draw, DrawConfig
    from stylestream.features import FeatureConfig
    from stylestream.style import Card, save_style

    torch.manual_seed(0)
    old = Lstm2017(Lstm2017Config(hidden=16, latents=4))
    (tmp_path / "b").mkdir()
    settings = {"model": "lstm2017", **asdict(old.config)}
    save_style(tmp_path / "b" / "tiny-lstm2017.safetensors", old.state_dict(), model_config=settings, feature_config={}, card=Card("old"))
    (tmp_path / "b" / "tiny-plain.safetensors").write_bytes(tiny_style.read_bytes())
    small = DrawConfig(attention="gaussian", steps=2, latents=2, encoder_channels=8, decoder_channels=8, style_dim=4, texture_channels=0)
    model = Draw(small)
    paper = {"model_config": asdict(small), "feature_config": asdict(FeatureConfig()), "card": Card("paper")}
    save_style(tmp_path / "b" / "tiny-attention.safetensors", model.state_dict(), **paper)
    told: list[tuple[int, int]] = []
    made = evaluate.evaluate(
        scores,
        tiny_style,
        recipe="rock",
        protocol=replace(SHORT, curve_pieces=1, curve_seconds=2.0),
        baselines_folder=tmp_path / "b",
        cache=tmp_path / "cache",
        rows=evaluate.rows_named(None, quick=True),
        keep=tmp_path / "kept",
        jobs=1,
        progress=lambda done, total, name: told.append((done, total)),
    )
    assert told == [(1, 2), (2, 2)]
    assert list(made["rows"]) == ["copy", "random", "equalise", "plain", "attention", "lstm2017", "tiny", "ceiling", "truth"]
    assert all(made["rows"]["plain"][metric] == cell for metric, cell in made["rows"]["tiny"].items() if metric != "judge_auc")
    assert made["rows"]["truth"]["kernel_distance"]["mean"] == pytest.approx(0, abs=1e-6)
    assert made["rows"]["tiny"]["judge_auc"]["mean"] > 0.8  # an untrained network is no truth
    assert set(made["rows"]["tiny"]["log_mel_l1"]) == {"mean", "low", "high", "n"}
    assert made["way"]["copy"]["mean"] == 0
    assert made["way"]["ceiling"]["mean"] == 1
    assert made["missing"] == []
    assert made["style_sha256"] == hashlib.sha256(tiny_style.read_bytes()).hexdigest()
    assert made["made_with"]["librosa"]
    assert list(made["curves"]["dream"]) == ["0", "0.5", "1", "1.5", "2"]
    assert len(made["curves"]["steps"]) == 2
    assert made["curves"]["strength"]["1"] == made["curves"]["dream"]["0"]
    path = report.write([made], tmp_path / "REPORT", command="stylestream evaluate", sounds=tmp_path / "kept")
    assert path.read_text().count("<audio") == 6  # song, result, truth of the best and the worst
    assert report.load_reports(tmp_path / "REPORT") == {"tiny": {"command": "stylestream evaluate", **made}}
    assert report.markdown(made).startswith("tiny: 2 held-out pieces")
    assert json.loads((tmp_path / "REPORT" / "report.json").read_text())["rows"]["tiny"]["log_mel_l1"]["n"] == 2


def test_recordings_are_read_against_themselves(tiny_style: Path, tmp_path: Path, tone: Callable[..., Any]) -> None:
    import soundfile

    notes = [tone(1.0, hz=hz) for hz in (262, 330, 392, 330)]
    soundfile.write(tmp_path / "tune.flac", np.concatenate(notes, axis=1).T, 44100)
    soundfile.write(tmp_path / "silence.flac", np.zeros((4 * 44100, 2)), 44100)
    made = evaluate.evaluate(tmp_path, tiny_style, protocol=SHORT, cache=tmp_path / "cache", jobs=1)
    assert made["kind"] == "recordings"
    assert made["failures"] == {"silence.flac": "the passage is silent"}
    assert list(made["rows"]) == ["copy", "equalise", "tiny", "mp3", "mild_eq"]
    for metric in ("chroma", "frame_f1", "onset_f1", "flux"):
        assert made["rows"]["copy"][metric]["mean"] == pytest.approx(1, abs=1e-6)
        assert made["rows"]["mp3"][metric]["mean"] > 0.8
    assert made["claims"] == []
    assert made["way"] == {}
    assert report.markdown(made).startswith("tiny: 1 recordings, compared with the song")


def test_a_style_of_one_s_own_is_heard_beside_other_music_of_it(tiny_style: Path, tmp_path: Path, tone: Callable[..., Any]) -> None:
    import soundfile

    for folder, hz in (("songs", 262), ("same", 262), ("other", 1500)):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "tune.flac", tone(4.0, hz=hz).T * (0.9 if folder == "same" else 1.0), 44100)
    how: dict[str, Any] = {"protocol": SHORT, "cache": tmp_path / "cache", "jobs": 1, "rows": []}
    made = {
        name: evaluate.evaluate(tmp_path / "songs", tiny_style, material=material, **how)
        for name, material in (("none", []), ("same", [tmp_path / "same"]), ("other", [tmp_path / "other"]))
    }
    assert "style_cosine" not in made["none"]["rows"]["tiny"]
    copied = {name: made[name]["rows"]["copy"]["style_cosine"]["mean"] for name in ("same", "other")}
    assert copied["same"] > 0.98 > copied["other"] + 0.05


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


def test_a_style_is_not_judged_on_songs_it_was_trained_on(scores: Path, fonts: None, tiny_style: Path, tmp_path: Path) -> None:
    heard = {recipes.song_id((scores / f"piece {i}.mid").read_bytes()): [1, 2, 3] for i in (0, 1)}
    path = known_to(tmp_path / "rock.safetensors", tiny_style, heard)
    made = evaluate.evaluate(scores, path, protocol=replace(SHORT, min_notes=10), cache=tmp_path, rows=["none"], jobs=1)
    assert [piece["path"] for piece in made["pieces"]] == ["piece 2.mid"]
    assert {path: reason for path, reason in made["refused"].items() if "piece" in path} == dict.fromkeys(
        ("piece 0.mid", "piece 1.mid"), "the style was trained on it"
    )
    heard |= {recipes.song_id((scores / "piece 2.mid").read_bytes()): []}
    path = known_to(tmp_path / "rock.safetensors", tiny_style, heard)
    with pytest.raises(ValueError, match=r"no held-out piece for style 'rock' .*piece \d\.mid: the style was trained on it"):
        evaluate.evaluate(scores, path, protocol=replace(SHORT, min_notes=10), cache=tmp_path)


def test_a_style_without_a_recipe_needs_one_named(scores: Path, tiny_style: Path) -> None:
    with pytest.raises(ValueError, match="no recipe for style 'tiny'; known: rock.*, or own"):
        evaluate.evaluate(scores, tiny_style)


def test_a_style_that_is_called_like_a_row_is_refused(scores: Path, tiny_style: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.safetensors").write_bytes(tiny_style.read_bytes())
    with pytest.raises(ValueError, match="'copy' is a row of the table; rename"):
        evaluate.rows_of(Contenders.find(tmp_path / "copy.safetensors"))


def test_a_drum_layer_is_heard_where_the_truth_has_drums_and_nowhere_else(
    scores: Path, fonts: None, tiny_style: Path, tmp_path: Path
) -> None:
    from stylestream import drumming
    from stylestream.style import update_drums

    drummed = tmp_path / "tiny.safetensors"
    drummed.write_bytes(tiny_style.read_bytes())
    t = np.arange(4000) / 44100
    snare = drumming.Sound(38, 100, (0.3 * np.exp(-t / 0.02) * np.cos(2 * np.pi * 3000 * t)).astype(np.float32), 0.0)
    bar = drumming.PlayedBar(4, 8, tuple((480 * beat, 38, 100) for beat in range(4)))
    update_drums(drummed, drumming.assemble([drumming.Groove(120.0, (bar,))], [snare]).tensors())
    found, _ = evaluate.excerpts([scores / "piece 0.mid"], "rock", replace(SHORT, seconds=5.0))
    judge = Judge(replace(SHORT, seconds=5.0), tmp_path, rows=["none"])
    with_layer, without = (judge.score(Task(Contenders.find(style), "rock", found[0])) for style in (drummed, tiny_style))
    assert with_layer["rows"] == without["rows"]
    table = with_layer["with_drums"]
    assert list(table) == ["copy", "tiny", "no_drums", "ceiling", "truth"]
    assert table["no_drums"] == without["with_drums"]["tiny"]
    assert table["tiny"]["flux"] != table["no_drums"]["flux"]
