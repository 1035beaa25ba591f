"""The timbre embedding: what it must know of music it never heard, and what it must not care about."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("librosa", reason="spectra need the extra [eval]")

from stylestream import metrics, recipes, timbre
from stylestream.sound import Sound, prepare
from stylestream.style import Card, read_card, save_style

RATE = 44100
FOLDER = Path(__file__).parent.parent / "stylestream"


def chord(seed: int = 0, *, partials: int = 8, seconds: float = 3.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    hz = 220 * 2 ** (rng.integers(0, 24, size=3) / 12)
    return np.sum([np.sin(2 * np.pi * f * h * t) / h for f in hz for h in range(1, partials + 1)], axis=0) * 0.05


@pytest.fixture(scope="module")
def sound() -> Sound:
    return prepare(chord())


def test_an_embedding_has_length_one_and_a_song_is_like_itself(sound: Sound) -> None:
    rows = timbre.embeddings(sound)
    assert rows.shape == (len(timbre.windows(sound.log_mel)), 32)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)
    assert timbre.timbre_cosine(sound, sound) == pytest.approx(1, abs=1e-6)
    assert timbre.style_cosine(sound, [sound, sound]) == pytest.approx(1, abs=1e-6)


def test_windows_overlap_by_half_and_a_short_song_is_one_window() -> None:
    level = np.arange(128 * 300, dtype=np.float64).reshape(128, 300)
    windows = timbre.windows(level)
    assert [window[0, 0] for window in windows] == [0, 64, 128]
    assert np.array_equal(windows[1], level[:, 64:192].astype(np.float32))
    short = timbre.windows(level[:, :5])
    assert short.shape == (1, 128, 128)
    assert (short[0, :, 5:] == -80).all()


def test_level_and_panning_do_not_count(sound: Sound) -> None:
    panned = prepare(np.stack([chord(), np.zeros_like(chord())]) * 0.1)
    assert timbre.timbre_cosine(sound, panned) == pytest.approx(1, abs=1e-5)


def test_probabilities_sum_to_one_and_the_likeliest_is_heard(sound: Sound) -> None:
    probabilities = timbre.style_probabilities(sound)
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert tuple(probabilities) == timbre.STYLES
    heard = timbre.style_heard(sound)
    assert probabilities[heard] == max(probabilities.values())
    scores = timbre.style_scores(sound, heard)
    assert scores["style_heard"] == 1
    assert scores["style_probability"] == probabilities[heard]
    assert timbre.style_scores(sound, min(probabilities, key=lambda name: probabilities[name]))["style_heard"] == 0


def test_the_logits_are_cosines_and_torch_s_normalised_products() -> None:
    model = timbre.load_timbre()
    rows = torch.nn.functional.normalize(torch.randn(5, 32, generator=torch.Generator().manual_seed(0)), dim=-1)
    expected = 12.0 * torch.stack([torch.cosine_similarity(row, model.centers) for row in rows])
    assert torch.allclose(model.logits(rows), expected, atol=1e-5)


def test_silence_has_no_style_and_that_is_said(sound: Sound) -> None:
    silent = Sound(np.zeros(RATE))
    with pytest.warns(UserWarning, match="timbre_cosine: a song is silent; it scores 0"):
        assert timbre.timbre_cosine(sound, silent) == 0
    with pytest.warns(UserWarning, match="style_"):
        assert timbre.style_heard(silent) == "silence"
    with pytest.warns(UserWarning, match="style_"):
        assert set(timbre.style_scores(silent, "rock").values()) == {0.0}


def test_an_unknown_style_is_named_with_the_known_ones(sound: Sound) -> None:
    with pytest.raises(ValueError, match="does not know style 'polka'; it knows rock, jazz"):
        timbre.style_scores(sound, "polka")
    with pytest.raises(ValueError, match="no songs of the style"):
        timbre.style_cosine(sound, [])


def test_other_files_are_refused(tmp_path: Path) -> None:
    rock = FOLDER / "styles" / "rock.safetensors"
    with pytest.raises(ValueError, match="holds no timbre network"):
        timbre.load_timbre(rock)
    odd = save_style(
        tmp_path / "odd.safetensors", {"a": torch.zeros(2)}, model_config={"model": "timbre"}, feature_config={}, card=Card("odd")
    )
    with pytest.raises(ValueError, match="do not belong together"):
        timbre.load_timbre(odd)


def test_the_file_is_small_and_its_card_says_what_was_heard_and_how_often_it_is_right() -> None:
    card = read_card(timbre.timbre_file())
    assert timbre.timbre_file().stat().st_size < 2**20
    assert card.sources
    assert all(recipes.licence_allowed(source.licence) for source in card.sources)
    assert card.metrics["test"]["accuracy"] > 0.8
    assert {"test", "test-rearranged", "test-musescore", "test-recording"} <= set(card.metrics)


def test_the_module_names_the_weights_that_lie_beside_it() -> None:
    assert hashlib.sha256(timbre.timbre_file().read_bytes()).hexdigest()[:16] == timbre.WEIGHTS


@pytest.fixture(scope="module")
def renders() -> dict[str, list[Sound]]:
    """Three held-out pieces, four seconds each, on the instruments of three styles, and on MuseScore's piano."""
    data = os.environ.get("STYLESTREAM_DATA")
    if not data or not Path(data, "midi.csv").is_file():
        pytest.skip("needs the music at $STYLESTREAM_DATA")
    midi = pytest.importorskip("stylestream.midi")
    pytest.importorskip("symusic", reason="rendering needs symusic: pip install 'stylestream[midi]'")
    chosen = recipes.select(recipes.pieces(data, "strings"), 3, split="test")
    scores = [midi.load_score(content) for _, content in recipes.read_pieces(data, chosen)]
    played: dict[str, list[Sound]] = {}
    with midi.Synthesizer(midi.find_soundfont("fluidr3")) as synthesizer:
        for style in ("strings", "rock", "chiptune"):
            targets = [recipes.target_score(score, recipes.recipe_of(style)) for score in scores]
            played[style] = [prepare(synthesizer.render(target, start_seconds=5.0, max_seconds=4.0)) for target in targets]
    return played


