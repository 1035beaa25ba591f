"""Which music, how it is split, and its frames: written once, whole or not at all, the same on every machine."""

from __future__ import annotations

import csv
import functools
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from stylestream import cli, corpus, midi, parallel, recipes, sources
from stylestream.corpus import BuildConfig, FrameStore, PieceRenderer, Song, plan
from stylestream.recipes import Piece, group_of, split_of

torch.set_num_threads(1)
RATE = 44100


# --- helpers ---------------------------------------------------------------------------------------------------------------


def tune(folder: Path, name: str, *, transpose: int = 0, bars: int = 4, program: int = 40) -> Path:
    """A MIDI file of two parts, two seconds a bar."""
    symusic = pytest.importorskip("symusic", reason="reading MIDI needs symusic: pip install 'stylestream[midi]'")
    score = symusic.Score(480)
    for part, base in enumerate((48, 64)):
        track = symusic.Track(program=program + part)
        for i in range(4 * bars):
            track.notes.append(symusic.Note(480 * i, 460, base + transpose + (0, 4, 7, 2)[i % 4] + i // 4, 90))
        score.tracks.append(track)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    score.dump_midi(str(path))
    return path


def recording(folder: Path, name: str, tone: Any, *, seconds: float = 5.0, hz: float = 440.0) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(seconds, hz=hz).T, RATE, subtype="PCM_16")
    return path


def a_song(path: str, *, midi: bool = True) -> Song:
    return Song(Piece(path), recipes.song_id(path.encode()), b"MThd" if midi else Path(path))


def needs_fluidsynth() -> None:
    try:
        midi.Synthesizer(midi.find_soundfont("fluidr3")).close()
    except ValueError as error:
        pytest.skip(str(error))


# --- split and selection ---------------------------------------------------------------------------------------------------


def test_a_split_is_a_hash_and_has_the_promised_shares():
    counts = Counter(split_of(f"piece {i}") for i in range(20_000))
    assert counts["train"] / 20_000 == pytest.approx(0.80, abs=0.01)
    assert counts["test"] / 20_000 == pytest.approx(0.15, abs=0.01)
    assert counts["valid"] / 20_000 == pytest.approx(0.05, abs=0.01)
    assert [split_of(name) for name in ("a", "b", "c", "a.mid")] == ["train", "train", "valid", "test"]  # for ever


@pytest.mark.parametrize(
    ("path", "generated", "group"),
    [
        ("rock/mma/50sRock_hpps42_135_014.mid", True, "tune/hpps42"),
        ("jazz/mma/BossaNova_hpps42_90_1.mid", True, "tune/hpps42"),
        ("piano/humdrum-chopin-first-editions/010-01-BH-002.mid", False, "chopin/010"),
        ("piano/mutopia/waltz__3.mid", False, "piano/mutopia/waltz"),
        ("rock/freedoom/d_e1m1.mid", False, "rock/freedoom/d_e1m1.mid"),
    ],
)
def test_pieces_that_are_the_same_music_share_a_group(path, generated, group):
    assert group_of(path, generated=generated) == group


def test_no_group_is_in_two_splits_and_groups_take_turns(rng):
    pieces = [Piece(f"rock/mma/{groove}_tune{tune}_{90 + tune}_1.mid", generated=True) for tune in range(60) for groove in ("A", "B", "C")]
    chosen = {split: recipes.select(pieces, 1000, split=split) for split in ("train", "valid", "test")}
    assert sum(map(len, chosen.values())) == len(pieces)
    groups = {split: {piece.group for piece in members} for split, members in chosen.items()}
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["valid"]
    assert not groups["valid"] & groups["test"]
    first = recipes.select(pieces, len(groups["train"]))
    assert {piece.group for piece in first} == groups["train"]  # one of each before a second of any
    assert recipes.select(list(reversed(pieces)), 7) == first[:7]  # whatever the order of the list


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("Public Domain", True),
        ("CC0", True),
        ("CC-BY-SA 4.0", True),
        ("BSD-3-Clause", True),
        ("generated: MMA grooves GPL-2.0, tunes GPL-3.0 (traditional)", True),
        ("GPL-2.0", False),
        ("CC-BY-NC-4.0", False),
        ("MIT (third-party compositions)", False),
        ("", False),
        ("all rights reserved", False),
    ],
)
def test_only_licences_that_allow_it_go_into_shipped_weights(licence, allowed):
    assert recipes.licence_allowed(licence) is allowed


