"""The dataset's format: what NumPy reads of it, what it costs, and how it is read at an address."""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stylestream import corpus, dataset, shards
from stylestream.dataset import Dataset
from stylestream.features import FeatureConfig

BINS = FeatureConfig().n_bins
FORMATS = (Path(__file__).parent.parent / "docs" / "formats.md").read_text(encoding="utf-8")


def some_levels(rng: np.random.Generator, frames: int, *, views: int = 0) -> np.ndarray:
    """Something that changes slowly, as music does: (1 + views, T, F) uint8."""
    steps = rng.integers(-2, 3, (1 + views, frames, BINS))
    return (40 + steps.cumsum(1)).clip(0, 95).astype(np.uint8)


def shard_of(*songs: tuple[str, np.ndarray]) -> tuple[bytes, list[tuple[int, shards.EncodedSong]]]:
    file = io.BytesIO()
    writer = shards.ShardWriter(file)
    placed = []
    for name, roles in songs:
        encoded = shards.encode(name, list(roles))
        placed.append((writer.add(encoded), encoded))
    writer.close()
    return file.getvalue(), placed


# --- shards ----------------------------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    roles=st.tuples(st.integers(1, 3), st.integers(1, 200)).flatmap(lambda shape: arrays(np.uint8, (*shape, 5))),
)
def test_numpy_reads_back_any_frames_that_are_written(roles):
    data, [(offset, encoded)] = shard_of(("0123456789abcdef", roles))
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        for view, levels in enumerate(roles):
            parts = [archive[name] for name in archive.files if name.startswith(f"0123456789abcdef/{view}/")]
            assert np.array_equal(np.concatenate([np.cumsum(part, axis=0, dtype=np.uint8) for part in parts]), levels)
    song = data[offset : offset + len(encoded.data)]
    assert np.array_equal(shards.decode(song, encoded.sizes, bins=5).reshape(roles.shape), roles)


def test_a_shard_is_a_whole_zip_file_and_the_same_songs_are_the_same_bytes(rng):
    songs = [(f"{i:016x}", some_levels(rng, frames, views=i % 2)) for i, frames in enumerate((200, 1, 64, 65))]
    data, placed = shard_of(*songs)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None  # every checksum
        assert len(archive.namelist()) == sum(len(encoded.sizes) for _, encoded in placed) == 4 + 2 + 1 + 4
    assert shard_of(*songs)[0] == data
    for offset, encoded in placed:
        assert data[offset : offset + len(encoded.data)] == encoded.data


def test_members_beyond_four_gibibytes_are_found(rng):
    encoded = shards.encode("0123456789abcdef", list(some_levels(rng, 10)))
    hole = 5 * 2**30
    (entry,) = shards._central_headers(encoded, hole)
    tail = encoded.data + entry + shards._end(1, hole + len(encoded.data), len(entry))

    class Sparse(io.RawIOBase):
        """The song at five gibibytes, and nothing before it."""

        place = 0

        def seekable(self) -> bool:
            return True

        def seek(self, offset: int, whence: int = 0) -> int:
            self.place = offset + (0, self.place, hole + len(tail))[whence]
            return self.place

        def tell(self) -> int:
            return self.place

        def read(self, size: int = -1) -> bytes:
            start = self.place - hole
            assert start >= 0
            data = tail[start:] if size < 0 else tail[start : start + size]
            self.place += len(data)
            return data

    with zipfile.ZipFile(Sparse()) as archive:  # type: ignore[arg-type]
        assert archive.testzip() is None


@pytest.mark.parametrize("cut", [0, 1, 70, 200])
def test_bytes_that_are_cut_short_or_changed_are_said_to_be(rng, cut):
    _, [(_, encoded)] = shard_of(("0123456789abcdef", some_levels(rng, 64)))
    with pytest.raises(ValueError, match="damaged"):
        shards.decode(encoded.data[:cut], encoded.sizes, bins=BINS)
    with pytest.raises(ValueError, match="damaged"):
        shards.decode(bytes(len(encoded.data)), encoded.sizes, bins=BINS)