@pytest.mark.data
def test_the_instruments_decide_the_style_and_not_the_notes(renders: dict[str, list[Sound]]) -> None:
    heard = {style: [timbre.style_heard(sound) for sound in sounds] for style, sounds in renders.items()}
    assert heard == {style: [style] * 3 for style in renders}


@pytest.mark.data
def test_songs_lie_near_their_style_and_far_from_others(renders: dict[str, list[Sound]]) -> None:
    for style, sounds in renders.items():
        near = [timbre.style_cosine(sound, style) for sound in sounds]
        far = [timbre.style_cosine(sound, other) for sound in sounds for other in renders if other != style]
        assert min(near) > 0.7
        assert max(far) < 0.6


@pytest.mark.data
def test_other_notes_on_the_same_instruments_are_nearer_than_the_same_notes_on_others(renders: dict[str, list[Sound]]) -> None:
    for one, two in ((0, 1), (1, 2)):
        strings, rock = renders["strings"], renders["rock"]
        assert timbre.timbre_cosine(strings[one], strings[two]) > timbre.timbre_cosine(strings[one], rock[one]) + 0.5


@pytest.mark.data
def test_clouds_of_one_style_are_nearer_than_clouds_of_two(renders: dict[str, list[Sound]]) -> None:
    clouds = {style: [timbre.embeddings(sound) for sound in sounds] for style, sounds in renders.items()}
    for distance in (metrics.frechet_distance, metrics.kernel_distance):
        within = distance(clouds["strings"][0], np.concatenate(clouds["strings"][1:]))
        between = distance(np.concatenate(clouds["rock"]), np.concatenate(clouds["strings"]))
        assert between > 3 * abs(within)
