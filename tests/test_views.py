"""Views: each disturbance does what its name says, in the unit it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from stylestream import views
from stylestream.views import NEUTRAL, RANGE_DB, ViewConfig

torch.set_num_threads(1)
ROWS, FRAMES = 324, 96


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def comb(batch: int = 1, *, peak_row: float = 150.0) -> torch.Tensor:
    """Partials three semitones apart under a formant, 60 dB over the floor and more."""
    row = torch.arange(ROWS)[:, None]
    envelope = 0.72 + 0.1 * torch.exp(-(((row - peak_row) / 40.0) ** 2))
    fine = 0.04 * torch.cos(2 * torch.pi * row / 9.0)
    return (envelope + fine).expand(-1, FRAMES)[None].repeat(batch, 1, 1)


def only(**setting: float) -> ViewConfig:
    return replace(NEUTRAL, **setting)


def test_with_every_disturbance_at_zero_a_view_is_the_target():
    x = comb(4)
    assert views.perturb(x, NEUTRAL, generator()).numpy() == pytest.approx(x.numpy(), abs=2e-5)


def test_gain_is_one_number_of_decibels_for_each_song():
    x = comb(400)
    difference_db = (views.perturb(x, only(gain_db=6.0), generator()) - x) * RANGE_DB
    assert float(difference_db.std((1, 2)).max()) < 0.01
    gains_db = difference_db.mean((1, 2))
    assert float(gains_db.std()) == pytest.approx(6.0, rel=0.1)
    assert abs(float(gains_db.mean())) < 1.0


def test_the_equaliser_is_the_same_in_every_frame_and_smooth_along_pitch():
    x = comb(200)
    difference_db = (views.perturb(x, only(equaliser_db=6.0), generator()) - x) * RANGE_DB
    assert float(difference_db.std(2).max()) < 0.01
    knots_db = difference_db[:, :: (ROWS - 1) // 7, 0]
    assert float(knots_db[:, 0].std()) == pytest.approx(6.0, rel=0.15)
    assert float(difference_db.diff(dim=1).abs().max()) < 4 * 2**0.5 * 6.0 / (ROWS / 7)  # knots are 46 rows apart


def test_a_formant_shift_moves_the_envelope_and_not_the_partials():
    x = comb(16)
    moved = views.perturb(x, only(formant_semitones=4.0), generator(3))
    middle = slice(60, 264)  # away from the edges, which are repeated
    fine = (x - views.envelope(x))[:, middle, 0]
    fine_moved = (moved - views.envelope(moved))[:, middle, 0]
    for a, b in zip(fine, fine_moved, strict=True):
        assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.99
    peaks = views.envelope(moved)[:, middle, 0].argmax(1) - views.envelope(x)[:, middle, 0].argmax(1)
    assert int(peaks.abs().max()) <= 4 * 3 + 1
    assert int(peaks.max()) >= 5
    assert int(peaks.min()) <= -5  # up and down


def test_rows_are_shifted_by_fractions_and_edges_are_repeated():
    x = torch.arange(5.0)[None, :, None]
    assert views.shift_rows(x, torch.tensor([1.5]))[0, :, 0].tolist() == [0.0, 0.0, 0.5, 1.5, 2.5]
    assert views.shift_rows(x, torch.tensor([-1.0]))[0, :, 0].tolist() == [1.0, 2.0, 3.0, 4.0, 4.0]


def test_contrast_scales_the_fine_structure_by_at_most_a_quarter():
    x = comb(100)
    out = views.perturb(x, only(contrast=0.25), generator())
    middle = slice(60, 264)
    scale = (out - views.envelope(out))[:, middle, 0].std(1) / (x - views.envelope(x))[:, middle, 0].std(1)
    assert 0.74 < float(scale.min()) < 0.8
    assert 1.2 < float(scale.max()) < 1.26


def test_a_noise_floor_lies_between_85_and_45_db_below_full_scale():
    silence = torch.zeros(300, ROWS, FRAMES)
    floor_db = (views.perturb(silence, only(noise_share=1.0), generator())[:, ROWS // 2] - 1).mean(-1) * RANGE_DB  # the tilt's middle
    assert -89 < float(floor_db.min()) < -80
    assert -52 < float(floor_db.max()) < -45
    kept = views.perturb(comb(1) + 0.0, only(noise_share=1.0), generator())
    assert float((kept - comb(1)).abs().max()) * RANGE_DB < 4.0  # a floor at −45 dB adds little to −25 dB


def test_what_rings_falls_in_a_straight_line_of_decibels():
    x = torch.zeros(1, ROWS, FRAMES)
    x[:, 100, 10] = 0.9
    out = views.ring(x, torch.tensor([90.0]))
    one_second = 1.0 / (44100 / 512)
    assert out[0, 100, 10:60].numpy() == pytest.approx(0.9 - one_second * np.arange(50), abs=1e-5)
    assert float(out[0, 100, 9]) == 0
    assert bool((out >= x - 1e-6).all())


def test_whitening_takes_the_slow_envelope_and_leaves_attacks():
    tone = comb(1)
    attack = tone.clone()
    attack[:, :, :48] *= 0.5
    flat = views.whiten(tone, frames=96)
    assert float(views.envelope(flat)[0, 40:280, 0].std()) < 0.25 * float(views.envelope(tone)[0, 40:280, 0].std())
    step = views.whiten(attack, frames=400)
    rise = float((step[0, :, 50] - step[0, :, 46]).mean())
    assert rise == pytest.approx(float((attack[0, :, 50] - attack[0, :, 46]).mean()), rel=0.1)


def test_the_same_seed_draws_the_same_view_and_each_song_its_own():
    x = comb(3)
    first, again = (views.perturb(x, ViewConfig(whiten_share=0.4), generator(7)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, views.perturb(x, ViewConfig(whiten_share=0.4), generator(8)))
    assert float((first[0] - first[1]).abs().mean()) * RANGE_DB > 0.5
    assert torch.equal(x, comb(3))  # the argument is kept


def test_orchestrations_are_the_same_notes_on_other_instruments():
    symusic = pytest.importorskip("symusic", reason="reading MIDI needs symusic: pip install 'stylestream[midi]'")
    score = symusic.Score(480)
    for part in range(5):
        track = symusic.Track(name=str(part), program=48, is_drum=part == 4)
        for i in range(4):
            track.notes.append(symusic.Note(480 * i, 480, 40 + 7 * part, 90))
        score.tracks.append(track)
    made = views.orchestrations(score, np.random.default_rng(0), 24)
    assert {track.program for track in made[0].tracks} <= set(views.PIANO_PROGRAMS)
    assert not any(track.is_drum for other in made for track in other.tracks)
    parts = [sorted(track.notes[0].pitch for track in other.tracks) for other in made]
    assert parts[0] == [40, 47, 54, 61]
    assert {len(p) for p in parts} == {3, 4}  # an inner part is left out of some
    assert all(p[0] == 40 and p[-1] == 61 for p in parts)
    assert len({tuple(track.program for track in other.tracks) for other in made}) > 15
    assert [track.program for track in score.tracks] == [48] * 5


def test_songs_far_from_their_target_come_undisturbed_as_often_as_said_and_near_ones_never():
    target = comb(400)
    view = target.clone()
    view[::2] += 12.0 / RANGE_DB  # every second one is far from its target
    seen = views.drawn(view, target, only(gain_db=3.0, clean_share=0.5), generator())
    clean = (seen == view).all(2).all(1)
    assert 0.4 < clean[::2].float().mean() < 0.6
    assert not clean[1::2].any()