def test_the_first_frames_of_members_are_unpacked_alone(rng):
    levels = some_levels(rng, 150)
    _, [(_, encoded)] = shard_of(("0123456789abcdef", levels))
    for frames in (1, 63, 64, 65, 127, 129, 150):
        members = shards.chunks_of(frames)
        first = shards.decode(encoded.data, encoded.sizes[:members], bins=BINS, frames=frames)
        assert np.array_equal(first, levels[0][:frames])
    with pytest.raises(ValueError, match="cut short"):
        shards.decode(encoded.data, encoded.sizes, bins=BINS, frames=151)  # the last member has 22 frames


# --- the reader ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory, write_dataset) -> tuple[Path, list[np.ndarray]]:
    rng = np.random.default_rng(1)
    songs = [some_levels(rng, frames, views=views) for frames, views in ((300, 2), (64, 0), (1, 0), (129, 2))]
    columns: list[dict[str, Any]] = [{"levels": levels, "style": "rock" if i % 2 else "jazz"} for i, levels in enumerate(songs)]
    columns[0] |= {"beats": [0.0, 0.5, 1.0], "downbeats": [0.0], "split": "train"}
    columns.append({"levels": songs[0], "failure": "it is silent"})
    return write_dataset(tmp_path_factory.mktemp("data") / "DATA", columns), songs


def test_any_crop_of_any_view_is_read(built, rng):
    folder, songs = built
    data = Dataset(folder)
    assert len(data) == 4
    assert data.index.num_rows == 5
    for _ in range(100):
        song = int(rng.integers(4))
        view, first = int(rng.integers(len(songs[song]))), int(rng.integers(songs[song].shape[1]))
        count = int(rng.integers(songs[song].shape[1] - first + 1))
        wanted = songs[song][view, first : first + count]
        assert np.array_equal(data.read_levels(song, first, count, view=view), wanted)
        x = data.read(song, first, count, view=view)
        assert x.dtype == np.float32
        assert np.allclose(x * 90, wanted.T, atol=1e-4)