def test_recipes_give_parts_their_instruments():
    parts = [SimpleNamespace(program=5, notes=[SimpleNamespace(pitch=p)]) for p in (76, 64, 55, 40)]
    assert recipes.quartet_programs(parts) == [40, 40, 41, 42]
    assert recipes.chiptune_programs(parts) == [80, 81, 81, 38]
    assert recipes.rock_programs(parts) == [30, 30, 30, 33]
    assert recipes.rock_programs(parts[:1]) == [30]
    assert recipes.piano_programs(parts) == [0, 0, 0, 0]
    assert recipes.given_programs(parts) == [5, 5, 5, 5]
    assert recipes.choir_programs([SimpleNamespace(program=0), SimpleNamespace(program=53)]) == [52, 53]


# --- a training's sources --------------------------------------------------------------------------------------------------


def test_music_is_found_in_folders_once_each(tmp_path, tone):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.mid").write_bytes(b"MThd one")
    (tmp_path / "x" / "copy of a.MID").write_bytes(b"MThd one")
    (tmp_path / "x" / ".hidden.mid").write_bytes(b"MThd two")
    (tmp_path / "notes.txt").write_text("no music")
    wav = recording(tmp_path, "deep/er/b.wav", tone, seconds=0.1)
    found = corpus.find_music([tmp_path, wav], BuildConfig())
    assert sorted(song.piece.path for song in found) == ["deep/er/b.wav", "x/a.mid"]
    kinds = {song.piece.path: song.content for song in found}
    assert kinds["x/a.mid"] == b"MThd one"
    assert kinds["deep/er/b.wav"] == wav
    assert {song.piece.source for song in found} == {tmp_path.name}


def test_songs_of_one_name_in_two_sources_are_two_songs(tmp_path):
    for folder in ("a", "b", "c/a"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "01.mid").write_bytes(b"MThd " + folder.encode())
    found = corpus.find_music([tmp_path / "a", tmp_path / "b", tmp_path / "c" / "a"], BuildConfig())
    assert [song.piece.path for song in found] == ["01.mid", "b/01.mid", "a/01.mid"]
    assert len({song.piece.group for song in found}) == 3


def test_what_a_training_keeps_and_what_is_hidden_is_no_music(tmp_path):
    for name in ("song.mid", "album/two.mid", "mine.safetensors.ckpt/preview/step-100.mid", ".cache/old.mid"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"MThd " + name.encode())
    assert {song.piece.path for song in corpus.find_music([tmp_path], BuildConfig())} == {"song.mid", "album/two.mid"}
    (tmp_path / "album" / "gone.mid").symlink_to(tmp_path / "nowhere")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "album" / "pipe.mid")
    assert {song.piece.path for song in corpus.find_music([tmp_path], BuildConfig())} == {"song.mid", "album/two.mid"}
    (tmp_path / "album" / "gone.mid").unlink()
    (tmp_path / "album" / "pipe.mid").unlink(missing_ok=True)
    assert {Path(song.path).name for song in sources.find([tmp_path])} == {"song.mid", "two.mid"}
    assert {song.path.name for song in cli.find_songs([tmp_path], recipes.SCORE_SUFFIXES)} == {"song.mid", "two.mid"}


def test_a_recordings_licence_is_read_from_audio_csv(tmp_path, tone):
    recording(tmp_path, "audio/rock/a.wav", tone, seconds=0.1)
    (tmp_path / "audio.csv").write_text("path,style,title,source,licence\naudio/rock/a.wav,rock,,Band/Album,CC-BY-4.0\n")
    (song,) = corpus.find_music([tmp_path / "audio" / "rock"], BuildConfig())
    assert (song.piece.source, song.piece.licence) == ("Band/Album", "CC-BY-4.0")


@pytest.mark.parametrize("table", ["path,source,licence\na.wav,X\n", "\ufeffpath,source,licence\na.wav,X,CC0\n"])
def test_a_table_of_licences_made_by_hand_is_read(tmp_path, tone, table):
    recording(tmp_path, "a.wav", tone)
    (tmp_path / "audio.csv").write_text(table, encoding="utf-8")
    (song,) = corpus.find_music([tmp_path], BuildConfig())
    assert (song.piece.source, song.piece.licence) == ("X", "CC0" if "CC0" in table else "not stated")


