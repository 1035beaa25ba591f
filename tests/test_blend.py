"""Styles between styles: what a blend is called, what may be blended, and that the way from one to another is smooth."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from stylestream.blend import blend, distance, label, load_blend, locate, normalised, parse
from stylestream.draw import Draw, DrawConfig
from stylestream.features import FeatureConfig
from stylestream.style import Card, Source, StyleData, find_style, load_style_file, network_of, save_style
from stylestream.transfer import StyleTransfer, Together, load_style

SMALL = DrawConfig(
    steps=2, view_channels=8, view_blocks=1, encoder_channels=8, decoder_channels=8, texture_channels=8, texture_blocks=1, mix_groups=2
)
SAMPLE_RATE = 44100


def style_of(draw: Draw, title: str, **card: object) -> StyleData:
    config, features = dataclasses.asdict(draw.config), dataclasses.asdict(FeatureConfig())
    return StyleData(dict(draw.state_dict()), config, features, Card(title, **card), {title: [1, 2]}, "")  # type: ignore[arg-type]


def network(*, seed: int = 0, config: DrawConfig = SMALL) -> Draw:
    torch.manual_seed(seed)
    return Draw(config)


def tuned(seed: int, **settings: float) -> Draw:
    """A relative of ``network()``, as far from it as fine-tuning goes, with an embedding and a mean spectrum of its own."""
    draw = network()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in draw.parameters():
            parameter.add_(0.15 * parameter.std(unbiased=False).nan_to_num() * torch.randn(parameter.shape, generator=generator))
        draw.mean_frames += 0.1 * torch.randn(draw.mean_frames.shape, generator=generator)
    draw.config = dataclasses.replace(draw.config, **settings)
    return draw


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    """Three relatives, a stranger, and one of another size."""
    networks = {
        "a": tuned(1, phase_iterations=0, grain_power=4.0),
        "b": tuned(2, phase_iterations=3, grain_power=2.0),
        "c": tuned(3),
        "stranger": network(seed=9),
        "larger": network(config=dataclasses.replace(SMALL, decoder_channels=16)),
    }
    settings = {name: {"model_config": dataclasses.asdict(draw.config)} for name, draw in networks.items()}
    features = dataclasses.asdict(FeatureConfig())
    return {
        name: save_style(tmp_path / f"{name}.safetensors", draw.state_dict(), feature_config=features, card=Card(name), **settings[name])
        for name, draw in networks.items()
    }


@pytest.fixture(autouse=True)
def installed(monkeypatch, tmp_path):
    monkeypatch.setenv("STYLESTREAM_STYLES", str(tmp_path))


# ------------------------------------------------------------------------------------------------------- what it is called


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("rock", {"rock": 1.0}),
        ("rock:2", {"rock": 1.0}),
        ("rock:0.6,strings:0.4", {"rock": 0.6, "strings": 0.4}),
        (" rock:3 , strings:1", {"rock": 0.75, "strings": 0.25}),
        ("rock,strings,piano,choir", dict.fromkeys(("rock", "strings", "piano", "choir"), 0.25)),
        ("rock:1,strings:0", {"rock": 1.0}),
        ("rock:1,rock:1,piano:2", {"rock": 0.5, "piano": 0.5}),
        ("C:\\my styles\\a.safetensors:.25,b:75e-2", {"C:\\my styles\\a.safetensors": 0.25, "b": 0.75}),
        ("C:\\my styles\\a.safetensors", {"C:\\my styles\\a.safetensors": 1.0}),
    ],
)
def test_a_blend_is_read_as_it_is_written(text, shares):
    assert dict(parse(text)) == pytest.approx(shares)


def test_a_file_with_a_comma_in_its_name_is_a_file(tmp_path):
    path = tmp_path / "rock:0.5,strings:0.5"
    path.write_bytes(b"")
    assert parse(str(path)) == ((str(path), 1.0),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rock:0.5,strings", "'strings' has no share; write a blend as rock:0.6,strings:0.4"),
        ("rock:0.5,", "a style's name is missing"),
        ("rock:-1,strings:2", "the share of 'rock' is -1.0; shares are from 0"),
        ("rock:nan,strings:2", "the share of 'rock' is nan"),
        ("rock:1e9,strings:2", "the share of 'rock' is 1000000000.0"),
        ("rock:0,strings:0", "all shares are 0"),
        (",".join(f"s{i}:1" for i in range(9)), "9 styles; a blend has at most 8"),
    ],
)
def test_a_blend_that_makes_no_sense_is_one_clear_line(text, message):
    with pytest.raises(ValueError, match=message) as error:
        parse(text)
    assert "\n" not in str(error.value)


def test_an_unknown_style_in_a_blend_names_the_nearest(files):
    with pytest.raises(ValueError, match="unknown style 'rokc'; did you mean 'rock'"):
        locate("a:0.5,rokc:0.5")


def test_a_blend_names_its_file_by_percent():
    assert label(parse("rock:1,out/my.own.safetensors:2")) == "rock33.3-my.own66.7"
    assert label(parse("my.own")) == "my.own"


# ------------------------------------------------------------------------------------------------------ what may be blended


@pytest.mark.parametrize("other", ["stranger", "larger"])
def test_styles_of_other_families_paint_beside_each_other(files, tone, other):
    """And at either end stands the pure style; between them, the way is as smooth as that of weights."""
    assert len(load_blend(f"a:0.5,{other}:0.5").styles) == 2
    y = tone(0.4)
    way = [load_style(f"a:{1 - w},{other}:{w}", half=False).transfer(y, SAMPLE_RATE, dream=1, grain=1.0) for w in np.linspace(0, 1, 6)]
    ends = [load_style(name, half=False).transfer(y, SAMPLE_RATE, dream=1, grain=1.0) for name in ("a", other)]
    np.testing.assert_array_equal(way[0], ends[0])
    np.testing.assert_array_equal(way[-1], ends[1])
    steps = [np.linalg.norm(b - a) for a, b in itertools.pairwise(way)]
    assert 0 < max(steps) < 0.5 * np.linalg.norm(way[-1] - way[0])
    near = load_style(f"a:0.99999,{other}:0.00001", half=False).transfer(y, SAMPLE_RATE, dream=1, grain=1.0)
    assert np.linalg.norm(near - ends[0]) < 1e-3 * np.linalg.norm(way[-1] - way[0])


def test_relatives_in_a_blend_share_a_network_and_a_stranger_has_its_own(files):
    found = load_blend("a:0.2,stranger:0.5,b:0.3")
    assert found.shares == (0.5, 0.5)
    torch.testing.assert_close(found.styles[0].weights["start"], load_blend("a:0.4,b:0.6").styles[0].weights["start"])
    assert found.styles[1].weights["start"].equal(load_blend("stranger").styles[0].weights["start"])
    assert found.card.title == "20 % a + 50 % stranger + 30 % b"


def test_networks_of_different_steps_and_cells_paint_together(tone):
    """The dream goes over all steps of both, and chunks lie on cells of both."""
    few, many = network(), network(seed=1, config=dataclasses.replace(SMALL, steps=4, patch_frames=8))
    together = Together([few, many], [0.25, 0.75])
    assert (together.config.steps, together.config.grid_frames) == (4, 8)
    view = torch.rand(1, 324, 32)
    for dream in (0.0, 3.0, 4.0):
        own, other = few.transfer(view, dream=dream / 2, canvases=True), many.transfer(view, dream=dream, canvases=True)
        torch.testing.assert_close(together.transfer(view, dream=dream), 0.25 * own[-1] + 0.75 * other[-1])
        shown = together.transfer(view, dream=dream, canvases=True)
        torch.testing.assert_close(shown, 0.25 * own[[0, 0, 1, 1, 2]] + 0.75 * other)
    style, y = StyleTransfer(together, half=False), tone(3.0)
    whole, chunked = (style.transfer(y, SAMPLE_RATE, dream=1.5, chunk_seconds=seconds) for seconds in (60, 0.9))
    assert np.abs(whole - chunked).max() < 1e-4


def test_frames_that_differ_cannot_be_blended():
    a, b = style_of(network(), "a"), style_of(network(), "b")
    b.feature_config["floor_db"] = -80.0
    with pytest.raises(ValueError, match=r"their frames differ \(floor_db is -90.0 and -80.0\)"):
        blend([a, b], [0.5, 0.5], ["a", "b"])


def test_a_hostile_file_in_a_blend_is_told_of_by_its_own_name(files, tmp_path):
    config = {**dataclasses.asdict(SMALL), "grain_power": "much"}
    wrong = tmp_path / "wrong.safetensors"
    save_style(wrong, network().state_dict(), model_config=config, feature_config=dataclasses.asdict(FeatureConfig()), card=Card("wrong"))
    with pytest.raises(ValueError, match="wrong: grain_power is 'much', not a float"):
        load_blend("a,wrong")


def test_strangers_are_as_far_apart_as_they_are_large_and_the_bundled_styles_are_not():
    assert distance(network(seed=1).state_dict(), network(seed=2).state_dict()) == pytest.approx(1.0, abs=0.05)
    rock, strings = (load_style_file(find_style(name)).weights for name in ("rock", "strings"))
    assert distance(rock, strings) < 0.4
    assert len(load_blend("rock,strings,piano,choir,electronic").styles) == 1


# -------------------------------------------------------------------------------------------------------------- what it is


def test_a_blend_is_the_mean_of_its_styles():
    styles = [style_of(tuned(seed, phase_iterations=seed, grain_power=2.0 * seed), str(seed)) for seed in (1, 2, 3)]
    (mixed,) = blend(styles, [0.5, 0.25, 0.25], ["1", "2", "3"]).styles
    for key, tensor in mixed.weights.items():
        expected = 0.5 * styles[0].weights[key] + 0.25 * styles[1].weights[key] + 0.25 * styles[2].weights[key]
        torch.testing.assert_close(tensor, expected)
    config = network_of(mixed, "mixed").config
    assert (config.phase_iterations, config.grain_power) == (1.75, 3.5)
    assert styles[0].weights["start"].equal(tuned(1).state_dict()["start"])  # and none of them has changed


def test_a_style_that_is_older_than_a_setting_has_its_default_in_a_blend():
    new, old = (style_of(tuned(seed, partial_lift=0.4), str(seed)) for seed in (1, 2))
    del old.model_config["partial_lift"]
    for styles in ([new, old], [old, new]):
        (mixed,) = blend(styles, [0.5, 0.5], ["1", "2"]).styles
        assert mixed.model_config["partial_lift"] == pytest.approx(0.2 + 0.5 * DrawConfig().partial_lift)
    del new.model_config["partial_lift"]
    assert "partial_lift" not in blend([new, old], [0.5, 0.5], ["1", "2"]).styles[0].model_config


def test_the_card_of_a_blend_names_its_styles_sources_and_licences():
    sources = [(Source("songs", "CC0-1.0"),), (Source("more", "CC-BY-4.0"), Source("songs", "CC0-1.0"))]
    cards = [{"licence": licence, "sources": s} for licence, s in zip(("CC0-1.0", "Apache-2.0"), sources, strict=True)]
    mixed = blend([style_of(tuned(i), f"song {i}", **card) for i, card in enumerate(cards)], [0.6, 0.4], ["rock", "strings"])
    assert mixed.card.title == "60 % rock + 40 % strings"
    assert mixed.card.licence == "CC0-1.0; Apache-2.0"
    assert [source.name for source in mixed.card.sources] == ["songs", "more"]
    assert set(mixed.styles[0].fingerprints) == {"song 0", "song 1"}  # an evaluation refuses the songs of both


def test_at_its_ends_a_blend_is_the_pure_style(files, tone):
    y = tone(0.4)
    for text, name in (("a:1,b:0", "a"), ("a:0,b:0.3", "b"), ("c", "c")):
        pure, ended = (load_style(s, half=False).transfer(y, SAMPLE_RATE, dream=1, grain=1.0) for s in (name, text))
        np.testing.assert_array_equal(pure, ended)


def test_the_way_from_one_style_to_another_has_no_jump(files, tone):
    """Also not where the rounds of Griffin–Lim, none in one style and three in the other, pass a whole number."""
    y = tone(0.6)
    way = [load_style(f"a:{1 - w},b:{w}", half=False).transfer(y, SAMPLE_RATE, grain=1.0) for w in np.linspace(0, 1, 10)]
    steps = [np.linalg.norm(b - a) for a, b in itertools.pairwise(way)]
    assert max(steps) < 0.4 * np.linalg.norm(way[-1] - way[0])
    near = load_style("a:0.66667,b:0.33333", half=False), load_style("a:0.66666,b:0.33334", half=False)
    below, above = (style.transfer(y, SAMPLE_RATE) for style in near)
    assert np.linalg.norm(above - below) < 1e-3 * np.linalg.norm(way[-1] - way[0])


def test_a_share_counts_relative_to_the_others():
    assert normalised({"a": 3, "b": 1}) == normalised({"a": 0.75, "b": 0.25})


# ------------------------------------------------------------------------------------------------------------- its dials


@pytest.mark.parametrize("dial", ["strength", "dream", "grain"])
def test_a_dial_of_a_bundled_style_leads_ever_further(dial, tone):
    """From where it starts; a blend has the dials of a style."""
    from stylestream import metrics

    style, y = load_style("rock:0.5,strings:0.5"), tone(0.5)
    positions = {"strength": (0.0, 0.3, 0.7, 1.0), "dream": (0.0, 2.5, 5.0, 8.0), "grain": (0.0, 0.4, 0.7, 1.0)}[dial]
    made = [metrics.prepare(style.transfer(y, SAMPLE_RATE, **{dial: position})) for position in positions]
    away = [metrics.log_mel_l1(made[0], m) for m in made]
    assert away == sorted(away)
    assert away[1] > 0.01


@pytest.mark.parametrize("name", ["rock", "strings", "jazz"])
def test_equal_turns_of_the_dream_are_roughly_equal_distances(name):
    from stylestream import audio, jobs, metrics

    y, _ = audio.load(jobs.BUNDLED_SONG, sample_rate=SAMPLE_RATE, mono=True, max_seconds=3.0)
    style = load_style(name)
    made = [metrics.prepare(style.transfer(y, SAMPLE_RATE, dream=dream)) for dream in (0.0, 2.0, 4.0, 6.0, 8.0)]
    turns = np.diff([metrics.log_mel_l1(made[0], m) for m in made])
    assert turns.min() > 0.25 * turns.mean()
    assert turns.max() < 2 * turns.mean()