def test_the_reader_says_what_there_is_not(built):
    data = Dataset(built[0])
    song = data.songs["song_id"][1].as_py()
    assert data.frames(song) == 64
    for call, message in (
        (lambda: data.read("nobody"), "no song 'nobody'"),
        (lambda: data.read(4), "no song 4; there are 4"),
        (lambda: data.read(song, 1, 64), "frames 1 to 65 of a song that has 64"),
        (lambda: data.read(song, -1, 4), "frames -1 to 3"),
        (lambda: data.read(song, view=1), r"view 1 of a song that has 0 beside itself"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_the_three_lines_of_the_documentation_read_a_song_without_stylestream(built):
    folder, songs = built
    lines = next(block for block in re.findall(r"```python\n(.*?)```", FORMATS, re.DOTALL) if "np.cumsum" in block)
    code = [line for line in lines.splitlines() if line.strip()]
    assert len(code) == 3
    row = SimpleNamespace(**Dataset(folder).songs.slice(3, 1).to_pylist()[0])
    scope = {"np": np, "DATA": folder, "row": row}
    exec("\n".join(code), scope)
    assert np.array_equal(scope["levels_db"], songs[3][0] - 90.0)


def test_the_documentation_says_where_a_member_lies(built):
    folder, songs = built
    assert "begins at `offset + 60 * (i + 1) + sum(sizes[:i])`" in FORMATS
    row = Dataset(folder).songs.slice(0, 1).to_pylist()[0]
    data = (folder / row["shard"]).read_bytes()
    i = 7  # of the first song's fifteen members the third of view 1
    begin = row["offset"] + 60 * (i + 1) + sum(row["sizes"][:i])
    member = shards._decode_member(data[begin : begin + row["sizes"][i]], row["sizes"][i], BINS)
    assert np.array_equal(member, songs[0][1, 128:192])


def test_the_documentation_names_every_column_and_every_key(built):
    for name in dataset.index_schema().names:
        assert re.search(rf"\|[^|]*`{name}`[^|]*\|", FORMATS), name
    for key in json.loads((built[0] / "dataset.json").read_text()):
        assert f"`{key}`" in FORMATS, key


def test_a_dataset_is_read_at_an_address_as_in_a_folder(built):
    fsspec = pytest.importorskip("fsspec", reason="addresses need fsspec: pip install 'stylestream[train]'")
    folder, songs = built
    there = fsspec.filesystem("memory")
    there.put(str(folder), "/bucket/DATA", recursive=True)
    try:
        data = Dataset("memory://bucket/DATA")
        assert np.array_equal(data.read_levels(0, 100, 64, view=2), songs[0][2, 100:164])
        with pytest.raises(FileNotFoundError, match="memory://bucket/OTHER: no dataset there; make one with"):
            Dataset("memory://bucket/OTHER")
    finally:
        there.rm("/bucket", recursive=True)


def test_an_open_dataset_can_be_sent_to_another_process(built):
    data = Dataset(built[0])
    data.read(0)  # with files open
    again = pickle.loads(pickle.dumps(data))
    assert np.array_equal(again.read(0), data.read(0))
    assert repr(again) == f"Dataset({str(built[0])!r}: 4 songs of 2 styles)"


def test_beats_become_phase_and_a_split_becomes_a_store(built):
    folder, songs = built
    data = Dataset(folder)
    phase = data.phase(0)
    assert phase.shape == (4, 300)
    assert phase[:, round(0.25 * 44100 / 512)][1] == pytest.approx(-1, abs=0.05)  # half a beat is half a turn
    assert not data.phase(1).any()
    store = data.frame_store(["jazz", "rock"], split="train")
    assert {name for name, *_ in store.songs} == {
        row["song_id"] for row in data.songs.select(["song_id", "split"]).to_pylist() if row["split"] == "train"
    }
    first = next(song for song in store.songs if song[0] == data.songs["song_id"][0].as_py())
    kept = store.frames[2, first[2] : first[2] + first[3]].float() / corpus.LEVELS * 90
    assert np.abs(kept.numpy() - songs[0][2]).max() <= 0.5 * 90 / corpus.LEVELS + 1e-5
    with pytest.raises(ValueError, match=r"the dataset: no songs of blues \(train\)"):
        data.frame_store(["blues"])


# --- what is no dataset ----------------------------------------------------------------------------------------------------------------


def changed(built: tuple[Path, list[np.ndarray]], to: Path, **entries: object) -> Path:
    import shutil

    shutil.copytree(built[0], to)
    text = json.loads((to / "dataset.json").read_text()) | entries
    (to / "dataset.json").write_text(json.dumps({key: value for key, value in text.items() if value is not None}))
    return to


def test_a_dataset_of_another_version_is_refused_with_the_remedy(built, tmp_path):
    with pytest.raises(ValueError, match=r"format 2, and this StyleStream reads format 1; upgrade with pip install -U stylestream"):
        Dataset(changed(built, tmp_path / "newer", format_version=2))
    with pytest.raises(ValueError, match="format 0, and this StyleStream reads format 1; build it again"):
        Dataset(changed(built, tmp_path / "older", format_version=0))
    assert len(Dataset(changed(built, tmp_path / "more", something_new=1))) == 4
    with pytest.raises(ValueError, match=r"its dataset\.json lacks something \(.*'styles'\); build it again"):
        Dataset(changed(built, tmp_path / "less", styles=None))


def test_what_is_no_dataset_is_said(built, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no dataset there; make one with `stylestream dataset build SOURCE -o DATA`"):
        Dataset(tmp_path)
    (tmp_path / "dataset.json").write_text("[]")
    with pytest.raises(ValueError, match=r"its dataset\.json is damaged or not StyleStream's"):
        Dataset(tmp_path)
    (tmp_path / "build.json").write_text("{}")
    with pytest.raises(ValueError, match="a dataset that is not finished; run its `stylestream dataset build` again"):
        Dataset(tmp_path)
    broken = changed(built, tmp_path / "broken")
    (broken / "index.parquet").write_bytes((broken / "index.parquet").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"its index\.parquet is damaged"):
        Dataset(broken)


def test_a_shard_that_is_cut_short_is_an_error_that_names_song_and_shard(built, tmp_path):
    folder = changed(built, tmp_path / "short")
    first = Dataset(folder).songs.slice(0, 1).to_pylist()[0]
    shard = folder / first["shard"]
    shard.write_bytes(shard.read_bytes()[: first["offset"] + 5000])
    data = Dataset(folder)
    with pytest.raises(ValueError, match=rf"{first['shard']}, song {first['song_id']}: .*damaged.*see `stylestream dataset verify`"):
        data.read(0)
