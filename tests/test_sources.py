"""Where songs come from: folders, globs, archives and manifests; what strangers put into them."""

from __future__ import annotations

import csv
import io
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stylestream import sources
from stylestream.sources import NOT_STATED, Found, find

SONG = b"MThd a song, as far as a list is concerned"


# --- helpers ---------------------------------------------------------------------------------------------------------------------------


def put(root: Path, *names: str) -> Path:
    """Files that are called songs; each has its own name as content."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(SONG + name.encode())
    return root


def table(path: Path, *rows: dict[str, Any]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def tar(path: Path, members: dict[str, bytes], *, mode: str = "w:xz", links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return path


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def styles(found: list[Found]) -> dict[str, str]:
    return {song.path: song.style for song in found}


def test_a_tar_that_ends_in_a_zip_is_a_tar(tmp_path):
    inner = zipped(tmp_path / "score.mscz", {"score.mid": b"MThd inner"})
    outer = tar(tmp_path / "songs.tar", {"a.mid": b"MThd a", "score.mscz": inner.read_bytes()}, mode="w")
    assert zipfile.is_zipfile(outer)  # which is why it is not asked
    assert [song.path for song in find([outer])] == ["a.mid"]


def test_a_home_folder_is_found_in_a_glob_that_no_shell_has_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "loops" / "x").mkdir(parents=True)
    (tmp_path / "loops" / "x" / "a.mid").write_bytes(b"MThd a")
    assert [Path(song.path).name for song in find(["~/loops/*/*.mid"])] == ["a.mid"]


def problems(found: list[Found]) -> dict[str, str]:
    return {song.path: song.problem for song in found if song.problem}


# --- folders and globs -----------------------------------------------------------------------------------------------------------------


def test_a_folder_gives_its_songs_in_order_and_the_top_folder_is_the_style(tmp_path):
    put(tmp_path / "music", "rock/deep/b.mid", "rock/a.WAV", "jazz/c.flac", "d.ogg", "rock/.hidden.mid", ".git/e.mid", "notes.txt")
    found = list(find([tmp_path / "music"]))
    assert styles(found) == {"d.ogg": "music", "jazz/c.flac": "jazz", "rock/a.WAV": "rock", "rock/deep/b.mid": "rock"}
    assert [song.path for song in found] == ["d.ogg", "jazz/c.flac", "rock/a.WAV", "rock/deep/b.mid"]
    assert {song.source for song in found} == {"music"}
    assert {song.licence for song in found} == {NOT_STATED}


def test_a_score_comes_as_bytes_and_a_recording_as_its_path(tmp_path):
    put(tmp_path, "a.mid", "b.wav")
    score, sound = find([tmp_path])
    assert score.content() == SONG + b"a.mid"
    assert sound.content() == tmp_path / "b.wav"
    (tmp_path / "c.wav").write_bytes(SONG + b"a.mid")
    assert [song.song_id() == score.song_id() for song in find([tmp_path])] == [True, False, True]


def test_a_glob_finds_what_it_says_and_its_style_folders_begin_where_it_does(tmp_path):
    put(tmp_path / "m", "rock/a.mid", "rock/b.wav", "jazz/c.mid")
    assert styles(list(find([str(tmp_path / "m" / "*" / "*.mid")]))) == {"jazz/c.mid": "jazz", "rock/a.mid": "rock"}
    assert len(list(find([str(tmp_path / "m" / "**")]))) == 3
    assert styles(list(find([str(tmp_path / "m" / "r*")]))) == {"rock/a.mid": "rock", "rock/b.wav": "rock"}


def test_a_file_with_brackets_in_its_name_is_that_file(tmp_path):
    put(tmp_path, "take [1].mid", "take 1.mid")
    assert [song.path for song in find([str(tmp_path / "take [1].mid")])] == ["take [1].mid"]


def test_a_song_named_twice_comes_once(tmp_path):
    put(tmp_path, "rock/a.mid")
    manifest = table(tmp_path / "list.csv", {"path": "rock/a.mid", "style": "metal", "licence": "CC0", "title": "A"})
    found = list(find([tmp_path / "rock", tmp_path, tmp_path / "rock" / "a.mid", manifest]))
    assert len(found) == 1
    assert found[0].style == "metal"  # what a manifest says counts, wherever it is read


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file or folder: .*missing$"):
        list(find([tmp_path / "missing"]))
    with pytest.raises(FileNotFoundError, match=r"no such file or folder: .*\(nothing matches\)"):
        list(find([str(tmp_path / "*.mid")]))


def test_a_link_to_nothing_is_a_problem_of_that_song(tmp_path):
    put(tmp_path, "a.mid")
    (tmp_path / "b.mid").symlink_to(tmp_path / "gone.mid")
    assert problems(list(find([tmp_path]))) == {"b.mid": "a link to nothing"}


def test_names_of_any_bytes_can_be_shown_and_stored(tmp_path):
    with open(os.fsencode(tmp_path) + b"/caf\xe9\n\x1b[31m.mid", "wb") as file:
        file.write(SONG)
    (song,) = find([tmp_path])
    assert song.path.isprintable()
    assert song.path.encode() == rb"caf\udce9\x0a\x1b[31m.mid"
    assert song.content() == SONG


# --- manifests -------------------------------------------------------------------------------------------------------------------------


def test_a_manifest_says_what_its_songs_are(tmp_path):
    put(tmp_path, "x/a.mid", "x/b.wav", "x/not listed.mid")
    row = {"path": "x/a.mid", "style": "waltz", "source": "Me", "licence": "CC0", "title": "Ä waltz", "group": "op 1"}
    manifest = table(tmp_path / "list.csv", row, {"path": "./x/b.wav"})
    a, b = find([manifest])
    assert (a.path, a.style, a.source, a.licence, a.title, a.group) == ("x/a.mid", "waltz", "Me", "CC0", "Ä waltz", "op 1")
    assert (b.path, b.style, b.licence) == ("x/b.wav", "x", NOT_STATED)


def test_a_manifest_may_be_parquet(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    put(tmp_path, "x/a.mid")
    rows = {"path": ["x/a.mid"], "style": ["waltz"], "license": ["CC0"], "title": [None], "bars": [32]}
    pq.write_table(pa.table(rows), tmp_path / "list.parquet")
    (song,) = find([tmp_path / "list.parquet"])
    assert (song.style, song.licence, song.title) == ("waltz", "CC0", "")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 or not")
    with pytest.raises(ValueError, match=r"bad\.parquet: not a Parquet file that can be read"):
        list(find([tmp_path / "bad.parquet"]))


@pytest.mark.parametrize("given_source", ["midi.tar.xz", "midi.csv", "."])
def test_a_manifest_beside_an_archive_of_its_name_speaks_of_its_members(tmp_path, given_source):
    tar(tmp_path / "midi.tar.xz", {"rock/mma/b.mid": SONG, "./jazz/a.mid": SONG + b"2"})
    row = {"style": "rock", "title": "", "licence": "GPL", "generated": "1"}
    table(
        tmp_path / "midi.csv", {"path": "rock/mma/b.mid", **row}, {"path": "jazz/a.mid", "style": "swing", "title": "T", "licence": "CC0"}
    )
    found = list(find([tmp_path / given_source]))
    assert [(song.path, song.style, song.licence) for song in found] == [("rock/mma/b.mid", "rock", "GPL"), ("jazz/a.mid", "swing", "CC0")]


def test_a_manifest_beside_a_folder_speaks_of_its_files_and_of_folders_in_it(tmp_path):
    put(tmp_path, "audio/rock/a.wav", "audio/jazz/b.wav")
    both = [{"path": f"audio/{name}", "style": "s", "licence": "CC0", "title": ""} for name in ("rock/a.wav", "jazz/b.wav", "gone.wav")]
    table(tmp_path / "audio.csv", *both)
    assert [song.licence for song in find([tmp_path / "audio" / "rock"])] == ["CC0"]  # and what else is listed is not asked for
    found = list(find([tmp_path / "audio"]))
    assert len(found) == 3
    assert problems(found) == {"audio/gone.wav": "no such file, though audio.csv lists it"}


def test_a_table_that_lies_about_is_no_manifest(tmp_path):
    put(tmp_path, "a.mid")
    (tmp_path / "prices.csv").write_text("name,price\nx,1\n")
    (tmp_path / "noise.csv").write_bytes(os.urandom(100))
    assert [song.path for song in find([tmp_path])] == ["a.mid"]


def test_a_manifest_without_paths_is_refused_and_one_without_styles_is_used_with_a_word(tmp_path):
    put(tmp_path, "rock/a.mid")
    with pytest.raises(ValueError, match=r"names\.csv: a manifest needs a column `path`; it has name, style"):
        list(find([table(tmp_path / "names.csv", {"name": "rock/a.mid", "style": "x"})]))
    with pytest.warns(UserWarning, match=r"list\.csv: no column style, licence, title; the folder's name is the style"):
        (song,) = find([table(tmp_path / "list.csv", {"path": "rock/a.mid"})])
    assert song.style == "rock"
    (tmp_path / "latin.csv").write_bytes(b"path,style,licence,title\nrock/a.mid,caf\xe9,CC0,\n")
    with pytest.raises(ValueError, match=r"latin\.csv: not a CSV in UTF-8"):
        list(find([tmp_path / "latin.csv"]))


def test_missing_files_are_problems_of_those_songs(tmp_path):
    put(tmp_path, "a.mid")
    rows = [{"path": name, "style": "s", "licence": "CC0", "title": ""} for name in ("gone.mid", "a.mid")]
    found = list(find([table(tmp_path / "list.csv", *rows)]))
    assert problems(found) == {"gone.mid": "no such file, though list.csv lists it"}
    with pytest.raises(ValueError, match="lists it"):
        found[-1].content()


@pytest.mark.parametrize(("column", "word"), [("style", "style"), ("licence", "licence")])
def test_two_manifests_that_disagree_are_refused(tmp_path, column, word):
    put(tmp_path, "a.mid")
    row = {"path": "a.mid", "style": "rock", "licence": "CC0", "title": ""}
    one, two = table(tmp_path / "one.csv", row), table(tmp_path / "two.csv", row | {column: "other"})
    with pytest.raises(ValueError, match=rf"one\.csv and .*two\.csv disagree on the {word} of a\.mid: '.*' and 'other'; correct one"):
        list(find([one, two]))
    with pytest.raises(ValueError, match=rf"two rows of both\.csv disagree on the {word}"):
        list(find([table(tmp_path / "both.csv", row, row | {column: "other"})]))
    table(two, row | {"title": "a title is no disagreement"})
    assert len(list(find([one, two]))) == 1


# --- archives --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", sources.ARCHIVE_SUFFIXES)
def test_archives_of_all_kinds_are_read_without_being_unpacked(tmp_path, suffix):
    members = {"rock/a.mid": SONG + b"1", "jazz/b.ogg": SONG + b"2", "readme.txt": b"no song", "c.mid": SONG + b"3"}
    path = tmp_path / f"songs{suffix}"
    modes = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tbz2": "w:bz2"}
    zipped(path, members) if suffix == ".zip" else tar(path, members, mode=modes.get(suffix, "w:xz"))
    found = [(song.path, song.style, song.source, song.content()) for song in find([path])]
    assert found == [
        ("rock/a.mid", "rock", "songs", SONG + b"1"),
        ("jazz/b.ogg", "jazz", "songs", SONG + b"2"),
        ("c.mid", "songs", "songs", SONG + b"3"),
    ]
    assert list(tmp_path.iterdir()) == [path]


def test_what_would_leave_the_archive_is_refused_and_the_rest_is_read(tmp_path):
    bad = ["../out.mid", "/etc/x.mid", "a/../../b.mid", "..\\c.mid", "C:\\d.mid", "../../etc/passwd"]
    members = {name: SONG for name in bad} | {"rock/good.mid": SONG}
    for path in (tar(tmp_path / "t.tar.xz", members), zipped(tmp_path / "z.zip", members)):
        found = list(find([path]))
        refused = problems(found)
        assert len(refused) == len(bad)
        assert set(refused.values()) == {"its name leads out of the archive; refused"}
        assert [song.path for song in found if not song.problem] == ["rock/good.mid"]


def test_links_and_devices_in_an_archive_are_refused(tmp_path):
    path = tar(tmp_path / "t.tar", {"a.mid": SONG}, mode="w", links={"b.mid": "a.mid", "c.mid": "/etc/passwd"})
    with tarfile.open(path, "a") as archive:
        device = tarfile.TarInfo("d.mid")
        device.type = tarfile.CHRTYPE
        archive.addfile(device)
    refused = problems(list(find([path])))
    assert refused["b.mid"] == refused["c.mid"] == "a link, and only files are read from archives; refused"
    assert refused["d.mid"] == "not a regular file; refused"
    info = zipfile.ZipInfo("link.mid")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as zipped_link:
        zipped_link.writestr(info, "/etc/passwd")
    assert list(problems(list(find([tmp_path / "z.zip"]))).values()) == ["a link, and only files are read from archives; refused"]


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_UNPACKED_BYTES", 2**20)
    zeros = {"a.mid": bytes(2**22)}
    for path in (tar(tmp_path / "t.tar.xz", zeros), zipped(tmp_path / "z.zip", zeros)):
        with pytest.raises(ValueError, match="unpacks to more than 100 times its size: no music does; refused"):
            for song in find([path]):
                song.content()
    inside = tar(tmp_path / "hidden.tar.xz", {"notes.txt": bytes(2**22)})  # a file that is never asked for is passed over, not held
    with pytest.raises(ValueError, match="unpacks to more than 100 times"):
        list(find([inside]))


def test_a_song_too_large_for_an_archive_is_a_problem_of_that_song(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_MEMBER_BYTES", 1000)
    path = zipped(tmp_path / "z.zip", {"a.mid": bytes(1001), "b.mid": SONG})
    assert list(problems(list(find([path])))) == ["a.mid"]


def test_of_an_archive_that_breaks_off_what_came_before_is_used(tmp_path):
    whole = tar(tmp_path / "whole.tar", {f"{i}.mid": os.urandom(3000) for i in range(6)}, mode="w").read_bytes()
    (tmp_path / "t.tar").write_bytes(whole[:8000])
    ids, damaged = [], []
    for song in find([tmp_path / "t.tar"]):
        try:
            ids.append(song.song_id())
        except ValueError as error:
            damaged.append(str(error))
    assert len(ids) == 2
    assert any("cut short" in text for text in damaged)
    (tmp_path / "z.zip").write_bytes(b"PK\3\4 not a zip")
    assert "cut short or damaged" in problems(list(find([tmp_path / "z.zip"])))["z.zip"]


def test_an_archive_in_a_folder_is_a_source_like_its_files(tmp_path):
    put(tmp_path, "rock/a.mid")
    zipped(tmp_path / "more.zip", {"jazz/b.mid": SONG})
    assert styles(list(find([tmp_path]))) == {"jazz/b.mid": "jazz", "rock/a.mid": "rock"}


# --- strangers' bytes ------------------------------------------------------------------------------------------------------------------

ANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("honest")
    members = {"rock/a.mid": SONG, "b.wav": bytes(2000)}
    rows = [{"path": "a.mid", "style": "x", "licence": "CC0", "title": "t"}]
    made = [tar(folder / "t.tar.xz", members), tar(folder / "t.tar", members, mode="w"), zipped(folder / "t.zip", members)]
    return {path.name: path.read_bytes() for path in [*made, table(folder / "t.csv", *rows)]}


@ANY
@given(name=st.sampled_from(["t.tar.xz", "t.tar", "t.zip", "t.csv"]), at=st.floats(0, 1), bits=st.binary(min_size=1, max_size=40))
def test_damage_anywhere_is_a_problem_or_one_clear_error(tmp_path, honest, name, at, bits):
    data = bytearray(honest[name])
    place = int(at * (len(data) - 1))
    data[place : place + len(bits)] = bits
    (tmp_path / name).write_bytes(data)
    look(tmp_path / name)


@ANY
@given(name=st.sampled_from(["t.tar.xz", "t.tar", "t.zip", "t.csv"]), data=st.binary(max_size=600))
def test_any_bytes_under_any_name_are_a_problem_or_one_clear_error(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    look(tmp_path / name)


@pytest.mark.filterwarnings("ignore:.*no column")
def look(path: Path) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for song in find([path]):
                assert song.path.isprintable()
                try:
                    assert len(song.song_id()) == 16
                except (ValueError, OSError) as error:
                    assert str(error)
        except ValueError as error:
            assert "\n" not in str(error)
