"""The API of the page: what it promises to programs, and what strangers cannot do to it."""

from __future__ import annotations

import base64
import gc
import io
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("gradio", reason="the page needs gradio: pip install 'stylestream[serve]'")

import httpx
from starlette.testclient import TestClient

from stylestream import audio, cli, jobs, uploads
from stylestream import serve as page
from stylestream.serve import Settings, create_app
from stylestream.style import read_card
from stylestream.tags import Tags
from stylestream.tags import picture as tags_picture
from stylestream.transfer import load_style, transfer_file
from stylestream.uploads import Limits, Refused, clean_name, decode

LAMPLIGHT = jobs.BUNDLED_SONG


@pytest.fixture(scope="module")
def api(server):
    with httpx.Client(base_url=server.address, timeout=120) as client:
        yield client


@pytest.fixture
def app(tmp_path, tiny_style, monkeypatch):
    """``app(**settings)``: a client of an application in this process, without Gradio."""
    monkeypatch.setenv("STYLESTREAM_STYLES", str(tiny_style.parent))
    clients: list[TestClient] = []

    def start(limits: Limits = Limits(), **settings) -> TestClient:  # noqa: B008
        folder = tmp_path / f"root{len(clients)}"
        client = TestClient(create_app(Settings(limits=limits, **settings), folder=folder, gradio=False), raise_server_exceptions=False)
        clients.append(client.__enter__())
        return client

    yield start
    for client in clients:
        client.__exit__(None, None, None)


def wav(y: np.ndarray, sample_rate: int = 44100, subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, y.T, sample_rate, format="WAV", subtype=subtype)
    return buffer.getvalue()


def finished(client, job: str) -> dict:
    """Follow a job's events to the end."""
    with client.stream("GET", f"/jobs/{job}/events") as answer:
        views = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    return views[-1]


# ------------------------------------------------------------------------------------------------------------- a song, played


def test_a_song_is_sent_and_comes_back_in_the_style_as_transfer_file_makes_it(api, tone, tmp_path, tiny_style):
    song = wav(tone(9.0))
    answer = api.post("/transfer", params={"style": "tiny", "name": "waltz.wav", "strength": 0.8, "seed": 3}, content=song)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-disposition"] == 'attachment; filename="waltz-tiny.wav"'
    (tmp_path / "waltz.wav").write_bytes(song)
    transfer_file(load_style(tiny_style), tmp_path / "waltz.wav", tmp_path / "expected.wav", strength=0.8, seed=3)
    y, sample_rate = soundfile.read(io.BytesIO(answer.content))
    expected, _ = soundfile.read(tmp_path / "expected.wav")
    assert (y.shape, sample_rate) == (expected.shape, 44100)
    np.testing.assert_allclose(y, expected, atol=2e-3)  # chunks of other lengths, on threads; and 16 bits


@pytest.mark.parametrize("format", ["wav", "flac", "mp3"])
def test_a_result_can_be_had_in_every_format(api, tone, format):
    song = 0.3 * tone(3.0, sample_rate=48000)
    answer = api.post("/transfer", params={"style": "tiny", "format": format}, content=wav(song, 48000))
    assert answer.headers["content-type"] == page.MEDIA_TYPES[format]
    y, sample_rate = soundfile.read(io.BytesIO(answer.content))
    assert (sample_rate, y.shape[1]) == (48000, 2)
    assert abs(len(y) - 3 * 48000) <= (0 if format != "mp3" else 2400)
    assert audio.loudness(y.T, 48000) == pytest.approx(audio.loudness(song, 48000), abs=0.3)
    assert audio.true_peak_db(y.T, 48000) <= -0.9


PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")


@pytest.mark.parametrize("format", ["wav", "flac", "mp3"])
def test_a_result_carries_the_songs_tags_and_cover_and_says_how_it_was_made(api, tone, tmp_path, format):
    import mutagen

    tags = Tags({"title": ["Waltz"], "artist": ["Ann"], "comment": ["first take"]}, [tags_picture(3, "image/png", "front", PNG)])
    with audio.Writer(tmp_path / "waltz.mp3", sample_rate=44100, channels=2, tags=tags) as song:
        song.write(tone(1.0))
    asked = {"style": "tiny", "format": format, "strength": 0.9, "name": "waltz.mp3"}
    answer = api.post("/transfer", params=asked, content=(tmp_path / "waltz.mp3").read_bytes())
    (tmp_path / f"made.{format}").write_bytes(answer.content)
    file = mutagen.File(tmp_path / f"made.{format}")
    told = file.tags.pprint()
    for text in ("Waltz", "Ann", "first take", "StyleStream: as Tiny (strength 0.9, dream 0, grain 0.5, seed 0)"):
        assert text in told
    covers = file.pictures if format == "flac" else file.tags.getall("APIC")
    assert [cover.data for cover in covers] == [PNG]


def test_a_cover_too_large_to_carry_costs_the_cover_alone(api, tone, tmp_path):
    import mutagen

    tags = Tags({"title": ["Waltz"]}, [tags_picture(3, "image/png", "", bytes(uploads.MAX_PICTURE_BYTES + 1))])
    with audio.Writer(tmp_path / "waltz.flac", sample_rate=44100, channels=2, tags=tags) as song:
        song.write(tone(1.0))
    answer = api.post("/transfer", params={"style": "tiny", "format": "flac"}, content=(tmp_path / "waltz.flac").read_bytes())
    (tmp_path / "made.flac").write_bytes(answer.content)
    made = mutagen.File(tmp_path / "made.flac")
    assert (made.tags["title"], made.pictures) == (["Waltz"], [])


def test_the_parts_one_hears_are_the_file_one_downloads(api, tone):
    song = api.post("/songs", params={"name": "a.wav"}, content=wav(tone(9.5))).json()
    job = api.post("/jobs", json={"song": song["id"], "style": "tiny"}).json()["id"]
    assert finished(api, job)["state"] == "done"
    parts = [soundfile.read(io.BytesIO(api.get(f"/jobs/{job}/sound/{n}").content))[0] for n in range(3)]
    assert [len(part) for part in parts] == [4 * 44100, 4 * 44100, round(1.5 * 44100)]
    assert api.get(f"/jobs/{job}/sound/3").status_code == 404
    y, _ = soundfile.read(io.BytesIO(api.get(f"/jobs/{job}/result.wav").content))
    np.testing.assert_allclose(np.concatenate(parts), y, atol=1e-4)