def test_a_table_of_licences_in_another_encoding_is_named(tmp_path, tone):
    recording(tmp_path, "a.wav", tone)
    (tmp_path / "audio.csv").write_bytes(b"path,source\na.wav,caf\xe9\n")
    with pytest.raises(ValueError, match=r"audio\.csv: not a CSV in UTF-8"):
        corpus.find_music([tmp_path], BuildConfig())


def test_a_name_that_is_no_text_is_music_all_the_same(tmp_path, tone):
    recording(tmp_path, "a.wav", tone).rename(tmp_path / os.fsdecode(b"caf\xe9.wav"))
    assert len(plan(corpus.find_music([tmp_path], BuildConfig()), BuildConfig())) == 2


@pytest.mark.parametrize("setting", [{"views": -1}, {"songs": 0}, {"excerpts": 0}, {"max_seconds": float("nan")}])
def test_a_setting_out_of_its_range_is_said(setting):
    with pytest.raises(ValueError, match=f"{next(iter(setting))} is .*; it must be"):
        BuildConfig(**setting)


def test_where_there_is_no_music_that_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        corpus.find_music([tmp_path / "missing"], BuildConfig())
    with pytest.raises(ValueError, match=r"no music in .* \(looked for \.mid .*\.wav"):
        corpus.find_music([tmp_path], BuildConfig())
    (tmp_path / "midi.csv").write_text("path\n")
    with pytest.raises(ValueError, match=r"midi\.csv has no column style, licence"):
        corpus.find_music([tmp_path], BuildConfig(recipe="rock"))
    (tmp_path / "midi.csv").write_text("path,style,licence,seconds\na.mid,rock,CC0,long\n")
    with pytest.raises(ValueError, match=r"midi\.csv, line 2: 'long' is no number"):
        corpus.find_music([tmp_path], BuildConfig(recipe="rock"))
    with pytest.raises(ValueError, match=r"holds many styles; name the output after one \(rock, "):
        corpus.find_music([tmp_path], BuildConfig())


