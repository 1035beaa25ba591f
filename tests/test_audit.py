"""What a dataset is said to hold, and that no fault in it goes unnoticed: every byte is turned over."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow", reason="datasets need pyarrow: pip install 'stylestream[train]'")

import pyarrow.parquet as pq  # noqa: E402

from stylestream import audit, cli, shards  # noqa: E402
from stylestream.dataset import Dataset  # noqa: E402


@pytest.fixture
def folder(tmp_path, rng, write_dataset) -> Path:
    """Seven songs of two styles in three shards, one piece in two versions, two failures."""

    def levels(frames: int, views: int = 0):
        return rng.integers(0, 80, (1 + views, frames, 324)).astype(np.uint8)

    songs = [
        {"levels": levels(130 + 64 * k, k % 2), "style": "ab"[k % 2], "licence": "CC0-1.0", "loudness_lufs": -3.0 * k} for k in range(7)
    ]
    songs[6] |= {"group_id": "5feceb66ffc86f38", "warning": "truncated"}  # the id of the first
    songs[3:3] = [{"failure": "the same bytes as a/0.wav"}]
    songs[5:5] = [{"failure": "2.5 s long; at least 4 s are needed"}]
    return write_dataset(tmp_path / "data", songs)


def faults(folder: Path, **how) -> list[str]:
    return [str(fault) for fault in audit.verify(Dataset(folder), **how)]


def rewritten(folder: Path, **changes) -> None:
    """The index with some values changed: column={row: value}."""
    rows = pq.read_table(folder / "index.parquet").to_pylist()
    for column, values in changes.items():
        for row, value in values.items():
            rows[row][column] = value
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(folder / "index.parquet")), folder / "index.parquet")


def described(folder: Path, **changes) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def song(folder: Path, row: int) -> dict:
    return pq.read_table(folder / "index.parquet").to_pylist()[row]


# ----------------------------------------------------------------------------------------------------------------- verify


@pytest.mark.parametrize("jobs", [1, 2])
def test_nothing_is_wrong_with_a_whole_dataset(folder, jobs):
    seen = []
    assert faults(folder, jobs=jobs, progress=lambda done, total, name: seen.append((done, total))) == []
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_one_flipped_bit_anywhere_in_a_shard_is_found(folder, rng):
    path = folder / "shards" / "00001.npz"
    whole = path.read_bytes()
    songs = [song(folder, row) for row in range(9) if song(folder, row)["shard"] == "shards/00001.npz"]
    for place in [0, len(whole) - 1, *rng.integers(0, len(whole), 60).tolist()]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        said = faults(folder)
        hit = [row for row in songs if row["offset"] <= place < row["offset"] + row["bytes"]]
        assert len(said) == 1, (place, said)
        assert said[0].startswith("shards/00001.npz"), said
        assert "checksum" in said[0]
        for row in hit:
            assert f"song {row['song_id']} ({row['path']})" in said[0], said


def test_a_half_written_shard_is_named_with_its_songs(folder):
    path = folder / "shards" / "00000.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    said = faults(folder)
    assert (
        said[0]
        == f"shards/00000.npz: it has {len(whole) // 2:,} bytes and {len(whole):,} were written: half-written, or cut short by a copy"
    )
    assert any(song(folder, 2)["song_id"] in line and "bytes are there" in line for line in said[1:])


def test_a_missing_shard_and_a_stranger_are_named(folder):
    (folder / "shards" / "00002.npz").rename(folder / "shards" / "copy of 2.npz")
    assert faults(folder) == ["shards/00002.npz: the file is missing", "shards/copy of 2.npz: no shard of this dataset; remove it"]


def test_a_song_whose_checksum_was_forged_with_its_bytes_is_found_by_its_members(folder):
    """Somebody changed a song and its checksums in the index: the zip still knows."""
    import hashlib

    row, path = song(folder, 0), folder / "shards" / "00000.npz"
    content = bytearray(path.read_bytes())
    content[row["offset"] + shards.MEMBER_OVERHEAD + 300] ^= 255
    path.write_bytes(content)
    rewritten(folder, checksum={0: hashlib.sha256(content[row["offset"] : row["offset"] + row["bytes"]]).hexdigest()})
    assert any(re.search(rf"song {row['song_id']} .*view 0, frames from 0: it", line) for line in faults(folder))


def test_a_directory_that_lies_is_found(folder):
    import hashlib

    path = folder / "shards" / "00000.npz"
    content = bytearray(path.read_bytes())
    content[content.rindex(b"/0000000.npy") + 3] = ord("7")  # a name in the directory
    path.write_bytes(content)
    about = json.loads((folder / "dataset.json").read_text())["shards"]
    about[0]["sha256"] = hashlib.sha256(content).hexdigest()
    described(folder, shards=about)
    assert faults(folder) == ["shards/00000.npz: its directory and the index have different members"]


def test_a_group_in_two_splits_is_named(folder):
    others = {"train": "test", "test": "train", "valid": "train"}
    rewritten(folder, split={0: others[song(folder, 0)["split"]]})
    said = faults(folder)
    assert len(said) == 1
    assert "its group 5feceb66ffc86f38 is in 2 splits" in said[0]


def test_a_song_in_a_split_that_its_group_does_not_belong_to_is_named(folder):
    rewritten(folder, split={1: "holdout"})
    assert ["it is in the split 'holdout'" in line and song(folder, 1)["song_id"] in line for line in faults(folder)] == [True]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frames": {0: 131}}, "shape"),
        ({"frames": {0: 4000}}, "its frames and views need 63"),
        ({"views": {0: 3}}, "its frames and views need 12"),
        ({"bytes": {0: 17}}, "are not the sum of its members'"),
        ({"offset": {1: 0}}, "overlap the song before"),
        ({"offset": {0: 10**12}}, "only 0 of its"),
        ({"seconds": {0: 99.0}}, "99.00 s are not 130 frames"),
        ({"song_id": {0: "../../etc/passwd"}}, "not 16 hexadecimal digits"),
        ({"song_id": {1: "5feceb66ffc86f38"}}, "its id is in the index 2 times"),
        ({"shard": {0: "shards/99999.npz"}}, "its shard is not one of dataset.json's"),
        ({"style": {0: "c"}}, "name different styles"),
        ({"failure": {0: "gone"}}, "dataset.json has 7 songs and 2 failures, the index 6 and 3"),
        ({"checksum": {0: "0" * 64}}, "checksum"),
    ],
)
def test_an_index_that_is_wrong_is_found(folder, changes, words):
    rewritten(folder, **changes)
    assert any(words in line for line in faults(folder)), faults(folder)


def test_an_index_that_is_damaged_is_one_line(folder):
    path = folder / "index.parquet"
    content = path.read_bytes()
    for damaged in (content[:-20], b"PAR1", b"", content[:200] + bytes(100) + content[300:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"index\.parquet is damaged"):
            faults(folder)


def test_one_flipped_bit_in_the_index_is_found(folder, rng):
    import hashlib

    path = folder / "index.parquet"
    content = bytearray(path.read_bytes())
    described(folder, index_sha256=hashlib.sha256(content).hexdigest())
    assert faults(folder) == []
    for place in rng.integers(0, len(content), 20).tolist():
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        try:
            assert "bytes of index.parquet are not those that were written (checksum)" in faults(folder)
        except ValueError as error:
            assert "index.parquet is damaged" in str(error)


def test_an_index_with_holes_or_of_other_types_is_one_line(folder):
    rewritten(folder, frames={0: None})
    with pytest.raises(ValueError, match=r"no value in frames"):
        Dataset(folder)
    table = pq.read_table(folder / "index.parquet").drop_columns("sizes")
    pq.write_table(table.append_column("sizes", pa.array(["many"] * len(table))), folder / "index.parquet")
    with pytest.raises(ValueError, match=r"index\.parquet is damaged"):
        Dataset(folder)


def test_what_is_read_at_an_address_is_verified_too(folder):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            memory.pipe_file(f"/audit-test/{path.relative_to(folder).as_posix()}", path.read_bytes())
    try:
        assert list(audit.verify(Dataset("memory://audit-test"))) == []
        memory.pipe_file("/audit-test/shards/00001.npz", b"")
        assert "shards/00001.npz: it has 0 bytes" in str(next(audit.verify(Dataset("memory://audit-test"))))
    finally:
        memory.rm("/audit-test", recursive=True)


def test_sound_that_was_kept_and_is_gone_is_named(folder):
    described(folder, build={"keep_audio": "flac"})
    said = faults(folder)
    assert len(said) == 7
    assert f"song {song(folder, 0)['song_id']} (0.wav): its sound (audio/{song(folder, 0)['song_id']}.flac) is missing" == said[0]


# ------------------------------------------------------------------------------------------------------------------- info


def test_what_is_in_a_dataset_adds_up(folder):
    summary = audit.summarise(Dataset(folder))
    frames = sum(130 + 64 * k for k in range(7))
    assert (summary.songs, summary.failed, summary.groups, summary.repeated, summary.warnings) == (7, 2, 6, 2, 1)
    assert summary.seconds == pytest.approx(frames * 512 / 44_100, abs=0.02)
    assert summary.bytes == sum(path.stat().st_size for path in (folder / "shards").iterdir())
    assert summary.views == {0: 4, 1: 3}
    assert summary.failures == {"the same bytes as …": 1, "… s long; at least … s are needed": 1}
    assert summary.stored_seconds == pytest.approx((frames + sum(130 + 64 * k for k in (1, 3, 5))) * 512 / 44_100, abs=0.02)
    for shares in (summary.licences, summary.kinds, summary.splits, summary.sources):
        assert sum(share.songs for share in shares.values()) == 7
        assert sum(share.seconds for share in shares.values()) == pytest.approx(summary.seconds, abs=0.05)
    assert {style: sum(share.songs for share in parts.values()) for style, parts in summary.styles.items()} == {"a": 4, "b": 3}
    assert sum(summary.length_histogram) == sum(summary.level_histogram) == 7
    assert summary.length_histogram[:3] == (5, 2, 0)
    json.dumps(summary.to_json(), allow_nan=False)


def test_values_beyond_the_edges_count_in_the_outer_bins():
    assert audit._histogram(np.array([-70.0, -60.0, -1.0, 5.0, np.nan]), (-60, -3, 0)) == (3, 1, 1)


def test_mean_spectra_are_those_of_each_style(folder):
    spectra = audit.mean_spectra(Dataset(folder))
    assert sorted(spectra) == ["a", "b"]
    assert spectra["a"].shape == (324,)
    assert spectra["a"].mean() == pytest.approx(39.5 / 90, abs=0.01)


# -------------------------------------------------------------------------------------------------------------- the verbs


def run(capsys, *arguments) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["dataset", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return int(exit_.value.code or 0), out, err


def test_info_prints_totals_and_draws_a_picture(folder, capsys, tmp_path):
    picture = tmp_path / "data.png"
    code, out, _ = run(capsys, "info", folder, "--picture", picture)
    assert code == 0
    assert out.startswith(f"{folder}: 7 songs, ")
    assert re.search(r"^a +4 ", out, re.MULTILINE)
    assert "failed because\n" in out
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    code, _, err = run(capsys, "info", folder, "--picture", picture)
    assert code == 2
    assert "use --force" in err


def test_info_as_json_says_the_same(folder, capsys):
    code, out, _ = run(capsys, "info", folder, "--json")
    told = json.loads(out)
    assert (code, told["songs"], told["failed"], told["styles"]["a"]["train"]["songs"] >= 0) == (0, 7, 2, True)


def test_verify_says_whole_or_names_the_fault_and_fails(folder, capsys):
    code, out, err = run(capsys, "verify", folder, "-j", 1)
    assert (code, err) == (0, "")
    assert re.fullmatch(r".*: whole: 7 songs in 3 shards, [\d.]+ MB read\n", out)
    path = folder / "shards" / "00000.npz"
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    code, out, err = run(capsys, "verify", folder, "-j", 1)
    assert code == 1
    assert song(folder, 0)["song_id"] in out
    assert "1 fault" in err
    code, out, _ = run(capsys, "verify", folder, "-j", 1, "--json")
    assert code == 1
    assert json.loads(out)["faults"][0]["song"] == song(folder, 0)["song_id"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: described(folder, format_version=99), "a dataset of format 99, and this StyleStream reads format 1; upgrade"),
        (lambda folder: described(folder, format_version=0), "a dataset of format 0, and this StyleStream reads format 1; build it again"),
        (lambda folder: (folder / "dataset.json").write_text("{"), "is damaged or not StyleStream's"),
        (lambda folder: (folder / "dataset.json").unlink(), "no dataset there"),
        (lambda folder: (folder / "build.json").write_text("{}"), "is not finished"),
    ],
    ids=["newer", "older", "not JSON", "none", "half built"],
)
@pytest.mark.parametrize("verb", ["info", "verify"])
def test_another_version_or_half_a_dataset_is_one_clear_line(folder, capsys, verb, change, words):
    change(folder)
    code, out, err = run(capsys, verb, folder)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert words in err