def test_one_hears_the_beginning_while_the_rest_is_being_made(api, tone):
    song = api.post("/songs", content=wav(0.2 * tone(90.0))).json()  # soft, or its peaks would bound the level
    job = api.post("/jobs", json={"song": song["id"], "style": "tiny"}).json()["id"]
    heard: list[httpx.Response] = []
    with api.stream("GET", f"/jobs/{job}/events") as events:
        for line in events.iter_lines():
            view = json.loads(line[6:]) if line.startswith("data: ") else {}
            if view.get("state") == "running" and view["samples"] and not heard:
                heard.append(api.get(f"/jobs/{job}/sound/0"))
                assert view["samples"] < song["samples"]
    assert heard[0].status_code == 200
    y, _ = soundfile.read(io.BytesIO(heard[0].content))
    x, _ = soundfile.read(io.BytesIO(api.get(f"/songs/{song['id']}/sound/0").content))
    assert len(y) == len(x)
    assert audio.loudness(y.T, 44100) == pytest.approx(audio.loudness(x.T, 44100), abs=1.5)


def test_the_canvases_are_the_song_every_stroke_and_the_texture(api):
    from PIL import Image

    job = api.post("/jobs", json={"song": "lamplight", "style": "rock"}).json()["id"]
    assert finished(api, job)["painted"]
    answer = api.get(f"/jobs/{job}/canvases.png")
    picture = Image.open(io.BytesIO(answer.content))
    steps = load_style("rock").draw.config.steps
    assert answer.headers["x-canvases"] == str(steps + 2)
    assert (picture.mode, picture.height) == ("L", 324 * (steps + 2))
    rows = np.asarray(picture, float).reshape(steps + 2, 324, -1)
    towards = [np.abs(rows[k] - rows[-1]).mean() for k in range(1, steps + 2)]
    assert towards[0] > towards[-3] > towards[-1] == 0  # stroke by stroke it comes nearer to what it becomes


def test_a_spectrogram_has_its_notes_where_they_are(api, tone):
    from PIL import Image

    song = api.post("/songs", content=wav(tone(3.0, hz=440.0))).json()["id"]
    picture = np.asarray(Image.open(io.BytesIO(api.get(f"/songs/{song}/picture.png").content)), float)
    row = 323 - int(picture.sum(1).argmax())  # from below, C1 is the first
    assert abs(row - 36 * np.log2(440 / 32.703)) <= 1


def test_a_peak_is_where_the_song_is_loud(api):
    y = np.zeros((1, 80_000), np.float32)
    y[0, 40_000:40_100] = 0.5
    peaks = api.get(f"/songs/{api.post('/songs', content=wav(y)).json()['id']}/peaks").json()
    assert len(peaks) == 800
    assert np.flatnonzero(peaks).tolist() == [400]
    assert peaks[400] == 128


def test_midi_is_played(api):
    pytest.importorskip("symusic", reason="MIDI needs symusic: pip install 'stylestream[midi]'")
    answer = api.post("/songs", params={"name": "lamplight.mid"}, content=LAMPLIGHT.with_suffix(".mid").read_bytes())
    if answer.status_code == 422 and "SoundFont" in answer.text:
        pytest.skip(answer.text)
    assert (answer.json()["kind"], round(answer.json()["seconds"])) == ("MIDI", 34)


# ------------------------------------------------------------------------------------------------------------- the queue


def test_a_cancelled_job_ends_and_leaves_nothing(app, tone):
    client = app()
    song = client.post("/songs", content=wav(tone(120.0))).json()["id"]
    first = client.post("/jobs", json={"song": song, "style": "strings"}).json()["id"]
    second = client.post("/jobs", json={"song": song, "style": "tiny"}).json()["id"]
    desk = client.app.state.desk
    assert client.get(f"/jobs/{second}").json()["position"] >= 1
    assert client.delete(f"/jobs/{second}").json()["state"] == "cancelled"  # it only waited
    client.delete(f"/jobs/{first}")
    assert finished(client, first)["state"] == "cancelled"
    assert client.get(f"/jobs/{first}").json()["samples"] < 120 * 44100
    assert not desk.jobs[first].folder.exists()
    assert client.get(f"/jobs/{first}/result.wav").status_code == 409


def test_who_waits_is_told_the_place_and_how_long(app, tone):
    client = app(Limits(address_jobs=9))
    song = client.post("/songs", content=wav(tone(60.0))).json()["id"]
    ids = [client.post("/jobs", json={"song": song, "style": "strings"}).json()["id"] for _ in range(3)]
    views = [client.get(f"/jobs/{id}").json() for id in ids[1:]]
    assert [view["position"] for view in views] == [1, 2]
    assert 0 < views[0]["wait_seconds"] < views[1]["wait_seconds"]
    for id in reversed(ids):
        client.delete(f"/jobs/{id}")


def test_a_full_queue_and_a_greedy_address_are_told_so(app, tone):
    client = app(Limits(queue=1, address_jobs=9))
    song = client.post("/songs", content=wav(tone(60.0))).json()["id"]
    answers = [client.post("/jobs", json={"song": song, "style": "strings"}) for _ in range(4)]
    assert answers[-1].status_code == 503
    assert answers[-1].json()["error"] == "too many are waiting; try again in a few minutes"
    greedy = app(Limits(address_jobs=1))
    song = greedy.post("/songs", content=wav(tone(60.0))).json()["id"]
    assert greedy.post("/jobs", json={"song": song, "style": "strings"}).status_code == 201
    assert greedy.post("/jobs", json={"song": song, "style": "strings"}).status_code == 429


