"""The recipes of docs/dataset.md, run one after another as a reader would."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "dataset.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PACKAGES = ("pandas", "polars", "datasets")


@pytest.fixture(scope="module")
def place(tmp_path_factory, write_dataset, rng_of_module) -> Path:
    """A folder with a dataset in it: twelve songs, two of them of one tune, one that failed."""
    tune = list(range(10, 34))
    songs: list[dict[str, Any]] = [
        {
            "levels": rng_of_module.integers(0, 80, (1 + k % 2, 400, 324)).astype(np.uint8),
            "style": "ab"[k % 2],
            "licence": ("CC0-1.0", "CC-BY-NC-4.0")[k % 3 == 0],
            "kind": "midi",
            "fingerprint": tune if k in (3, 8) else [1000 * (k + 1) + j for j in range(24)],
            "split": "train",
        }
        for k in range(12)
    ]
    folder = tmp_path_factory.mktemp("recipes")
    write_dataset(folder / "DATA", [*songs, {"failure": "it is silent"}])
    return folder


@pytest.fixture(scope="module")
def rng_of_module() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    """The names that the blocks before left behind, as in a notebook."""
    return {}


def run(block: str, names: dict[str, Any]) -> None:
    exec(compile(block, "docs/dataset.md", "exec"), names)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_recipe_runs(place, said, monkeypatch, number):
    block = BLOCKS[number]
    for package in PACKAGES:
        if re.search(rf"^import {package}\b", block, re.MULTILINE):
            pytest.importorskip(package, reason=f"this recipe is for {package}: pip install 'stylestream[dev]'")
    monkeypatch.chdir(place)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(place / "huggingface"))
    if "stream" in block and "datasets." in block and "datasets" not in said:
        pytest.skip("the recipe before was skipped")
    run(block, said)
    check(block, said)


def check(block: str, said: dict[str, Any]) -> None:
    """What the page promises of a block's results."""
    data = said["data"]
    if "x = data.read(song" in block:
        assert (said["x"].shape, said["x"].dtype) == ((324, 64), np.float32)
    if "crops.loader(16)" in block:
        assert said["batch"]["view"].shape == said["batch"]["target"].shape == (12, 324, 64)
    if "licence_allowed" in block:
        assert len(said["free"]) == 8
        assert {data.songs["licence"][int(row)].as_py() for row in said["crops"].plan(range(200))["song"]} == {"CC0-1.0"}
    if "read_parquet" in block:
        assert len(said["songs"]) == 12
        assert len(said["loud"]) == 5
    if "scan_parquet" in block:
        tune = sorted((data.songs["song_id"][3].as_py(), data.songs["song_id"][8].as_py()))
        assert said["shared"].select("song_id", "song_id_other", "hashes").rows() == [(*tune, 24)]
    if "with_transform" in block:
        np.testing.assert_array_equal(said["x"], data.read(0, 0, 64))
    if "from_generator" in block:
        assert np.asarray(said["x"]).shape == (324, 256)
    if "savefig" in block:
        assert Path("song.png").read_bytes()[:4] == b"\x89PNG"


def test_the_page_has_a_recipe_for_each_package():
    assert len(BLOCKS) >= 8
    assert all(any(re.search(rf"^import {package}\b", block, re.MULTILINE) for block in BLOCKS) for package in PACKAGES)
