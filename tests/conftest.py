"""What several tests share: seeded randomness, songs, a style that needs no training, the music at $STYLESTREAM_DATA."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def collection() -> Path:
    """The folder with midi.csv, midi.tar.xz and audio.csv."""
    folder = os.environ.get("STYLESTREAM_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set STYLESTREAM_DATA to a folder with midi.csv and midi.tar.xz (docs/data.md)")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_style(tmp_path_factory) -> Path:
    """A style file of an untrained network, the smallest that has every part: what it paints is no music, but it is painted."""
    import torch

    from stylestream.draw import Draw, DrawConfig
    from stylestream.features import FeatureConfig
    from stylestream.style import Card, Source, save_style

    torch.manual_seed(0)
    config = DrawConfig(
        steps=2, view_channels=8, view_blocks=1, canvas_channels=4, encoder_channels=8, decoder_channels=8, texture_channels=8
    )
    path = tmp_path_factory.mktemp("styles") / "tiny.safetensors"
    card = Card("Tiny", licence="CC0-1.0", sources=(Source("nothing", "CC0-1.0"),))
    return save_style(path, Draw(config).state_dict(), model_config=asdict(config), feature_config=asdict(FeatureConfig()), card=card)


def _tone(seconds: float, *, hz: float = 440.0, sample_rate: int = 44100, channels: int = 2) -> np.ndarray:
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    y = sum(np.sin(2 * np.pi * hz * k * t) / k for k in range(1, 5)) * np.exp(-2 * (t % 0.5)) * 0.2
    return np.stack([y * (1 - 0.2 * c) for c in range(channels)]).astype(np.float32)


@pytest.fixture(scope="session")
def tone() -> Callable[..., np.ndarray]:
    """``tone(seconds, hz=, sample_rate=, channels=)``: a few partials that fade, (C, N); the smallest thing that sounds like music."""
    return _tone


@pytest.fixture
def song(tmp_path) -> Path:
    """A second of music as 16-bit WAV."""
    import soundfile

    soundfile.write(tmp_path / "song.wav", _tone(1.0).T, 44100, subtype="PCM_16")
    return tmp_path / "song.wav"


def _write_dataset(folder: Path, songs: Sequence[dict[str, Any]], *, shard_songs: int = 3, **described: Any) -> Path:
    """A dataset of given frames, by the format's own writer: each song a dict of ``levels`` (1 + views, T, F) uint8 and of columns."""
    import hashlib

    import pyarrow as pa
    import pyarrow.parquet as pq

    from stylestream import dataset, recipes, shards
    from stylestream.features import FeatureConfig

    (folder / "shards").mkdir(parents=True)
    rows, listed, names = [], [], dataset.index_schema().names
    rate = FeatureConfig().frames_per_second
    for number, first in enumerate(range(0, len(songs), shard_songs)):
        name, there = f"shards/{number:05d}.npz", 0
        with open(folder / name, "wb") as file:
            writer = shards.ShardWriter(file)
            for index, song in enumerate(songs[first : first + shard_songs], first):
                columns = {key: value for key, value in song.items() if key != "levels"}
                own = hashlib.sha256(str(index).encode()).hexdigest()[:16]
                row: dict[str, Any] = {name: [] if name in ("beats", "downbeats", "fingerprint", "sizes") else "" for name in names}
                row |= dict.fromkeys(("frames", "views", "offset", "bytes", "seconds", "whole_seconds"), 0)
                row |= {"song_id": own, "style": "a", "kind": "audio", "licence": "CC0-1.0", "path": f"{index}.wav"}
                row |= {"loudness_lufs": -20.0, "peak": 0.5}
                row["group_id"] = columns.get("group_id", own)
                if not columns.get("failure"):
                    coded = shards.encode(own, song["levels"])
                    row |= {"frames": coded.frames, "views": coded.views, "sizes": list(coded.sizes), "bytes": len(coded.data)}
                    row |= {"offset": writer.add(coded), "shard": name, "checksum": coded.checksum, "seconds": coded.frames / rate}
                    row |= {"whole_seconds": coded.frames / rate, "split": recipes.split_of(row["group_id"])}
                    there += 1
                rows.append(row | columns)
            writer.close()
        listed.append({"name": name, "songs": there, "bytes": writer.bytes, "sha256": writer.checksum})
    pq.write_table(pa.Table.from_pylist(rows, schema=dataset.index_schema()), folder / "index.parquet")
    failures = sum(bool(row["failure"]) for row in rows)
    styles = tuple(sorted({row["style"] for row in rows if not row["failure"]}))
    description = dataset.Description(
        features=asdict(FeatureConfig()),
        build=asdict(dataset.DatasetConfig()),
        styles=styles,
        songs=len(rows) - failures,
        failures=failures,
        shards=tuple(listed),
    )
    (folder / "dataset.json").write_text(replace(description, **described).to_json(), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def write_dataset() -> Callable[..., Path]:
    """``write_dataset(folder, songs)``: see there."""
    pytest.importorskip("pyarrow", reason="datasets need pyarrow: pip install 'stylestream[train]'")
    return _write_dataset


def _write_piece(path: Path, *, bars: int = 6, low: int = 40, drums: bool = True, steps: tuple[int, ...] = (0, 4, 7, 5)) -> Path:
    import symusic

    score: Any = symusic.Score(480)  # its stubs know less than it does
    score.tempos.append(symusic.Tempo(0, 120.0))
    tune: Any
    bass: Any
    kit: Any
    tune, bass, kit = symusic.Track("tune", 30, False), symusic.Track("bass", 33, False), symusic.Track("kit", 0, True)
    for beat in range(4 * bars):
        tune.notes.append(symusic.Note(480 * beat, 400, low + 24 + steps[beat % len(steps)], 90))
        bass.notes.append(symusic.Note(480 * beat, 470, low + (0, 7)[beat % 2], 80))
        kit.notes.append(symusic.Note(480 * beat, 100, 38, 100))
    score.tracks.extend([tune, bass, kit] if drums else [tune, bass])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(score.dumps_midi())
    return path


@pytest.fixture(scope="session")
def write_piece() -> Callable[..., Path]:
    """``write_piece(path, bars=, low=, drums=, steps=)``: a tune, a bass and a drum at 120 beats a minute, as MIDI."""
    pytest.importorskip("symusic", reason="needs the extra [midi]")
    return _write_piece


@pytest.fixture(scope="session")
def scores(tmp_path_factory, write_piece) -> Path:
    """A folder of three pieces of twelve seconds, one too short to be judged, and one that is no MIDI."""
    root = tmp_path_factory.mktemp("scores")
    for i, steps in enumerate(((0, 4, 7, 5), (0, 3, 7, 2), (0, 5, 9, 4))):
        write_piece(root / f"piece {i}.mid", low=38 + i, drums=i < 2, steps=steps)
    write_piece(root / "short.mid", bars=1)
    (root / "broken.mid").write_bytes(b"MThd nonsense")
    return root


@pytest.fixture(scope="session")
def fonts() -> None:
    """Skip where scores cannot be rendered."""
    midi = pytest.importorskip("stylestream.midi")
    try:
        midi.Synthesizer().close()
    except ValueError as error:
        pytest.skip(str(error))


@dataclass(frozen=True)
class Server:
    """A running `stylestream serve`."""

    address: str
    connections: Path  # a line for each connection that the server opened to another machine
    said: list[str]  # what it wrote to stderr
    temporary: Path  # its folder for temporary files


_START = """
import sys
from ipaddress import ip_address
def see(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
        try:
            outside = not ip_address(host).is_loopback
        except ValueError:
            outside = host != "localhost"
        if outside:
            open(sys.argv[1], "a").write(f"{host}\\n")
sys.addaudithook(see)
from stylestream import cli
cli.main(["serve", *sys.argv[2:]])
"""


@pytest.fixture(scope="session")
def drummer_style(tiny_style) -> Path:
    """The tiny style with a drum layer, beside it: one bar of four hits of one drum. Its music is said to be wide, too."""
    from dataclasses import fields

    from stylestream.drums import TICKS, DrumLayer
    from stylestream.style import update_card, update_drums, update_widths

    path = tiny_style.with_name("drummer.safetensors")
    path.write_bytes(tiny_style.read_bytes())
    wave = np.round(30000 * np.exp(-np.arange(4000) / 600) * np.cos(np.arange(4000) * 0.3))
    hits = [[beat * TICKS, 36, 100] for beat in range(4)]
    rows = {
        "samples": wave,
        "sounds": [[36, 100, 0, 4000, 0]],
        "hits": hits,
        "bars": [[0, 4, 4, 0, 4]],
        "grooves": [[12000, 0]],
        "gain": [-1000],
    }
    kinds = {"samples": np.int16, "hits": np.int16}
    layer = DrumLayer(**{field.name: np.asarray(rows[field.name], kinds.get(field.name, np.int32)) for field in fields(DrumLayer)})
    update_drums(path, layer.tensors())
    update_widths(path, (0.5,) * 9)
    return update_card(path, title="Drummer")


@pytest.fixture(scope="session")
def serve(tmp_path_factory, tiny_style, drummer_style) -> Iterator[Callable[..., Server]]:
    """``serve(*options)``: start the page on a free port of this machine. The style `tiny` is installed beside the bundled ones."""
    pytest.importorskip("gradio", reason="the page needs gradio: pip install 'stylestream[serve]'")
    running = []

    def start(*options: str) -> Server:
        connections = tmp_path_factory.mktemp("serve") / "connections"
        temporary = tmp_path_factory.mktemp("tmp")
        environment = {**os.environ, "STYLESTREAM_STYLES": str(tiny_style.parent), "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-c", _START, str(connections), "--port", "0", *options]
        child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.append(child)
        said: list[str] = []
        threading.Thread(target=lambda: said.extend(child.stderr), daemon=True).start()
        line = child.stdout.readline()
        assert line.startswith("StyleStream is at "), said
        return Server(line.split()[-1], connections, said, temporary)

    yield start
    for child in running:
        child.terminate()
    for child in running:
        child.wait(30)
        child.stdout.close()
        child.stderr.close()


@pytest.fixture(scope="session")
def server(serve) -> Server:
    """The page with the limits of the tests."""
    return serve(
        "--address-requests", "10000", "--address-jobs", "40", "--upload-mb", "60", "--song-seconds", "400", "--train-minutes", "0.15"
    )