def test_what_a_server_does_not_offer_is_refused_in_words(app, tone):
    sent = wav(tone(1.0))

    def trained(client, songs: int = 1, minutes: float = 1.0) -> tuple[int, str]:
        song = client.post("/songs", content=sent).json()["id"]
        answer = client.post("/train", json={"songs": [song] * songs, "minutes": minutes})
        return answer.status_code, answer.json()["error"]

    assert trained(app(Limits(train_minutes=0))) == (
        403,
        "no styles are trained on this server; use `stylestream train` on your own machine",
    )
    small = app(Limits(train_minutes=2, train_songs=2))
    assert trained(small, minutes=3) == (422, "at most 2 minutes are trained here")
    assert trained(small, songs=3) == (422, "at most 2 songs are taken here")
    full = app(Limits(store_mb=0.2))
    assert full.post("/songs", content=sent).status_code == 201
    answer = full.post("/songs", content=sent)
    assert (answer.status_code, answer.json()["error"]) == (507, "this machine is full of songs; try again in an hour")
    slow = app(Limits(song_seconds=0.5)).post("/songs", params={"name": "a.wav"}, content=sent)
    assert slow.json()["error"].startswith("'a.wav' lasts 0:01 minutes; at most 0:00 minutes are taken here")


def commands() -> Iterator[bytes]:
    """Of all processes, where the system tells."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            yield path.read_bytes()


def test_a_cancelled_training_ends_its_process_and_leaves_nothing(app, tone):
    client = app()
    song = client.post("/songs", content=wav(tone(20.0))).json()["id"]
    job = client.post("/train", json={"songs": [song], "minutes": 5}).json()["id"]
    desk = client.app.state.desk
    with client.stream("GET", f"/jobs/{job}/events") as events:
        for line in events.iter_lines():
            view = json.loads(line[6:]) if line.startswith("data: ") else {}
            assert not view.get("error")
            if view.get("lines") or view.get("fraction"):  # the child is at work
                break
    client.delete(f"/jobs/{job}")
    assert finished(client, job)["state"] == "cancelled"
    assert not desk.jobs[job].folder.exists()
    assert not [command for command in commands() if str(desk.folder).encode() in command]


def test_what_is_forgotten_is_gone(app, tone):
    client = app()
    song = client.post("/songs", content=wav(tone(1.0))).json()["id"]
    job = client.post("/jobs", json={"song": song, "style": "tiny"}).json()["id"]
    assert finished(client, job)["state"] == "done"
    assert client.delete(f"/jobs/{job}").json()["state"] == "done"  # nothing to cancel, and nothing lost
    assert client.get(f"/jobs/{job}/result.wav").status_code == 200
    client.delete(f"/jobs/{job}", params={"forget": True})
    assert client.get(f"/jobs/{job}/result.wav").status_code == 404
    assert client.delete(f"/songs/{song}").json() == {"removed": True}
    assert list(client.app.state.desk.folder.iterdir()) == []


def test_a_page_that_leaves_takes_its_job_with_it(app, tone):
    client = app()
    song = client.post("/songs", content=wav(tone(120.0))).json()["id"]
    left, asked = (client.post("/jobs", params={"watched": w}, json={"song": song, "style": "strings"}).json()["id"] for w in (True, False))
    desk = client.app.state.desk
    desk.sweep(time.monotonic() + jobs.LEAVE_SECONDS + 1)
    assert finished(client, left)["state"] == "cancelled"
    assert client.get(f"/jobs/{asked}").json()["state"] in ("waiting", "running")
    client.delete(f"/jobs/{asked}")


def test_what_nobody_asks_for_is_removed(app, tone):
    client = app(Limits(keep_minutes=5))
    song = client.post("/songs", content=wav(tone(1.0))).json()["id"]
    job = client.post("/jobs", json={"song": song, "style": "tiny"}).json()["id"]
    assert finished(client, job)["state"] == "done"
    desk = client.app.state.desk
    desk.sweep(time.monotonic() + 290)
    assert client.get(f"/songs/{song}").status_code == 200
    desk.sweep(time.monotonic() + 310)
    assert client.get(f"/songs/{song}").json() == {"error": "that song is no longer here; send it again"}
    assert client.get(f"/jobs/{job}").status_code == 404
    assert list(desk.folder.iterdir()) == []


def own_style(desk, tiny_style):
    """A training that is done, without the training."""
    job = jobs.TrainJob(desk.folder, [], "mine", 1.0, desk.styles)
    job.state, job.style = "done", desk.styles.add(tiny_style, read_card(tiny_style))
    desk.jobs[job.id] = job
    return job


def test_an_own_style_stays_while_it_is_asked_for(app, tone, tiny_style):
    client = app(Limits(keep_minutes=5))
    desk = client.app.state.desk
    training = own_style(desk, tiny_style)
    training.used -= 400  # the page does not ask after it any more
    song = client.post("/songs", content=wav(tone(1.0))).json()["id"]
    job = client.post("/jobs", json={"song": song, "style": training.style.name}).json()["id"]
    desk.sweep(time.monotonic())
    assert finished(client, job)["state"] == "done"
    assert client.get(f"/styles/{training.style.name}").status_code == 200
    desk.sweep(time.monotonic() + 310)
    assert client.get(f"/styles/{training.style.name}").status_code == 404


def test_a_style_that_somebody_waits_for_is_not_removed(app, tone, tiny_style):
    client = app()
    desk = client.app.state.desk
    training = own_style(desk, tiny_style)
    song = client.post("/songs", content=wav(tone(60.0))).json()["id"]
    first = client.post("/jobs", json={"song": song, "style": "strings"}).json()["id"]
    job = client.post("/jobs", json={"song": song, "style": training.style.name}).json()["id"]
    answer = client.delete(f"/jobs/{training.id}", params={"forget": True})
    assert (answer.status_code, answer.json()["error"]) == (409, "a song in this style is in work")
    for each in (job, first):
        client.delete(f"/jobs/{each}")
        finished(client, each)
    assert client.delete(f"/jobs/{training.id}", params={"forget": True}).status_code == 200


@pytest.mark.parametrize("format", ["wav", "mp3"])
def test_a_silent_song_comes_back_silent(api, format):
    answer = api.post("/transfer", params={"style": "tiny", "format": format}, content=wav(np.zeros((2, 3 * 44100), np.float32)))
    assert answer.status_code == 200, answer.text
    y, _ = soundfile.read(io.BytesIO(answer.content))
    assert np.abs(y).max() < 1e-4


def test_a_long_name_in_any_script_is_cut_where_the_disk_ends(app, tone):
    client = app()
    song = client.post("/songs", params={"name": "夜" * 66 + ".wav"}, content=wav(tone(0.5))).json()
    job = client.post("/jobs", json={"song": song["id"], "style": "tiny"}).json()["id"]
    assert finished(client, job)["state"] == "done"
    answer = client.get(f"/jobs/{job}/result.flac")
    assert answer.status_code == 200
    assert len(client.app.state.desk.jobs[job].file("flac").name.encode()) < 150


def test_the_waveform_is_looked_for_once(app, tone, monkeypatch):
    client = app()
    song = client.post("/songs", content=wav(tone(3.0))).json()["id"]
    first, reads = client.get(f"/songs/{song}/peaks").json(), []
    monkeypatch.setattr(uploads.Sound, "read", lambda *_: reads.append(1))
    assert client.get(f"/songs/{song}/peaks").json() == first
    assert reads == []


def test_what_was_the_beginning_is_not_there_rather_than_broken(tmp_path):
    sound = uploads.Sound(tmp_path / "heard", 44100, 2)
    sound.append(np.ones((2, 44100), np.float32))
    sound.path.unlink()  # the whole has taken its place while somebody asks
    assert (sound.part(0), sound.peaks()) == (None, [0] * len(sound.peaks()))


def test_while_uploads_wait_for_the_decoder_others_are_answered(app, tone, monkeypatch):
    client, gate = app(), threading.Event()
    monkeypatch.setattr(jobs, "decode", lambda *_: gate.wait(30) or pytest.fail("nobody opened"))
    with ThreadPoolExecutor(52) as many:
        sent = [many.submit(client.post, "/songs", content=wav(tone(0.1))) for _ in range(50)]
        try:
            asked = many.submit(client.get, "/styles")
            time.sleep(0.5)
            assert client.get("/health").status_code == 200
            assert asked.result(20).status_code == 200
        finally:
            gate.set()
        assert {answer.result().status_code for answer in sent} == {500}  # what came of the gate is no song


def test_songs_are_private_and_gone_when_the_server_is(tmp_path, tone):
    with TestClient(create_app(Settings(), folder=tmp_path / "root", gradio=False)) as client:
        client.post("/songs", content=wav(tone(1.0)))
        (folder,) = (tmp_path / "root" / "desk").iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert not (tmp_path / "root").exists()


# ------------------------------------------------------------------------------------------------------------- hostile visitors


@given(st.text(max_size=300))
def test_a_name_is_a_name_whatever_is_sent(name):
    cleaned = clean_name(name)
    assert cleaned
    assert Path(cleaned).name == cleaned
    assert cleaned[0] not in ".-"
    assert cleaned.isprintable()
    assert len(cleaned.encode()) <= 200
    assert not set(cleaned) & set('/\\<>:"|?*')


HEADS = [b"RIFF\xff\xff\xff\x7fWAVEfmt ", b"fLaC\x00\x00\x00\x22", b"OggS\x00\x02", b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f"]
HEADS += [b"MThd\x00\x00\x00\x06", b"\x00\x00\x00\x20ftypM4A "]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(HEADS), st.binary(max_size=4000))
def test_a_hostile_file_is_refused_in_words_that_name_no_folder(tmp_path_factory, head, rest):
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "song.mp3").write_bytes(head + rest)
    try:
        about = decode(folder / "song.mp3", folder / "out", Limits())
    except Refused as error:
        assert "song.mp3" in str(error)
        assert str(folder) not in str(error)
        assert "\n" not in str(error)
    else:
        assert about["samples"] > 0


def test_a_small_file_that_decodes_to_hours_is_refused_before_it_does(tmp_path):
    with soundfile.SoundFile(tmp_path / "bomb.flac", "w", 8000, 1) as bomb:
        for _ in range(3600):
            bomb.write(np.zeros(8000, np.int16))
    assert (tmp_path / "bomb.flac").stat().st_size < 200_000
    with pytest.raises(Refused, match=r"'bomb.flac' lasts 60:00 minutes; at most 15:00 minutes are taken here"):
        decode(tmp_path / "bomb.flac", tmp_path / "out", Limits())
    assert not (tmp_path / "out").exists() or (tmp_path / "out").stat().st_size == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to its address space")
def test_a_decoder_that_takes_too_much_memory_is_ended(tmp_path):
    code = "from stylestream.uploads import _limit; _limit(60, 600, 1e6); import numpy; numpy.ones(10**9)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    assert "MemoryError" in done.stderr


def test_a_song_that_is_none_is_refused_beside_its_name(api):
    answer = api.post("/songs", params={"name": "notes.txt"}, content=b"dear diary")
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("'notes.txt' is not a song that can be read")


def test_an_upload_that_is_too_large_is_refused(app):
    client = app(Limits(upload_mb=0.01))
    answer = client.post("/songs", content=b"x" * 20_000)
    assert (answer.status_code, answer.json()["error"]) == (413, "that is 0 MB; at most 0.01 MB are taken here")
    assert list(client.app.state.desk.folder.iterdir()) == []

    def parts():
        for _ in range(300):
            yield b"x" * 1000

    assert client.post("/songs", content=parts()).status_code == 413  # no length said
    assert list(client.app.state.desk.folder.iterdir()) == []


def test_what_is_asked_wrongly_is_said_in_words(api):
    wrong = {
        '{"song": "lamplight", "style": "rokc"}': "unknown style 'rokc'; did you mean 'rock'?",
        '{"song": "lamplight", "style": "rock", "strength": 2}': "strength: Input should be less than or equal to 1",
        '{"song": "lamplight", "style": "rock", "strength": NaN}': "strength",
        '{"song": "lamplight", "style": "rock", "dream": 9}': "dream is 9.0; it must be from 0 to 8",
        '{"song": "none", "style": "rock"}': "that song is no longer here; send it again",
        '{"song": "lamplight", "stile": "rock"}': "style: Field required",
        "[]": "the request",
        "{": "JSON",
    }
    for body, words in wrong.items():
        answer = api.post("/jobs", content=body, headers={"content-type": "application/json"})
        assert 400 <= answer.status_code < 500, body
        assert words in answer.json()["error"]


def test_a_password_is_asked_for_and_no_other_opens(app):
    client = app(auth=("ann", "sécret:x"))
    assert client.get("/").status_code == client.get("/metrics").status_code == client.get("/web/app.js").status_code == 401
    assert client.get("/").headers["www-authenticate"].startswith("Basic")
    assert client.get("/health").status_code == 200
    for wrong in ("ann:secret", "bob:sécret:x", "", "ann:"):
        assert client.get("/", headers={"authorization": "Basic " + base64.b64encode(wrong.encode()).decode()}).status_code == 401
    assert client.get("/", headers={"authorization": "Basic ***"}).status_code == 401
    right = base64.b64encode("ann:sécret:x".encode()).decode()
    assert client.get("/styles", headers={"authorization": f"Basic {right}"}).status_code == 200


def test_who_guesses_passwords_guesses_slowly_and_who_knows_it_gets_in(app):
    client = app(Limits(address_requests=3), auth=("ann", "right"))
    wrong, right = ({"authorization": "Basic " + base64.b64encode(b"ann:" + word).decode()} for word in (b"wrong", b"right"))
    assert [client.get("/", headers=wrong).status_code for _ in range(5)] == [401, 401, 401, 429, 429]
    assert client.get("/styles", headers=right).status_code == 200
    assert client.get("/").status_code == 401  # a browser that has not been asked yet


def test_what_lies_at_the_door_counts_and_is_cleared_away(app, tone):
    client = app(Limits(store_mb=0.5, keep_minutes=1))
    desk = client.app.state.desk
    left = desk.exchange / "from-gradio"
    left.mkdir()
    (left / "song.wav").write_bytes(bytes(600_000))
    assert desk.stored_bytes() == 600_000
    assert client.post("/songs", content=wav(tone(0.5))).status_code == 507
    assert list(desk.folder.iterdir()) == []
    desk.sweep()
    assert left.exists()
    os.utime(left, (0, 0))
    desk.sweep()
    assert not left.exists()
    assert client.post("/songs", content=wav(tone(0.5))).status_code == 201


def test_a_full_machine_takes_nothing_at_either_door(app, tone):
    client = app(Limits(store_mb=0.1))
    (client.app.state.desk.exchange / "song.wav").write_bytes(bytes(200_000))
    for path in ("/songs", "/gradio_api/upload"):
        answer = client.post(path, content=wav(tone(0.1)))
        assert (answer.status_code, answer.json()["error"]) == (507, "this machine is full of songs; try again in an hour")


def test_a_head_is_a_get_without_its_body(api):
    for path in ("/", "/health", "/styles", "/web/app.js", "/metrics"):
        head, whole = api.head(path), api.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == whole.headers["content-type"]
    assert api.head("/jobs/none").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/jobs", 405), ("PUT", "/songs", 405), ("POST", "/health", 405), ("GET", "/songs/a/b/c", 404)]
)
def test_what_is_not_there_is_said_by_the_page_and_not_by_gradio(api, method, path, status):
    answer = api.request(method, path)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert ("allow" in answer.headers) == (status == 405)


def test_a_dial_that_is_misspelt_is_refused_before_anything_is_sent(api, tone):
    answer = api.post("/transfer", params={"style": "tiny", "strenght": 0.5}, content=wav(tone(0.1)))
    assert (answer.status_code, answer.json()["error"]) == (422, "unknown: strenght; see /openapi.json")


def test_a_player_can_seek_in_a_sample(api):
    whole = api.get("/styles/tiny/sample.flac").content
    part = api.get("/styles/tiny/sample.flac", headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole[100:200])
    assert api.get("/styles/tiny/sample.flac", headers={"Range": f"bytes={len(whole)}-"}).status_code == 416


def test_a_format_that_cannot_hold_the_channels_is_refused_in_words(app, tone):
    client = app()
    song = client.post("/songs", content=wav(np.repeat(tone(0.5), 3, axis=0))).json()
    job = client.post("/jobs", json={"song": song["id"], "style": "tiny"}).json()["id"]
    assert finished(client, job)["state"] == "done"
    answer = client.get(f"/jobs/{job}/result.mp3")
    assert answer.status_code == 422
    assert "channels" in answer.json()["error"]


def test_other_sites_reach_nothing(app):
    client = app()
    assert client.get("/", headers={"host": "evil.example"}).status_code == 421
    sent = {"song": "lamplight", "style": "tiny"}
    assert client.post("/jobs", json=sent, headers={"origin": "http://evil.example"}).status_code == 403
    assert client.post("/jobs", json=sent, headers={"origin": "null"}).status_code == 403
    assert client.post("/jobs", json={}, headers={"origin": "http://testserver"}).status_code == 422  # the page's own
    assert client.get("/styles", headers={"origin": "http://evil.example"}).headers.get("access-control-allow-origin") is None
    proxied = {"origin": "https://music.example", "x-forwarded-host": "music.example"}
    assert client.post("/jobs", json={}, headers=proxied).status_code == 403
    assert app(trust_proxy=True).post("/jobs", json={}, headers=proxied).status_code == 422
    assert app(host="0.0.0.0").get("/", headers={"host": "music.example"}).status_code == 200


def test_an_address_asks_only_so_often(app):
    client = app(Limits(address_requests=3))
    codes = [client.post("/jobs", json={}).status_code for _ in range(4)]
    assert codes == [422, 422, 422, 429]
    assert client.get("/styles").status_code == 200
    behind = app(Limits(address_requests=1), trust_proxy=True)
    codes = [behind.post("/jobs", json={}, headers={"x-forwarded-for": f"9.9.9.9, 10.0.0.{n}"}).status_code for n in (1, 2, 2)]
    assert codes == [422, 422, 429]


NOWHERE = ["/etc/passwd", "/web/../serve.py", "/web/%2e%2e%2fserve.py", "/docs", "/monitoring", "/login", "/gradio_api/vibe-edit"]
NOWHERE += ["/gradio_api/proxy=http://x", "/gradio_api/file=/etc/passwd", "/gradio_api/file=https://example.org/"]


@pytest.mark.parametrize("path", NOWHERE)
def test_there_is_nothing_but_the_page_and_its_api(api, path):
    answer = api.get(path)
    assert answer.status_code in (403, 404), answer.text
    assert "root:" not in answer.text


def test_no_answer_names_a_folder_of_the_server(server, api, tone):
    sent = api.post("/gradio_api/upload", files={"files": ("waltz.wav", wav(tone(1.0)))})
    assert sent.status_code == 200
    (place,) = sent.json()
    assert re.fullmatch(r"/exchange/[0-9a-f]+/waltz\.wav", place)
    assert api.get(f"/gradio_api/file={place}").content == wav(tone(1.0))
    texts = [sent.text, api.post("/songs", content=b"").text, api.post("/songs", params={"name": "x.mp3"}, content=b"ID3").text]
    texts += [api.get(path).text for path in ("/", "/config", "/gradio_api/info", "/styles", "/metrics", "/openapi.json", "/jobs/x")]
    texts += [api.get("/gradio_api/file=/exchange/x").text, gradio_call(api, {"path": place}, "/exchange/x")]
    assert not [text for text in texts if str(server.temporary) in text or str(Path(page.__file__).parent) in text]


def test_a_style_with_a_drummer_says_so_and_drums_as_loud_as_it_is_asked(api):
    drums = {style["name"]: style["drums"] for style in api.get("/styles").json()}
    assert (drums["drummer"], drums["tiny"]) == (True, False)
    made = {}
    for level in (0, 0.5, None):
        asked = {"style": "drummer", "name": "a.ogg"} | ({} if level is None else {"drums": level})
        made[level], _ = soundfile.read(io.BytesIO(api.post("/transfer", params=asked, content=LAMPLIGHT.read_bytes()).content))
    np.testing.assert_allclose(made[None], made[0], atol=1e-3)
    assert np.abs(made[0.5] - made[0]).max() > 0.05
    refused = api.post("/jobs", json={"song": "lamplight", "style": "tiny", "drums": 0.5})
    assert (refused.status_code, refused.json()["error"]) == (422, "drums is 0.5, but this style has no drums; leave it out, or 0")


def test_a_style_whose_music_is_wide_says_so_and_a_song_becomes_so(api, tone):
    wide = {style["name"]: style["width"] for style in api.get("/styles").json()}
    assert (wide["drummer"], wide["tiny"], wide["rock"], wide["strings"]) == (True, False, False, True)
    sent = wav(np.repeat(tone(2.0, channels=1), 2, axis=0))
    made = {}
    for level in (0, 1):
        answer = api.post("/transfer", params={"style": "drummer", "name": "a.wav", "width": level}, content=sent)
        made[level], _ = soundfile.read(io.BytesIO(answer.content))
    sides = [float(np.abs(np.subtract(*made[level].T)).max()) for level in (0, 1)]
    assert sides[0] < 1e-4 < 0.01 < sides[1]
    refused = api.post("/jobs", json={"song": "lamplight", "style": "tiny", "width": 0.5})
    assert refused.status_code == 422
    assert "width is 0.5, but this style's music is all in the middle" in refused.json()["error"]


def gradio_call(api, song: dict, style: str) -> str:
    """What the endpoint for gradio_client answers to a hand-made request."""
    data = [{"meta": {"_type": "gradio.FileData"}, **song}, style, 1.0, 0.0, 0.5, 0.0, 0.0, 0, "wav"]
    event = api.post("/gradio_api/call/transfer", json={"data": data}).json()["event_id"]
    return api.get(f"/gradio_api/call/transfer/{event}").text


@pytest.mark.parametrize(
    "path", ["/etc/hostname", "/exchange/../../../../etc/hostname", "/exchange/a/..", "http://example.org/a.wav", "", None, 1]
)
def test_gradio_takes_only_files_that_were_sent(api, path):
    song = {"path": path, "meta": {"_type": "gradio.FileData"}}
    for data in ([song, "tiny", 1.0, 0.0, 0.5, 0.0, 0, "wav"], [[[song]]], {"a": {"url": "http://example.org/a.wav"}}):
        for call in ("call/transfer", "queue/join"):
            answer = api.post(f"/gradio_api/{call}", json={"data": data, "fn_index": 1, "session_hash": "x"})
            assert (answer.status_code, answer.json()["error"]) == (422, "send the song first: gradio_client's handle_file does")
    deep = "[" * 100_000 + "]" * 100_000
    assert api.post("/gradio_api/call/transfer", content=deep).status_code == 422


# ------------------------------------------------------------------------------------------------------------- gradio_client


def test_gradio_client_plays_a_song(server, tmp_path, tone):
    from gradio_client import Client, handle_file

    (tmp_path / "waltz.wav").write_bytes(wav(tone(1.5)))
    client = Client(server.address + "/", verbose=False, download_files=str(tmp_path / "got"))
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert set(named) == {"/styles", "/transfer", "/train"}
    types = {p["parameter_name"]: p["python_type"]["type"] for p in named["/transfer"]["parameters"]}
    assert types == {"song": "filepath", "style": "str", "strength": "float", "dream": "float", "grain": "float", "drums": "float",
                     "width": "float", "seed": "int", "format": "Literal['wav', 'flac', 'mp3']"}  # fmt: skip
    assert {style["name"] for style in client.predict(api_name="/styles")} >= {"rock", "tiny"}
    got = client.predict(handle_file(str(tmp_path / "waltz.wav")), "tiny", 0.5, format="flac", api_name="/transfer")
    assert Path(got).name == "waltz-tiny.flac"
    assert soundfile.info(got).frames == round(1.5 * 44100)
    with pytest.raises(Exception, match="unknown style 'tinny'"):
        client.predict(handle_file(str(tmp_path / "waltz.wav")), "tinny", api_name="/transfer")


EXAMPLES = (Path(__file__).parent.parent / "docs" / "page.md").read_text(encoding="utf-8")


def example(name: str) -> str:
    """A block of docs/page.md."""
    return EXAMPLES.split(f"<!-- example: {name} -->")[1].split("```")[1].split("\n", 1)[1]


@pytest.fixture
def waltz(tmp_path, monkeypatch, tone) -> Path:
    """A folder with waltz.mp3, to work in."""
    soundfile.write(tmp_path / "waltz.mp3", tone(2.0).T, 44100)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_documented_command_gets_a_song(server, waltz):
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    done = subprocess.run(["bash", "-c", example("curl")], env={**os.environ, "PAGE": server.address}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert soundfile.info("waltz-rock.wav").duration == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("name", ["gradio_client", "steps"])
def test_the_documented_python_gets_a_song(server, waltz, name, capsys):
    names = {"PAGE": server.address + ("/" if name == "gradio_client" else "")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an example closes nothing
        exec(compile(example(name), "docs/page.md", "exec"), names)
        if name == "steps":
            names["page"].close()
        gc.collect()
    made = names["song"] if name == "gradio_client" else io.BytesIO(names["result"])
    assert soundfile.info(made).duration == pytest.approx(2.0, abs=0.05)
    if name == "steps":
        assert names["job"]["state"] == "done"
        assert names["job"]["dials"]["dream"] == 1.5
        assert soundfile.info(io.BytesIO(names["first_seconds"])).format == "FLAC"


# ------------------------------------------------------------------------------------------------------------- behind a proxy

PROXY = """
import sys, httpx, uvicorn
target, shown, strip = sys.argv[1], sys.argv[2], sys.argv[3] == "strip"
client = httpx.AsyncClient(timeout=120)
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    path = scope["raw_path"].decode() + ("?" + scope["query_string"].decode() if scope["query_string"] else "")
    if not path.startswith(shown):
        await send({"type": "http.response.start", "status": 502, "headers": []})
        await send({"type": "http.response.body", "body": b"outside"})
        return
    headers = [(n, v) for n, v in scope["headers"] if n != b"content-length"]
    headers += [(b"x-forwarded-for", b"203.0.113.9"), (b"x-forwarded-host", dict(headers)[b"host"]), (b"x-forwarded-proto", b"http")]
    asked = client.build_request(scope["method"], target + (path[len(shown):] if strip else path), headers=headers, content=body)
    answer = await client.send(asked, stream=True)
    kept = [(n, v) for n, v in answer.headers.raw if n.lower() not in (b"transfer-encoding", b"connection")]
    await send({"type": "http.response.start", "status": answer.status_code, "headers": kept})
    async for part in answer.aiter_raw():
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)
Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off")).run()
"""


@pytest.fixture
def proxy():
    """``proxy(address, shown, strip)``: the address of a proxy that shows what is at an address below a path."""
    running = []

    def start(address: str, shown: str, *, strip: bool) -> str:
        command = [sys.executable, "-c", PROXY, address, shown, "strip" if strip else "leave"]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return f"http://127.0.0.1:{running[-1].stdout.readline().strip()}{shown}"

    yield start
    for child in running:
        child.terminate()
        child.wait(20)
        child.stdout.close()


SPACE = Path(__file__).parent.parent / "examples" / "space" / "app.py"


@pytest.fixture(scope="module")
def space(tmp_path_factory, tiny_style):
    """A hosted demo as its host starts it, told by Gradio's variables where it is."""
    environment = {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(free_port()), "GRADIO_ROOT_PATH": "/music/page"}
    environment |= {"STYLESTREAM_STYLES": str(tiny_style.parent), "TMPDIR": str(tmp_path_factory.mktemp("space")), "PYTHONUNBUFFERED": "1"}
    child = subprocess.Popen([sys.executable, str(SPACE)], env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == f"StyleStream is at http://127.0.0.1:{environment['GRADIO_SERVER_PORT']}\n"
    yield f"http://127.0.0.1:{environment['GRADIO_SERVER_PORT']}"
    child.terminate()
    child.wait(30)
    child.stdout.close()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.parametrize("strip", [True, False])
def test_a_hosted_demo_shows_below_a_path_of_its_proxy(proxy, space, tmp_path, tone, strip):
    from gradio_client import Client, handle_file

    shown = proxy(space, "/music/page", strip=strip)
    with httpx.Client(base_url=f"{shown}/", timeout=120) as client:
        html = client.get("").text
        for name in re.findall(r'(?:src|href)="([^"#]+)"', html):
            assert client.get(name).status_code == 200, name  # what the page asks for, as it asks
        assert client.get("health").json()["status"] == "ok"
        right = {"origin": shown.removesuffix("/music/page")}
        assert client.post("jobs", json={"song": "lamplight", "style": "none"}, headers=right).status_code == 404
        if not strip:
            assert httpx.get(shown, follow_redirects=False).headers["location"] == "/music/page/"
    (tmp_path / "waltz.wav").write_bytes(wav(tone(1.5)))
    gradio = Client(f"{shown}/", verbose=False, download_files=str(tmp_path / "got"))
    got = gradio.predict(handle_file(str(tmp_path / "waltz.wav")), "tiny", format="flac", api_name="/transfer")
    assert soundfile.info(got).frames == round(1.5 * 44100)


def test_what_the_host_says_is_done_and_nonsense_is_not(monkeypatch):
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "GRADIO_ROOT_PATH", "STYLESTREAM_AUTH"):
        monkeypatch.delenv(name, raising=False)
    assert Settings.of_environment(host="0.0.0.0") == Settings(host="0.0.0.0")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "8123")
    monkeypatch.setenv("STYLESTREAM_AUTH", "ann:a:b")
    assert Settings.of_environment() == Settings(port=8123, auth=("ann", "a:b"))
    monkeypatch.setenv("GRADIO_SERVER_PORT", "eighty")
    with pytest.raises(ValueError, match="GRADIO_SERVER_PORT is 'eighty'"):
        Settings.of_environment()


