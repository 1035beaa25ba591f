"""The style file: what goes in comes out; whatever else is fed to it is one clear error."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from stylestream import style
from stylestream.draw import Draw, DrawConfig
from stylestream.features import FeatureConfig
from stylestream.files import whole_file
from stylestream.style import (
    Card,
    Source,
    find_style,
    install_style,
    list_styles,
    load_style_file,
    network_of,
    read_card,
    remove_style,
    save_style,
    update_card,
)

CARD = Card(
    title="Test",
    description="a style “for” tests",
    licence="CC0-1.0",
    sources=(Source("tunes", "CC0-1.0", 3, 0.25, "https://example.org"),),
    training_minutes=1.5,
    metrics={"this style": {"log-mel L1": 4.5}},
)


def write(path: Path, **changes) -> Path:
    weights = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.steps": torch.tensor(7)}
    given = {"model_config": {"k": 8}, "feature_config": {"hop_length": 512}, "card": CARD, "fingerprints": {"song": [1, 2**53]}}
    return save_style(path, weights, **{**given, **changes})


def playable(path: Path, *, model: dict[str, Any] | None = None, features: dict[str, Any] | None = None, **weights: torch.Tensor) -> Path:
    """A style that can be played, but for what is given."""
    config = DrawConfig(
        steps=2, view_channels=8, view_blocks=1, canvas_channels=4, encoder_channels=8, decoder_channels=8, texture_channels=0
    )
    settings = {"model_config": {**asdict(config), **(model or {})}, "feature_config": {**asdict(FeatureConfig()), **(features or {})}}
    return save_style(path, {**Draw(config).state_dict(), **weights}, card=CARD, **settings)


@pytest.fixture
def user_styles(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLESTREAM_STYLES", str(tmp_path / "user styles"))
    return tmp_path / "user styles"


def test_everything_saved_is_loaded_again(tmp_path):
    data = load_style_file(write(tmp_path / "one.safetensors"))
    assert torch.equal(data.weights["a.weight"], torch.arange(12.0).reshape(3, 4))
    assert data.weights["a.weight"].dtype == torch.float32
    assert data.weights["a.steps"].item() == 7
    assert data.model_config == {"k": 8}
    assert data.feature_config == {"hop_length": 512}
    assert data.card == CARD
    assert data.card.hours == 0.25
    assert data.fingerprints == {"song": [1, 2**53]}


def metadata_of(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["stylestream"])


def test_fingerprints_are_packed(tmp_path):
    hashes = {f"{i:016x}": sorted(i * 7919 + j * 2**43 for j in range(24)) for i in range(300)}
    path = write(tmp_path / "a.safetensors", fingerprints={**hashes, "no melody": []})
    assert load_style_file(path).fingerprints == {**hashes, "no melody": []}
    assert metadata_of(path)["format_version"] == 3
    assert path.stat().st_size < 300 * 230 + 2000  # as numbers 340 bytes each


@pytest.mark.parametrize("damaged", ["AAAA", "no base 64!", [1, "2"], 7, None])
def test_damaged_fingerprints_are_an_error(tmp_path, damaged):
    metadata = {"format_version": 3, "card": {"title": "a"}, "model_config": {}, "feature_config": {}, "fingerprints": {"song": damaged}}
    save_file({"w": torch.zeros(3)}, tmp_path / "a.safetensors", metadata={"stylestream": json.dumps(metadata)})
    with pytest.raises(ValueError, match="the fingerprints are damaged"):
        load_style_file(tmp_path / "a.safetensors")


def test_weights_lie_on_the_disk_in_half_precision(tmp_path):
    path = write(tmp_path / "one.safetensors")
    header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
    assert header["a.weight"]["dtype"] == "F16"


def test_equal_styles_are_equal_files(tmp_path):
    assert write(tmp_path / "a.safetensors").read_bytes() == write(tmp_path / "b.safetensors").read_bytes()


def test_saving_leaves_the_weights_as_they_were_and_no_other_file(tmp_path):
    weight = torch.tensor([1.0001])
    save_style(tmp_path / "a.safetensors", {"w": weight}, model_config={}, feature_config={}, card=CARD)
    assert weight.dtype == torch.float32
    assert weight.item() == pytest.approx(1.0001, abs=1e-7)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_card_is_changed_and_nothing_else(tmp_path):
    path, other = write(tmp_path / "a.safetensors"), write(tmp_path / "b.safetensors", card=replace(CARD, metrics={"copy": {"way": 0.0}}))
    assert path.read_bytes() != other.read_bytes()
    update_card(path, metrics={"copy": {"way": 0.0}})
    assert path.read_bytes() == other.read_bytes()
    with pytest.raises(TypeError, match="mood"):
        update_card(path, mood="blue")
    assert path.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_a_diverged_weight_is_not_saved(tmp_path, value):
    with pytest.raises(ValueError, match="not finite in float16"):
        save_style(tmp_path / "a.safetensors", {"w": torch.tensor([value])}, model_config={}, feature_config={}, card=CARD)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_file_that_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), whole_file(path) as temporary:
        temporary.write_text("half a")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_config_that_is_not_json_is_refused(tmp_path):
    with pytest.raises(ValueError, match="plain JSON"):
        write(tmp_path / "a.safetensors", model_config={"k": object()})


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, -1])
def test_a_truncated_style_is_one_clear_error(tmp_path, length):
    path = write(tmp_path / "a.safetensors")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="truncated|empty|not a style file"):
        load_style_file(path)
    with pytest.raises(ValueError, match="truncated|empty|not a style file"):
        read_card(path)


@given(data=st.binary(max_size=300))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_one_clear_error(tmp_path, data):
    path = tmp_path / "any.safetensors"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="style file"):
        load_style_file(path)


@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_one_damaged_byte_is_an_error_or_harmless(tmp_path, place, value):
    path = write(tmp_path / "any.safetensors")
    data = bytearray(path.read_bytes())
    data[place % len(data)] = value
    path.write_bytes(bytes(data))
    try:
        loaded = load_style_file(path)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert all(weight.isfinite().all() for weight in loaded.weights.values())


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the pickle ran')",))


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_pickle_is_refused_and_not_run(tmp_path, protocol):
    path = tmp_path / "evil.safetensors"
    path.write_bytes(pickle.dumps([Bomb()], protocol=protocol))
    with pytest.raises(ValueError, match="pickle"):
        load_style_file(path)


def test_a_torch_checkpoint_is_refused(tmp_path):
    torch.save({"w": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"torch\.save"):
        load_style_file(tmp_path / "model.safetensors")


@pytest.mark.parametrize("padding", range(0, 400, 8))
def test_no_header_length_is_taken_for_a_pickle(tmp_path, padding):
    path = write(tmp_path / "a.safetensors", card=Card(title="x" * padding), fingerprints={})
    assert load_style_file(path).card.title == "x" * padding


def test_a_newer_format_names_the_upgrade(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "FORMAT_VERSION", 99)
    path = write(tmp_path / "a.safetensors", fingerprints={"song": [1]})  # a file without them is of an older format
    monkeypatch.undo()
    with pytest.raises(ValueError, match="format 99.*upgrade with"):
        load_style_file(path)


def test_other_safetensors_are_not_styles(tmp_path):
    save_file({"w": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="not a style"):
        load_style_file(tmp_path / "a.safetensors")


def test_an_absurd_header_length_takes_no_memory(tmp_path):
    (tmp_path / "a.safetensors").write_bytes((2**40).to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match="not a style file"):
        load_style_file(tmp_path / "a.safetensors")


def test_a_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "a.safetensors"
    with open(path, "wb") as file:
        file.write((100).to_bytes(8, "little"))
        file.truncate(style.MAX_FILE_BYTES + 1)  # sparse: takes no disk
    with pytest.raises(ValueError, match="at most"):
        load_style_file(path)


def test_deeply_nested_json_is_an_error(tmp_path):
    text = b"[" * 100_000
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(ValueError, match="not a style file"):
        load_style_file(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "card", [{"title": 3}, {"title": "a", "sources": 3}, {"title": "a", "metrics": [1]}, {}, {"title": "a", "training_minutes": "x"}]
)
def test_a_damaged_card_is_an_error(tmp_path, card):
    metadata = {"format_version": 1, "card": card, "model_config": {}, "feature_config": {}, "fingerprints": {}}
    save_file({"w": torch.zeros(3)}, tmp_path / "a.safetensors", metadata={"stylestream": json.dumps(metadata)})
    with pytest.raises(ValueError, match="card is damaged"):
        read_card(tmp_path / "a.safetensors")


def test_a_card_of_a_later_version_may_say_more(tmp_path):
    metadata = {"format_version": 1, "card": {"title": "a", "mood": "blue"}, "model_config": {}, "feature_config": {}, "fingerprints": {}}
    save_file({"w": torch.zeros(3)}, tmp_path / "a.safetensors", metadata={"stylestream": json.dumps(metadata)})
    assert read_card(tmp_path / "a.safetensors") == Card(title="a")


def test_a_missing_path_and_a_folder_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such style file"):
        find_style(tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError, match="no such style file"):
        load_style_file(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="a folder"):
        load_style_file(tmp_path)


def test_a_style_is_found_by_path_and_by_installed_name(tmp_path, user_styles):
    path = write(tmp_path / "my blue (live) 🎸.safetensors")
    assert find_style(path) == path
    assert find_style(str(path)) == path
    playable(tmp_path / "blue.safetensors")
    assert install_style(tmp_path / "blue.safetensors") == user_styles / "blue.safetensors"
    assert find_style("blue") == user_styles / "blue.safetensors"
    assert load_style_file(find_style("blue")).card == CARD
    assert [entry.card for entry in list_styles() if entry.name == "blue"] == [CARD]
    assert remove_style("blue") == user_styles / "blue.safetensors"
    with pytest.raises(ValueError, match="unknown style 'blue'"):
        find_style("blue")


def test_a_style_folder_that_may_not_be_read_hides_no_bundled_style(monkeypatch):
    class Locked:
        def glob(self, pattern):
            raise PermissionError(13, "Permission denied", "/locked")

    monkeypatch.setattr(style, "user_folder", Locked)
    assert [entry.name for entry in style.list_styles() if entry.bundled] == [path.stem for path in BUNDLED]


def test_an_unknown_style_names_the_nearest(user_styles):
    user_styles.mkdir()
    write(user_styles / "zydeco.safetensors")
    with pytest.raises(ValueError, match="unknown style 'Zydecko'; did you mean 'zydeco'"):
        find_style("Zydecko")
    with pytest.raises(ValueError, match=r"unknown style 'qqqqqq'\. Installed: .*zydeco"):
        find_style("qqqqqq")


def test_installing_refuses_what_is_there_or_is_no_style(tmp_path, user_styles):
    path = playable(tmp_path / "blue.safetensors")
    install_style(path)
    with pytest.raises(FileExistsError, match="--force"):
        install_style(path)
    install_style(path, force=True)
    (tmp_path / "text.safetensors").write_text("hello, I am a text")
    with pytest.raises(ValueError, match="not a style file"):
        install_style(tmp_path / "text.safetensors")
    with pytest.raises(ValueError, match="cannot be a style's name"):
        install_style(playable(tmp_path / "my (blue).safetensors"))
    for name in ("take.wav", "take.MID"):
        with pytest.raises(ValueError, match="would be taken for a recording, not for a style; rename the file"):
            install_style(playable(tmp_path / f"{name}.safetensors"))
    assert [p.name for p in user_styles.iterdir()] == ["blue.safetensors"]


HOSTILE_FEATURES = [
    *({"n_fft_high": 2**40}, {"n_fft_low": 0}, {"decimation": 0}, {"bins_per_octave": 0}, {"crossover_low_hz": 0}, {"n_bins": 36}),
    *({"sample_rate": 1}, {"sample_rate": -5}, {"hop_length": 0}, {"hop_length": 7}, {"floor_db": 1e30}),
]
HOSTILE_MODELS = [
    *({"view_blocks": 10**7}, {"view_blocks": -1}, {"phase_iterations": 1e12}, {"phase_iterations": -1}, {"grain_power": 1e9}),
    *({"scale_db": 0.0}, {"range_db": -90.0}, {"texture_scale_db": 0.0}, {"beta": 1e300}, {"partial_lift": 1e9}, {"mix_groups": 0}),
    *({"glimpse": 1}, {"window_frames": 0}, {"patch_frames": 0}, {"patch_bins": -6}, {"styles": 0}, {"style_dim": 10**30}),
    *({"texture_blocks": 10**7, "texture_channels": 1}, {"steps": 0}, {"steps": 65}, {"n_bins": 10**12}),
]


@pytest.mark.parametrize("features", HOSTILE_FEATURES, ids=str)
def test_a_style_of_other_frames_is_not_installed(tmp_path, user_styles, features):
    with pytest.raises(ValueError, match="its frames are not those of this StyleStream; get a style file of this version") as error:
        install_style(playable(tmp_path / "a.safetensors", features=features))
    assert "\n" not in str(error.value)
    assert not user_styles.exists()


@pytest.mark.parametrize("model", HOSTILE_MODELS, ids=str)
def test_a_style_that_would_never_end_is_not_installed(tmp_path, user_styles, model):
    with pytest.raises(ValueError, match=r"get the style file again") as error:
        install_style(playable(tmp_path / "a.safetensors", model=model))
    assert "\n" not in str(error.value)
    assert not user_styles.exists()


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.uint16, torch.int64, torch.complex64], ids=str)
def test_weights_are_numbers_with_a_fraction(tmp_path, user_styles, kind):
    with pytest.raises(ValueError, match=r"mean_frames.*get the style file again") as error:
        install_style(playable(tmp_path / "a.safetensors", mean_frames=torch.ones(1, 324).to(kind)))
    assert "\n" not in str(error.value)
    assert not user_styles.exists()


def test_a_playable_style_is_installed_and_plays(tmp_path, user_styles):
    assert network_of(load_style_file(install_style(playable(tmp_path / "a.safetensors"))), "a").config.steps == 2


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "", ".", "nothing-of-this-name"])
def test_removing_never_leaves_the_style_folder(tmp_path, user_styles, name):
    write(tmp_path / "evil.safetensors")
    with pytest.raises(ValueError, match="unknown style"):
        remove_style(name)
    assert (tmp_path / "evil.safetensors").exists()


def test_a_broken_style_is_listed_with_its_problem(user_styles):
    user_styles.mkdir()
    (user_styles / "broken.safetensors").write_bytes(b"")
    entry = next(entry for entry in list_styles() if entry.name == "broken")
    assert entry.card is None
    assert "empty" in entry.problem


def test_listing_styles_imports_no_torch():
    code = "import sys, stylestream.style as s; s.list_styles(); sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


BUNDLED = sorted(style.bundled_folder().glob("*.safetensors"))


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.stem)
def test_a_bundled_style_is_small_and_says_where_it_comes_from(path):
    data = load_style_file(path)
    assert path.stat().st_size <= 4 * 2**20
    assert data.card.title
    assert data.card.description
    assert data.card.licence
    assert data.card.hours > 0
    # how long and on what: minutes alone say nothing, a data-centre GPU sees a hundred times the music that two cores see in one
    assert data.card.training_minutes > 0
    assert data.card.training_steps > 0
    assert data.card.training_device
    assert data.card.intended_use
    assert data.card.limits
    assert "its drums play" in data.card.description or not data.drums
    assert {"copy", "equalise", "plain", "lstm2017", path.stem, "ceiling"} <= set(data.card.metrics)  # of `evaluate --card`
    assert data.fingerprints
    for source in data.card.sources:
        assert source.name
        assert not any(word in source.licence + source.name for word in ("NC", "unknown", "POP909"))
        # of GPL sources only what was generated with them may be in weights
        assert "GPL" not in source.licence or source.licence.startswith("generated")


def test_all_bundled_styles_together_are_small():
    assert sum(path.stat().st_size for path in BUNDLED) <= 40 * 2**20
