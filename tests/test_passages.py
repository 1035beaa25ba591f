"""Passages: chosen by nobody, refused where the style has heard them, and the same sound every time."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("symusic", reason="evaluation needs the extra [midi]")

from stylestream import midi, passages, recipes
from stylestream.passages import Excerpt, Protocol

SHORT = Protocol(pieces=2, seconds=3.0, min_notes=5, song_soundfont="fluidr3", resamples=200)  # MuseScore's takes seconds to load


def test_passages_are_chosen_by_hash_and_refusals_are_said(scores: Path) -> None:
    many = Protocol(pieces=9, seconds=3.0, min_notes=10)
    chosen, refused = passages.excerpts(scores, "rock", many)
    assert {e.piece.path for e in chosen} == {"piece 0.mid", "piece 1.mid", "piece 2.mid"}
    assert [e.piece.path for e in chosen] == sorted((e.piece.path for e in chosen), key=recipes.text_hash)
    assert set(refused) == {"short.mid", "broken.mid"}
    assert "8 notes in the excerpt; at least 10 are needed" in refused["short.mid"]
    first, _ = passages.excerpts(scores, "rock", Protocol(pieces=1, seconds=3.0, min_notes=10))
    assert first == chosen[:1]


def test_a_passage_begins_at_a_quarter_and_stays_inside(scores: Path) -> None:
    (a, *_), _ = passages.excerpts(scores, "rock", SHORT)
    assert a.start_seconds == pytest.approx(3, abs=0.01)  # a quarter of 12 s
    (b, *_), _ = passages.excerpts(scores, "rock", Protocol(pieces=1, seconds=10.0))
    assert b.start_seconds == pytest.approx(2, abs=0.05)
    (c, *_), _ = passages.excerpts(scores, "rock", Protocol(pieces=1, seconds=60.0))
    assert (c.start_seconds, c.seconds) == (0, pytest.approx(12, abs=0.05))


def test_notes_are_counted_from_the_passage_s_start(scores: Path) -> None:
    (excerpt, *_), _ = passages.excerpts(scores, "rock", SHORT)
    score = recipes.target_score(midi.load_score(excerpt.content), recipes.recipe_of("rock"))
    notes = passages.notes_of(score, excerpt)
    assert len(notes) == 12  # 6 beats of tune and bass; the drums are not in the score
    assert notes["onset_seconds"].min() == pytest.approx(0, abs=0.01)
    assert notes["onset_seconds"].max() == pytest.approx(2.5, abs=0.01)


def test_a_folder_without_a_usable_piece_says_why(tmp_path: Path, write_piece: Callable[..., Path]) -> None:
    write_piece(tmp_path / "a.mid", bars=1)
    with pytest.raises(ValueError, match=r"no held-out piece for style 'rock'.*a\.mid: 8 notes"):
        passages.excerpts(tmp_path, "rock")


def test_the_song_is_a_piano_and_the_piano_s_song_is_not(scores: Path) -> None:
    content = (scores / "piece 0.mid").read_bytes()
    for style, piano in (("rock", True), ("piano", False)):
        recipe = recipes.recipe_of(style)
        target = recipes.target_score(midi.load_score(content), recipe)
        song = passages.song_score(target, content, recipe)
        assert len(midi.notes(song)) == len(midi.notes(target)) == 48
        assert all(track.program == 0 for track in song.tracks) == piano
        again = passages.song_score(target, content, recipe)
        assert [t.program for t in again.tracks] == [t.program for t in song.tracks]


@pytest.mark.data
def test_held_out_pieces_are_the_test_split(collection: Path) -> None:
    chosen, _ = passages.excerpts(collection, "strings", Protocol(pieces=3))
    assert len(chosen) == 3
    assert {e.piece.split for e in chosen} == {"test"}
    assert len({e.piece.group for e in chosen}) == 3


# --- songs that the style has heard


def in_another_key(content: bytes, semitones: int = 5) -> bytes:
    """The piece transposed, played by others, and twice as fast."""
    score: Any = midi.load_score(content)
    score = score.shift_pitch(semitones)
    for track in score.tracks:
        track.program = 48
    for tempo in score.tempos:
        tempo.qpm = 2 * tempo.qpm
    return bytes(score.dumps_midi())


def write_tune(path: Path, seed: int, *, notes: int = 120) -> Path:
    """A melody that wanders by chance."""
    import symusic

    rng = np.random.default_rng(seed)
    score: Any = symusic.Score(480)
    track: Any = symusic.Track("tune", 0, False)
    for i, pitch in enumerate(np.clip(60 + np.cumsum(rng.integers(-4, 5, notes)), 36, 96)):
        track.notes.append(symusic.Note(240 * i, 220, int(pitch), 90))
    score.tracks.append(track)
    path.write_bytes(score.dumps_midi())
    return path


def known(*contents: bytes) -> dict[str, list[int]]:
    """Fingerprints as a style file carries them."""
    return {recipes.song_id(content): recipes.melody_fingerprint(midi.load_score(content)) for content in contents}


def test_a_song_that_was_trained_on_is_refused_and_the_others_are_not(tmp_path: Path) -> None:
    tunes = [write_tune(tmp_path / f"{seed}.mid", seed) for seed in range(4)]
    protocol = Protocol(pieces=9, seconds=3.0, min_notes=5)
    chosen, refused = passages.excerpts(tmp_path, "rock", protocol, known=known(tunes[1].read_bytes()))
    assert {excerpt.piece.path for excerpt in chosen} == {"0.mid", "2.mid", "3.mid"}
    assert refused == {"1.mid": "the style was trained on it"}


def test_among_many_songs_that_were_trained_on_the_few_others_are_found(tmp_path: Path) -> None:
    for seed in range(14):
        write_tune(tmp_path / f"{seed}.mid", seed)
    order = sorted(tmp_path.glob("*.mid"), key=lambda path: recipes.text_hash(path.name))
    heard = {recipes.song_id(path.read_bytes()): () for path in order[:12]}
    chosen, refused = passages.excerpts(tmp_path, "rock", SHORT, known=heard)
    assert [excerpt.piece.path for excerpt in chosen] == [path.name for path in order[12:]]
    assert len(refused) == 12


def test_the_same_song_twice_does_not_end_the_search(tmp_path: Path) -> None:
    for seed in range(14):
        write_tune(tmp_path / f"{seed}.mid", seed)
    order = sorted(tmp_path.glob("*.mid"), key=lambda path: recipes.text_hash(path.name))
    shutil.copy(order[0], order[1])
    heard = {recipes.song_id(path.read_bytes()): () for path in order[:8]}  # the first look is at eight
    chosen, _ = passages.excerpts(tmp_path, "rock", SHORT, known=heard)
    assert [excerpt.piece.path for excerpt in chosen] == [path.name for path in order[8:10]]


def test_a_melody_that_was_trained_on_is_known_again_in_another_key_and_tempo(tmp_path: Path) -> None:
    (tmp_path / "heard").mkdir()
    (tmp_path / "songs").mkdir()
    heard = write_tune(tmp_path / "heard" / "a.mid", 0).read_bytes()
    (tmp_path / "songs" / "transposed.mid").write_bytes(in_another_key(heard))
    write_tune(tmp_path / "songs" / "another.mid", 1)
    chosen, refused = passages.excerpts(tmp_path / "songs", "rock", SHORT, known=known(heard))
    assert [excerpt.piece.path for excerpt in chosen] == ["another.mid"]
    assert refused["transposed.mid"].startswith("the style was trained on this melody (100% of that of song ")


def test_no_song_left_is_one_line_that_names_them(tmp_path: Path) -> None:
    tunes = [write_tune(tmp_path / f"{seed}.mid", seed) for seed in range(2)]
    with pytest.raises(
        ValueError, match=r"no held-out piece for style 'rock' in .*[01]\.mid: the style was trained on it; [01]\.mid"
    ) as error:
        passages.excerpts(tmp_path, "rock", SHORT, known=known(*(tune.read_bytes() for tune in tunes)))
    assert "\n" not in str(error.value)


def test_half_a_melody_is_the_same_melody_and_a_tenth_is_not() -> None:
    rng = np.random.default_rng(0)
    runs = [int(h) for h in rng.integers(0, 2**48, 400)]
    for share, same in ((0.5, True), (0.1, False)):
        cut = round(400 * share * 2 / (1 + share))  # that many runs shared of 400 each: the union is larger than either
        one, other = sorted(runs[:400])[:24], sorted(runs[:cut] + [int(h) for h in rng.integers(0, 2**48, 400 - cut)])[:24]
        assert (passages.same_melody(other, {"song": one}) is not None) is same


def test_short_melodies_are_not_the_same_by_chance() -> None:
    assert passages.same_melody([1, 2, 3], {"song": [1, 2, 3]}) is None


@pytest.mark.data
def test_quartets_of_other_names_are_not_the_same_melody(collection: Path) -> None:
    chosen = recipes.select(recipes.pieces(collection, "strings"), 60)
    found = {
        piece.group: recipes.melody_fingerprint(midi.load_score(content)) for piece, content in recipes.read_pieces(collection, chosen)
    }
    assert len(found) > 40
    for group, melody in found.items():
        assert passages.same_melody(melody, {other: runs for other, runs in found.items() if other != group}) is None, group


# --- recordings, and several sources


def test_recordings_are_passages_too(tmp_path: Path, song: Path, scores: Path) -> None:
    shutil.copy(song, tmp_path / "again.wav")
    import soundfile

    soundfile.write(tmp_path / "long.ogg", np.random.default_rng(0).normal(scale=0.1, size=(44100 * 6, 2)), 44100)
    (chosen, *rest), refused = passages.excerpts([tmp_path, scores], "rock", SHORT, kind="recordings")
    assert (chosen.piece.path, chosen.seconds, chosen.start_seconds) == ("long.ogg", 3.0, pytest.approx(1.5, abs=0.01))
    assert not rest
    assert list(refused.values()) == ["1.0 s long; at least 2 s are needed"]  # the same song under two names counts once
    assert passages.kinds([tmp_path, scores]) == ["reduction", "recordings"]
    assert passages.Renderer(tmp_path).listen(chosen).shape == (2, 3 * 44100)


def test_archives_and_manifests_are_sources_too(tmp_path: Path, scores: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "all.tar.xz", "w:xz") as archive:
        for path in sorted(scores.glob("piece *.mid")):
            archive.add(path, arcname=path.name)
    (tmp_path / "two.csv").write_text(f"path,style\n{scores / 'piece 0.mid'},rock\n{scores / 'piece 2.mid'},rock\n")
    protocol = Protocol(pieces=9, seconds=3.0, min_notes=10)
    whole = passages.excerpts(scores, "rock", protocol)[0]
    assert [e.id for e in passages.excerpts(tmp_path / "all.tar.xz", "rock", protocol)[0]] == [e.id for e in whole]
    listed = passages.excerpts(tmp_path / "two.csv", "rock", protocol)[0]
    assert {e.id for e in listed} == {recipes.song_id((scores / f"piece {i}.mid").read_bytes()) for i in (0, 2)}
    assert passages.kinds([tmp_path / "all.tar.xz"]) == ["reduction"]


def test_a_built_dataset_gives_the_sounds_it_keeps(tmp_path: Path, write_dataset: Callable[..., Path], tone: Callable[..., Any]) -> None:
    import soundfile

    from stylestream.dataset import Dataset, DatasetConfig

    levels = np.zeros((1, 40, 324), np.uint8)
    songs: list[dict[str, Any]] = [{"levels": levels, "fingerprint": list(range(24 * i, 24 * i + 24))} for i in range(30)]
    build = {"build": dataclasses.asdict(DatasetConfig(keep_audio="flac"))}
    folder = write_dataset(tmp_path / "data", songs, **build)
    held_out = [row for row in Dataset(folder).songs.to_pylist() if row["split"] == "test"]
    assert len(held_out) >= 2
    (folder / "audio").mkdir()
    for row in held_out:
        soundfile.write(folder / "audio" / f"{row['song_id']}.flac", tone(3.0).T, 44100)
    protocol = Protocol(pieces=9, seconds=2.0)
    chosen, _ = passages.excerpts(folder, "", protocol, kind="recordings")
    assert {e.id for e in chosen} == {row["song_id"] for row in held_out}
    melody = {"heard": held_out[0]["fingerprint"]}  # a score's sound is refused by its melody
    chosen, refused = passages.excerpts(folder, "", protocol, kind="recordings", known=melody)
    assert len(chosen) == len(held_out) - 1
    assert "trained on this melody" in refused[held_out[0]["path"]]
    silent = write_dataset(tmp_path / "silent", songs)
    with pytest.raises(ValueError, match="keeps no sound; build it with --keep-audio flac"):
        passages.excerpts(silent, "", protocol, kind="recordings")


def test_several_sources_are_one_in_the_order_of_the_hash(tmp_path: Path, scores: Path) -> None:
    for path in sorted(scores.glob("piece *.mid")):
        (tmp_path / path.name[6]).mkdir()
        shutil.copy(path, tmp_path / path.name[6] / path.name)
    sources = [tmp_path / "2", tmp_path / "0", tmp_path / "1" / "piece 1.mid"]
    assert [e.piece.path for e in passages.excerpts(sources, "rock", Protocol(pieces=9, seconds=3.0, min_notes=5))[0]] == [
        e.piece.path for e in passages.excerpts(scores, "rock", Protocol(pieces=9, seconds=3.0, min_notes=10))[0]
    ]


def test_a_render_is_kept_and_is_the_same_again(scores: Path, fonts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (excerpt, *_), _ = passages.excerpts(scores, "rock", SHORT)
    assert isinstance(excerpt.content, bytes)
    score = midi.load_score(excerpt.content)
    first = passages.Renderer(tmp_path).render(score, "fluidr3", excerpt)
    assert first.shape == (2, 3 * 44100)
    assert len(list(tmp_path.iterdir())) == 1

    def no_synthesizer(*_: object) -> None:
        raise AssertionError("rendered again")

    monkeypatch.setattr(midi, "Synthesizer", no_synthesizer)
    assert (passages.Renderer(tmp_path).render(score, "fluidr3", excerpt) == first).all()
    other = Excerpt(excerpt.piece, excerpt.content, excerpt.start_seconds + 0.5, excerpt.seconds)
    with pytest.raises(AssertionError, match="rendered again"):
        passages.Renderer(tmp_path).render(score, "fluidr3", other)


def test_layers_in_unison_are_one_note_of_the_song():
    symusic = pytest.importorskip("symusic")
    from stylestream import recipes

    score, track = symusic.Score(480), symusic.Track(program=5)
    for i, pitch in enumerate((40, 55, 55, 75)):
        track.notes.append(symusic.Note(480 * i, 480, pitch, 90))
    score.tracks.append(track)
    recipe = recipes.STYLE_RECIPES["jazz"]
    target = recipes.target_score(score, recipe)
    assert sum(len(part.notes) for part in target.tracks) == 6
    song = passages.song_score(target, b"", recipe)
    assert sorted(note.pitch for part in song.tracks for note in part.notes) == [40, 55, 55, 75]