def test_the_command_hears_the_host_too(monkeypatch):
    asked: list[Settings] = []
    monkeypatch.setattr(page, "run", lambda settings, **_: asked.append(settings))
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "8123")
    monkeypatch.setenv("GRADIO_ROOT_PATH", "/music")
    with pytest.raises(SystemExit):
        cli.main(["serve"])
    with pytest.raises(SystemExit):
        cli.main(["serve", "--port", "9000"])  # what is said comes first
    assert [(s.host, s.port, s.root_path) for s in asked] == [("0.0.0.0", 8123, "/music"), ("0.0.0.0", 9000, "/music")]


def test_a_proxy_on_the_same_machine_may_pass_its_name_on(app):
    assert app(trust_proxy=True).get("/styles", headers={"host": "music.example"}).status_code == 200


# ------------------------------------------------------------------------------------------------------------- any request at all


def test_whatever_is_asked_the_answer_is_one_that_is_documented(server):
    schemathesis = pytest.importorskip("schemathesis", reason="fuzzing needs schemathesis: pip install 'stylestream[dev]'")
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

    checks = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
    operations = [found.ok() for found in schemathesis.openapi.from_url(f"{server.address}/openapi.json").get_all_operations()]
    assert len(operations) >= 25
    for operation in operations:

        @settings(max_examples=5, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def asked(case):
            case.call_and_validate(checks=checks)

        asked()


# ------------------------------------------------------------------------------------------------------------- who runs it


def test_metrics_count_what_was_done(app, tone):
    client = app()

    def numbers() -> dict[str, float]:
        lines = [line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    before = numbers()
    song = client.post("/songs", content=wav(tone(2.0))).json()["id"]
    finished(client, client.post("/jobs", json={"song": song, "style": "tiny"}).json()["id"])
    client.post("/songs", content=b"nothing")
    after = numbers()
    assert before['stylestream_jobs_total{kind="transfer",state="done"}'] == 0
    assert after['stylestream_jobs_total{kind="transfer",state="done"}'] == 1
    assert after['stylestream_jobs_total{kind="decode",state="failed"}'] == 1
    assert after["stylestream_music_seconds_total"] == pytest.approx(2.0)
    assert after['stylestream_work_seconds_total{kind="transfer"}'] > 0
    assert after['stylestream_jobs_waiting{kind="transfer"}'] == after['stylestream_jobs_running{kind="transfer"}'] == 0
    assert after['stylestream_answers_total{status="422"}'] == 1


def test_what_lies_there_is_counted_while_it_comes_and_goes(app):
    desk = app().app.state.desk
    going = threading.Event()

    def come_and_go() -> None:
        while not going.is_set():
            upload = desk.new_upload("a.wav")
            upload.write_bytes(b"x" * 10)
            shutil.rmtree(upload.parent)

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        counts = {desk.stored_bytes() for _ in range(3000)}
    finally:
        going.set()
        other.join()
    assert counts <= {0, 10}


def test_the_server_itself_opens_no_connection_to_another_machine(server, api):
    api.post("/transfer", params={"style": "tiny"}, content=LAMPLIGHT.read_bytes()).raise_for_status()
    assert not server.connections.exists(), server.connections.read_text()
    assert not [line for line in server.said if "Traceback" in line]


def test_a_port_that_is_taken_is_one_line(server, capsys):
    port = server.address.rsplit(":", 1)[1]
    with pytest.raises(SystemExit) as ended:
        cli.main(["serve", "--port", port])
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(f"stylestream: cannot serve at 127.0.0.1:{port} (Address already in use)")


WRONG = [(["--auth", "ann"], "--auth: it takes USER:PASSWORD"), (["-d", "toaster"], "device 'toaster' cannot be used")]
WRONG += [(["--upload-mb", "nan"], "Invalid value for '--upload-mb'")]


@pytest.mark.parametrize(("options", "words"), WRONG)
def test_a_wrong_option_is_wrong_usage(options, words, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["serve", *options])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_two_threads_read_a_sound_that_is_written(tmp_path):
    sound = uploads.Sound(tmp_path / "x", 8000, 2)
    y = np.arange(80_000, dtype=np.float32).reshape(2, -1)

    def write() -> None:
        for start in range(0, 40_000, 1000):
            sound.append(y[:, start : start + 1000])

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        count = sound.samples
        np.testing.assert_array_equal(sound.read(0, count), y[:, :count])
    writer.join()
    np.testing.assert_array_equal(sound.read(0, 10**9), y)


def test_a_long_song_begins_to_sound_before_it_is_listened_to_the_end(app, tone, monkeypatch):
    """The beginning that sounds at once is joined to the rest without a gap or a jump, and is not what is downloaded."""
    client = app()
    desk = client.app.state.desk
    y = 0.2 * tone(70.0)
    held, hear = threading.Event(), uploads.Song.hearing

    def late(song, *arguments, **options):
        held.wait()
        return hear(song, *arguments, **options)

    monkeypatch.setattr(uploads.Song, "hearing", late)
    song = client.post("/songs", content=wav(y)).json()
    job = client.post("/jobs", json={"song": song["id"], "style": "tiny"}).json()["id"]
    try:
        with client.stream("GET", f"/jobs/{job}/events") as events:
            views = (json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: "))
            assert next(view for view in views if view["samples"] or view["error"])["state"] == "running"
        first = client.get(f"/jobs/{job}/sound/0")  # and nothing else is known of the song
        assert first.status_code == 200
        heard = desk.jobs[job].heard
        begun, parts = heard.samples, [heard.read(0, heard.samples)]

        def overheard(y: np.ndarray) -> None:
            parts.append(y)
            uploads.Sound.append(heard, y)

        monkeypatch.setattr(heard, "append", overheard)
    finally:
        held.set()
    assert finished(client, job)["state"] == "done"
    whole = np.concatenate(parts, axis=1)
    assert whole.shape == y.shape
    jump = np.abs(np.diff(whole[:, begun - 2000 : begun + 4000], axis=1)).max()
    assert jump <= 1.5 * np.abs(np.diff(whole, axis=1)).max(initial=0.0, where=np.arange(whole.shape[1] - 1) > begun + 44100)
    sent, _ = soundfile.read(io.BytesIO(wav(y)), dtype="float32")  # 16 bits, as the server has it
    expected = load_style("tiny").transfer(np.ascontiguousarray(sent.T), 44100)
    made, _ = soundfile.read(io.BytesIO(client.get(f"/jobs/{job}/result.wav").content))
    np.testing.assert_allclose(made.T, expected, atol=5e-3)