def test_a_collection_gives_the_recipes_pieces_and_never_its_test_split(tmp_path):
    columns = ["path", "style", "title", "source", "licence", "seconds", "notes", "drums", "generated"]
    rows = [(f"string-quartet/q{i}.mid", "string-quartet", "", "Mutopia", "CC0", 60, 500, 0, 0) for i in range(40)]
    rows += [
        ("string-quartet/nc.mid", "string-quartet", "", "X", "CC-BY-NC", 60, 500, 0, 0),
        ("rock/r.mid", "rock", "", "X", "CC0", 60, 500, 0, 0),
    ]
    with (tmp_path / "midi.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    for path, *_ in rows:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(path.encode())
    found = {song.piece.path for song in corpus.find_music([tmp_path], BuildConfig(recipe="strings"))}
    assert found == {path for path, *_ in rows[:40] if split_of(path) != "test"}
    assert 25 < len(found) < 40


def test_songs_are_held_out_by_group():
    songs = [a_song(f"{i}.mid") for i in range(40)]
    parts = plan(songs, BuildConfig(excerpts=2, held_out=10))
    held = {part.song.piece.group for part in parts if part.split == "valid"}
    assert held == {song.piece.group for song in songs if song.piece.split == "valid"}
    assert held
    assert not held & {part.song.piece.group for part in parts if part.split == "train"}
    assert {part.seed for part in parts if part.split == "train"} == {0, 1}
    assert parts[0].split != parts[1].split  # a run cut short has both
    assert len({part.name for part in parts}) == len(parts)
    assert plan(list(reversed(songs)), BuildConfig(excerpts=2, held_out=10)) == parts


def test_one_tune_under_two_names_is_on_one_side(tmp_path):
    rng, names = np.random.default_rng(3), [f"{i}.mid" for i in range(6)]
    symusic = pytest.importorskip("symusic", reason="reading MIDI needs symusic: pip install 'stylestream[midi]'")
    for i, name in enumerate(names):
        score, track = symusic.Score(480), symusic.Track()
        for place, pitch in enumerate(rng.integers(55, 80, 96)):
            track.notes.append(symusic.Note(240 * place, 230, int(pitch), 90))
        score.tracks.append(track)
        score.dump_midi(str(tmp_path / name))
        score.shift_pitch(2).dump_midi(str(tmp_path / f"copy of {i}.mid"))
    songs = corpus.find_music([tmp_path], BuildConfig())
    music = corpus.same_music(songs, {})
    assert len(songs) == 12
    assert sorted(Counter(music.values()).values()) == [2] * 6
    sides = {split: {music[part.song.id] for part in plan(songs, BuildConfig()) if part.split == split} for split in ("train", "valid")}
    assert not sides["train"] & sides["valid"]


def test_one_recording_in_two_formats_is_on_one_side(tmp_path, rng):
    (tmp_path / "music").mkdir()
    for name in "abc":
        y = sum(
            np.sin(2 * np.pi * hz * np.arange(8 * RATE) / RATE) * (rng.random(8 * RATE // 2205).repeat(2205) > 0.6)
            for hz in (220, 554, 987)
        )
        soundfile.write(tmp_path / "music" / f"{name}.wav", 0.1 * y, RATE)
        soundfile.write(tmp_path / "music" / f"{name} again.flac", 0.1 * y, RATE)
    prepared = corpus.prepare([tmp_path / "music"], tmp_path / "frames", BuildConfig(), jobs=1)
    sides = {split: {song["path"][0] for song in prepared.songs if song["split"] == split} for split in ("train", "valid")}
    assert all(sides.values())
    assert not sides["train"] & sides["valid"]
    assert len(prepared.songs) == 6


def test_if_chance_holds_none_or_all_out_the_smallest_hash_decides():
    none = [a_song(name) for name in ("a.mid", "b.mid", "c.mid")]
    assert "valid" not in {song.piece.split for song in none}
    assert Counter(part.split for part in plan(none, BuildConfig(excerpts=1))) == {"train": 2, "valid": 1}
    every = [a_song(f"{i}.wav", midi=False) for i in range(400) if split_of(f"{i}.wav") == "valid"][:3]
    assert Counter(part.split for part in plan(every, BuildConfig())) == {"train": 2, "valid": 1}


def test_of_a_single_song_the_end_is_held_out():
    parts = plan([a_song("a.mid")], BuildConfig(excerpts=3))
    assert [part.window for part in parts if part.split == "valid"] == [(0.8, 1.0)]
    assert {part.window for part in parts if part.split == "train"} == {(0.0, 0.8)}
    assert len(parts) == 4


def test_no_more_is_planned_than_is_asked_for():
    parts = plan([a_song(f"{i}.mid") for i in range(300)], BuildConfig(songs=20, held_out=3, excerpts=5))
    assert Counter(part.split for part in parts) == {"train": 20, "valid": 3}
    assert {part.seed for part in parts} == {0}  # other songs before other keys


# --- frames ----------------------------------------------------------------------------------------------------------------


def test_frames_keep_their_level_within_a_fifth_of_a_decibel():
    x = torch.linspace(0, 1.06, 2000)
    error_db = (torch.from_numpy(corpus.to_bytes(x)).float() / corpus.LEVELS - x) * 90
    assert 0.18 < float(error_db.abs().max()) < 0.19


def test_a_recordings_frames_are_those_of_its_sound_at_the_working_loudness(tmp_path, tone):
    renderer = PieceRenderer(BuildConfig())
    arrays = renderer.hear(recording(tmp_path, "a.wav", tone))
    assert arrays["frames"].shape == (1, 1 + 5 * RATE // 512, 324)
    assert int(arrays["frames"][0, 10:40].mean(0).argmax()) == 135  # A4 is 3 octaves and 9 semitones above C1, 3 rows each
    quiet = recording(tmp_path, "quiet.wav", lambda *a, **k: 0.1 * tone(*a, **k))
    assert np.abs(renderer.hear(quiet)["frames"].astype(int) - arrays["frames"]).max() <= 6  # 16 bits are coarser there
    half = renderer.hear(recording(tmp_path, "a.wav", tone), window=(0.5, 1.0))
    assert half["frames"].shape[1] == 1 + round(2.5 * RATE) // 512
    assert PieceRenderer(BuildConfig(audio_seconds=4.5)).hear(tmp_path / "a.wav")["frames"].shape[1] == 1 + round(4.5 * RATE) // 512


def test_frames_made_in_blocks_are_those_of_the_whole(rng):
    renderer = PieceRenderer(BuildConfig())
    y = rng.normal(0, 0.1, 3 * RATE + 77).astype(np.float32)
    whole = renderer.features_of(y, block_frames=10_000)
    assert whole.shape == (324, 1 + len(y) // 512)
    for block_frames in (37, 64, 200):
        assert np.abs(renderer.features_of(y, block_frames=block_frames) - whole).max() < 1e-4


def test_a_recording_that_is_silent_or_too_short_is_refused(tmp_path, tone):
    renderer = PieceRenderer(BuildConfig())
    soundfile.write(tmp_path / "silence.wav", np.zeros(5 * RATE), RATE)
    with pytest.raises(ValueError, match="it is silent"):
        renderer.hear(tmp_path / "silence.wav")
    with pytest.raises(ValueError, match=r"3\.0 s long; at least 4 s are needed"):
        renderer.hear(recording(tmp_path, "short.wav", tone, seconds=3.0))


def test_a_score_is_rendered_as_target_and_views_with_its_beats(tmp_path):
    needs_fluidsynth()
    content = tune(tmp_path, "a.mid").read_bytes()
    renderer = PieceRenderer(BuildConfig(views=2, max_seconds=5.0))
    recipe = recipes.StyleRecipe(())
    arrays = renderer.render(content, recipe, seed=0)
    frames, phase = arrays["frames"], arrays["phase"]
    assert frames.shape == (3, 1 + 5 * RATE // 512, 324)
    assert frames.dtype == np.uint8
    for view in frames[1:]:
        assert np.abs(view.astype(int) - frames[0]).mean() * 90 / corpus.LEVELS > 3  # another instrument
    chroma = frames.reshape(3, -1, 9, 12, 3).mean((1, 2, 4))
    assert np.corrcoef(chroma)[0, 1:].min() > 0.5  # the same notes
    known = phase[np.abs(phase[:, :2]).max(1) > 0]  # up to the last note
    assert len(known) > 300
    turns = np.unwrap(np.arctan2(known[:, 0].astype(float), known[:, 1])) / (2 * np.pi)
    assert (turns[-1] - turns[0]) / ((len(turns) - 1) * 512 / RATE) == pytest.approx(2.0, rel=0.02)  # 120 beats a minute
    again = renderer.render(content, recipe, seed=0)
    assert all(np.array_equal(arrays[key], again[key]) for key in arrays)
    assert not np.array_equal(renderer.render(content, recipe, seed=1)["frames"][0], frames[0])  # another excerpt and key
    end = renderer.render(content, recipe, seed=0, window=(0.75, 1.0))
    assert end["frames"].shape[1] == 172  # a quarter of 7.98 s
    with pytest.raises(ValueError, match=r"1\.9 s long|2\.0 s long"):
        renderer.render(tune(tmp_path, "b.mid", bars=1).read_bytes(), recipe, seed=0)


# --- prepared: in parallel, resumed, with what fails said -------------------------------------------------------------------


def test_of_several_soundfonts_the_first_plays_the_target_and_any_an_orchestration(tmp_path):
    needs_fluidsynth()
    content = tune(tmp_path, "a.mid").read_bytes()
    played = []
    for names in ("fluidr3", "fluidr3,musescore"):
        renderer = PieceRenderer(BuildConfig(views=3, max_seconds=5.0, soundfont=names))
        played.append([renderer.render(content, recipes.StyleRecipe(()), seed=seed)["frames"] for seed in range(3)])
        for synthesizer in renderer.synthesizers:
            synthesizer.close()
    alone, several = (np.stack(frames) for frames in played)
    np.testing.assert_array_equal(several[:, 0], alone[:, 0])
    differs = (several != alone).any(axis=(2, 3))[:, 1:]
    assert 0 < differs.sum() < differs.size


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are of POSIX")
def test_frames_that_cannot_be_written_end_the_build_and_are_no_fault_of_the_piece(tmp_path):
    needs_fluidsynth()
    import resource

    names = [f"rock/tune{i}.mid" for i in range(12) if split_of(f"rock/tune{i}.mid") == "train"][:2]
    for i, name in enumerate(names):
        tune(tmp_path, name, transpose=5 * i)
    (tmp_path / "midi.csv").write_text("path,style,licence,seconds\n" + "".join(f"{name},rock,CC0-1.0,8\n" for name in names))
    how: dict[str, Any] = {"config": BuildConfig(views=0), "per_style": 2, "jobs": 1}
    build = functools.partial(corpus.build_frames, tmp_path, tmp_path / "frames", ["rock"], **how)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # as on a full disk
    try:
        with pytest.raises(OSError, match="File too large"):
            build()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert build() == []  # the same goes on
    assert len(list((tmp_path / "frames").glob("rock-train-*.npz"))) == 2


def test_one_process_or_two_interrupted_or_not_the_files_are_the_same_and_what_fails_is_said(tmp_path, tone):
    needs_fluidsynth()
    music = tmp_path / "music"
    for i in range(2):
        tune(music, f"tune{i}.mid", transpose=5 * i)
    for i in range(3):
        recording(music, f"played{i}.wav", tone, hz=220.0 + 10 * i)
    (music / "broken.mid").write_bytes(tune(tmp_path, "x.mid").read_bytes()[:10])
    (music / "broken.wav").write_text("not a song")
    config = BuildConfig(views=1, max_seconds=4.0, excerpts=1)
    two = corpus.prepare([music], tmp_path / "two", config, jobs=2)
    assert set(two.failures) == {"broken.mid", "broken.wav"}
    assert all(two.failures.values())
    assert {song["path"] for song in two.songs} == {"tune0.mid", "tune1.mid", "played0.wav", "played1.wav", "played2.wav"}
    assert {song["split"] for song in two.songs} == {"train", "valid"}
    assert all(song["fingerprint"] for song in two.songs if song["path"].endswith(".mid"))

    def interrupt(done: int, total: int, failure: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        corpus.prepare([music], tmp_path / "one", config, jobs=1, progress=interrupt)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "one").iterdir()}
    assert 1 <= len(kept) < 5
    one = corpus.prepare([music], tmp_path / "one", config, jobs=1)
    assert (one.songs, one.failures) == (two.songs, two.failures)
    for path in (tmp_path / "two").iterdir():
        assert path.read_bytes() == (tmp_path / "one" / path.name).read_bytes()
    for name, written_ns in kept.items():
        assert (tmp_path / "one" / name).stat().st_mtime_ns == written_ns  # not rendered again

    assert FrameStore(tmp_path / "two", ["own"]).frames.shape[0] == 2  # the recording stands in for its own other orchestration


def test_if_the_song_that_was_held_out_fails_another_is(tmp_path, tone):
    names = ["a.wav", "b.wav", "c.wav"]
    held = min(names, key=recipes.text_hash)
    for name in names:
        recording(tmp_path / "music", name, tone, hz=220.0 * (1 + "abc".index(name[0]) / 2))
    (tmp_path / "music" / held).write_text("not a song")
    prepared = corpus.prepare([tmp_path / "music"], tmp_path / "frames", BuildConfig(), jobs=1)
    assert list(prepared.failures) == [held]
    assert sorted(song["split"] for song in prepared.songs) == ["train", "valid"]
    assert {path.name for path in (tmp_path / "frames").iterdir()} == {song["name"] for song in prepared.songs}
    assert prepared.music_seconds == pytest.approx(5.0, abs=0.1)


def test_a_folder_of_nothing_but_damage_says_so(tmp_path):
    (tmp_path / "a.wav").write_text("not a song")
    with pytest.raises(ValueError, match=r"no song can be used: a\.wav: "):
        corpus.prepare([tmp_path], tmp_path / "frames", BuildConfig(), jobs=1)


def fail() -> None:
    raise ValueError("no SoundFont; install one")


def give_up(state: None, task: int) -> int:
    if task == 2:
        raise OSError("disk on fire")
    return task * os.getpid() * 0 + task * 10


def test_a_worker_that_cannot_begin_says_why_and_a_task_that_fails_is_an_answer():
    with pytest.raises(ValueError, match="no SoundFont; install one"):
        list(parallel.over_songs(give_up, [1], setup=fail, jobs=1))
    answers = {task: result for task, result in parallel.over_songs(give_up, [1, 2, 3], setup=functools.partial(int), jobs=1)}
    assert (answers[1], answers[3]) == (10, 30)
    assert str(answers[2]) == "disk on fire"


# --- the store -------------------------------------------------------------------------------------------------------------


def write_song(folder: Path, name: str, frames: int, *, roles: int = 3, level: int = 0) -> None:
    """Frames whose values say where they are from: level + role, and the frame in the first two bins."""
    x = np.full((roles, frames, 324), level, np.uint8) + np.arange(roles, dtype=np.uint8)[:, None, None]
    x[:, :, 0], x[:, :, 1] = np.arange(frames) // 200, np.arange(frames) % 200
    np.savez(folder / name, frames=x, phase=np.zeros((frames, 4), np.int8))


@pytest.fixture
def store(tmp_path) -> FrameStore:
    write_song(tmp_path, "rock-train-a-0.npz", 300, level=10)
    write_song(tmp_path, "rock-train-b-0.npz", 90, level=20)
    write_song(tmp_path, "jazz-train-c-0.npz", 200, level=30)
    write_song(tmp_path, "rock-valid-d-0.npz", 100, level=40)
    return FrameStore(tmp_path, ["rock", "jazz"])


def test_a_batch_is_a_function_of_its_seed(store):
    first, again, other = (store.batch(16, 64, other=0.5, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["target"], other["target"])


def test_crops_lie_within_a_song_and_views_are_aligned(store):
    batch = store.batch(400, 64, other=0.7, generator=torch.Generator().manual_seed(0))
    values = (batch["target"] * corpus.LEVELS).round().int()
    position = 200 * values[:, 0] + values[:, 1]
    assert bool((position.diff(dim=1) == 1).all())  # no seam
    levels = values[:, 100, 0]
    assert set(levels.tolist()) == {10, 20, 30}
    assert batch["style"].tolist() == [0 if level < 30 else 1 for level in levels.tolist()]
    assert float((batch["style"] == 1).float().mean()) == pytest.approx(0.5, abs=0.07)  # styles equally often, whatever their size
    view = (batch["view"] * corpus.LEVELS).round().int()
    assert torch.equal(view[:, :2], values[:, :2])
    role = view[:, 100, 0] - levels
    assert set(role.tolist()) == {0, 1, 2}
    assert float((role > 0).float().mean()) == pytest.approx(0.7, abs=0.07)


def test_songs_shorter_than_a_crop_are_left_out(store):
    levels = (store.batch(100, 128, other=0.0, generator=torch.Generator())["target"][:, 100, 0] * corpus.LEVELS).round()
    assert set(levels.tolist()) == {10.0, 30.0}


def test_songs_written_since_are_taken_in_and_recordings_fill_every_role(store, tmp_path):
    assert [song[0] for song in store.songs] == ["jazz-train-c-0.npz", "rock-train-a-0.npz", "rock-train-b-0.npz"]
    write_song(tmp_path, "rock-train-e-0.npz", 150, roles=1, level=50)
    store.refresh()
    assert len(store.songs) == 4
    assert store.frames.shape == (3, 740, 324)
    assert store.frames[:, 590 + 3, 100].tolist() == [50, 50, 50]
    assert len(store.only("jazz").songs) == 1
    assert store.only("jazz").starts(64)[0][0] == 1


def test_a_store_that_has_grown_gives_what_one_that_was_opened_then_gives(store, tmp_path):
    how = {"other": 0.7, "swapped": 0.5, "clip_frames": 96}
    store.batch(8, 64, generator=torch.Generator(), **how)  # before it grows: what it remembers of its songs must not stay
    write_song(tmp_path, "rock-train-e-0.npz", 150, level=50)
    store.refresh()
    batch = store.batch(400, 64, generator=torch.Generator().manual_seed(0), **how)
    target, clip = ((batch[key][:, 100, 0] * corpus.LEVELS).round().int() // 10 for key in ("target", "clip"))
    assert set(target.tolist()) == {1, 2, 3, 5}
    assert torch.equal(target, clip)


def test_the_mean_spectrum_is_of_the_targets_of_each_style(store):
    mean = store.mean_frames() * corpus.LEVELS
    assert mean[:, 100].tolist() == pytest.approx([15.0, 30.0])  # a song is a song, however long


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads what Linux says of a process")
def test_a_store_takes_the_memory_of_its_songs_once(tmp_path):
    write_song(tmp_path, "short-train-0-0.npz", 20, roles=1)
    write_song(tmp_path, "own-train-0-0.npz", 10_000, roles=1)
    for i in range(1, 12):
        shutil.copy(tmp_path / "own-train-0-0.npz", tmp_path / f"own-train-{i}-0.npz")
    code = """import re, sys; from stylestream.corpus import FrameStore
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
FrameStore(sys.argv[1], ["short"])  # all that is imported late
before, store = peak(), FrameStore(sys.argv[1], ["own"])
print((peak() - before) / store.frames.nbytes)"""
    child = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert 0.9 < float(child.stdout) < 1.5  # and one of its twelve songs, while that is read


def entry(name: str, split: str, *, seconds: float = 100.0, roles: int = 1) -> dict[str, Any]:
    about = {"name": name, "id": name, "path": f"{name}.mid", "split": split, "seconds": seconds, "whole_seconds": seconds}
    return about | {"bytes": int(roles * seconds * 27_909)}  # 324 bytes, 86.1 times a second


def test_of_more_songs_than_the_memory_holds_some_of_each_split_are_drawn():
    songs = [entry(f"{i}", "valid" if i % 4 == 0 else "train") for i in range(80)]
    whole = corpus.Prepared(songs, {"broken.mid": "no music"}, {}, 1.0)
    size = sum(song["bytes"] for song in songs)
    assert whole.within(size + 1) is whole
    half = whole.within(size / 2)
    assert Counter(song["split"] for song in half.songs) == {"train": 36, "valid": 4}
    assert [song for song in songs if song in half.songs] == half.songs  # in their order
    assert {song["name"] for song in half.songs} != {song["name"] for song in songs[:40]}
    assert half.music_seconds == 3600  # what the card says
    assert half.found == whole.found == 81
    assert Counter(song["split"] for song in whole.within(0).songs) == {"train": 1, "valid": 1}  # or there is no training
    assert replace(whole, songs=songs[::-1]).within(size / 2).songs == half.songs[::-1]


def test_a_recording_beside_scores_takes_as_much_memory_as_they_do():
    """For it stands in for its own other orchestrations."""
    songs = [entry("scores", "train", roles=5), entry("played", "train"), entry("held", "valid")]
    assert len(corpus.Prepared(songs, {}, {}, 1.0).within(10 * songs[1]["bytes"]).songs) < 3
    assert len(corpus.Prepared(songs[1:], {}, {}, 1.0).within(10 * songs[1]["bytes"]).songs) == 2


def test_a_store_without_songs_says_which(tmp_path):
    with pytest.raises(ValueError, match=r"no songs of rock \(train\)"):
        FrameStore(tmp_path, ["rock"])


def test_swapped_targets_are_whole_orchestrations_and_clips_are_of_the_same_song_and_orchestration(store):
    batch = store.batch(400, 64, other=0.7, swapped=0.5, clip_frames=96, generator=torch.Generator().manual_seed(0))
    target, view, clip = ((batch[key][:, 100, 0] * corpus.LEVELS).round().int() for key in ("target", "view", "clip"))
    assert set((target % 10).tolist()) == {0, 1}  # not the last orchestration: it may lack a part
    assert torch.equal(batch["swapped"], target % 10 == 1)
    assert float(batch["swapped"].float().mean()) == pytest.approx(0.5, abs=0.07)
    assert float((view != target).float().mean()) == pytest.approx(0.7, abs=0.07)
    assert torch.equal(clip, target)
    assert batch["clip"].shape == (400, 324, 96)


def test_layers_share_a_part_by_pitch():
    symusic = pytest.importorskip("symusic")
    score = symusic.Score(480)
    track = symusic.Track(program=5)
    for i, pitch in enumerate((40, 55, 75)):
        track.notes.append(symusic.Note(480 * i, 480, pitch, 90))
    score.tracks.append(track)
    made = recipes.target_score(score, recipes.STYLE_RECIPES["jazz"])
    assert [(part.program, [note.pitch for note in part.notes]) for part in made.tracks] == [(32, [40]), (26, [55]), (66, [55]), (56, [75])]
    assert len(score.tracks) == 1
