"""Tags and cover of a song file: read from one kind, written to another.

Field names are those of Vorbis comments, in lower case: FLAC, Ogg and Opus hold them as they are. Whatever of a song's tags was true of
its old samples only (encoder delay, gain, the encoder's name) is not carried over. Errors of mutagen pass: who calls decides what tags
are worth.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ID3_FIELDS = {
    "TIT2": "title", "TPE1": "artist", "TALB": "album", "TPE2": "albumartist", "TDRC": "date", "TCON": "genre", "TRCK": "tracknumber",
    "TPOS": "discnumber", "TCOM": "composer", "TPE3": "conductor", "TEXT": "lyricist", "TCOP": "copyright", "TPUB": "organization",
    "TBPM": "bpm", "TSRC": "isrc", "TIT1": "grouping", "TIT3": "subtitle", "TLAN": "language", "TKEY": "initialkey",
}  # fmt: skip
_MP4_FIELDS = {
    "\xa9nam": "title", "\xa9ART": "artist", "\xa9alb": "album", "aART": "albumartist", "\xa9day": "date", "\xa9gen": "genre",
    "\xa9wrt": "composer", "cprt": "copyright", "\xa9cmt": "comment", "\xa9lyr": "lyrics", "\xa9grp": "grouping",
}  # fmt: skip
MADE = "StyleStream: as "  # what the comment of a result begins with
_MP4_FREEFORM = "----:com.apple.iTunes:"
_ASF_FIELDS = {
    "Title": "title", "Author": "artist", "Copyright": "copyright", "Description": "comment", "WM/AlbumTitle": "album",
    "WM/AlbumArtist": "albumartist", "WM/Year": "date", "WM/Genre": "genre", "WM/TrackNumber": "tracknumber", "WM/PartOfSet": "discnumber",
    "WM/Composer": "composer", "WM/Conductor": "conductor", "WM/Publisher": "organization", "WM/BeatsPerMinute": "bpm",
    "WM/ISRC": "isrc", "WM/Lyrics": "lyrics",
}  # fmt: skip
# What libsndfile writes into WAV's own INFO list, for the many programs that read no ID3 there
INFO_FIELDS = ("title", "artist", "album", "date", "genre", "comment", "copyright", "tracknumber")
# What was true of the old samples and is not of the new ones: encoder delay (a player would cut the start off), gain, encoder
_STALE = (
    *("itunsmpb", "itunnorm", "replaygain_", "r128_", "encoder", "encoding", "accuraterip", "cuesheet"),
    *("tlen", "tsse", "tenc", "tflt", "mllt", "rva2", "rvad", "equ2", "equa"),  # of ID3
)


def _stale(name: str) -> bool:
    return name.lower().startswith(_STALE)


@dataclass
class Tags:
    """What a song file says of itself to people."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    pictures: list[Any] = field(default_factory=list)  # mutagen.flac.Picture: type, mime, desc, data
    id3: list[Any] = field(default_factory=list)  # an ID3 song's own frames, copied as they are to an ID3 file

    def add(self, name: str, *values: Any) -> None:
        """Take in the texts of a field; what was true of the old samples only is passed over."""
        texts = [text for text in map(str, values) if text]
        if texts and not _stale(name):
            self.fields.setdefault(name.lower(), []).extend(texts)

    def note(self, text: str) -> None:
        """Add a comment to those that are there."""
        from mutagen.id3 import COMM

        self.add("comment", text)
        if self.id3:
            own: Any = next((frame for frame in self.id3 if frame.FrameID == "COMM" and not frame.desc), COMM(lang="XXX", text=[]))
            self.id3 = [frame for frame in self.id3 if frame is not own]
            self.id3.append(COMM(encoding=3, lang=own.lang, desc="", text=[*own.text, text]))

    def plain(self) -> dict[str, Any]:
        """Texts and pictures as what JSON holds; of an ID3 tag, what other kinds of file have too."""
        pictures = [[p.type, p.mime, p.desc, base64.b64encode(p.data).decode("ascii")] for p in self.pictures]
        return {"fields": self.fields, "pictures": pictures}

    @classmethod
    def of_plain(cls, plain: dict[str, Any]) -> Tags:
        """What `plain` gave.

        Raises
        ------
        ValueError
            If it is not of that shape.
        """
        tags = cls()
        try:
            for name, texts in plain["fields"].items():
                tags.add(str(name), *map(str, texts))
            for kind, mime, description, data in plain["pictures"]:
                tags.pictures.append(picture(int(kind), str(mime), str(description), base64.b64decode(data, validate=True)))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"these are no tags ({type(error).__name__})") from None
        return tags

    def __bool__(self) -> bool:
        return bool(self.fields or self.pictures)


def is_result(path: Path) -> bool:
    """Whether a file says of itself that it is the result of a transfer. One that cannot be read does not."""
    import mutagen

    try:
        comments = read_tags(path).fields.get("comment", [])
    except (mutagen.MutagenError, ValueError, OSError):
        return False
    return any(text.startswith(MADE) for text in comments)


def read_tags(path: Path) -> Tags:
    """Tags and pictures of a song file; empty where it has none or they are of no known kind."""
    import mutagen
    from mutagen.asf import ASFTags
    from mutagen.id3 import ID3
    from mutagen.mp4 import MP4Tags

    with path.open("rb") as opened:  # not by its name, which need not be valid text
        file = mutagen.File(opened)
    own = getattr(file, "tags", None)
    tags = Tags()
    if isinstance(own, ID3):
        _from_id3(own, tags)
    elif isinstance(own, MP4Tags):
        _from_mp4(own, tags)
    elif isinstance(own, ASFTags):
        _from_asf(own, tags)
    elif hasattr(own, "as_dict"):
        _from_vorbis(file, tags)
    return tags


def picture(kind: int, mime: str, description: str, data: bytes) -> Any:
    """A ``mutagen.flac.Picture``; kind 3 is the front cover."""
    from mutagen.flac import Picture

    picture = Picture()
    picture.type, picture.mime, picture.desc, picture.data = int(kind), mime, description, bytes(data)
    return picture


def _from_id3(own: Any, tags: Tags) -> None:
    for frame in own.values():
        name = getattr(frame, "desc", "") if frame.FrameID in ("TXXX", "COMM") else frame.FrameID
        if _stale(name):
            continue
        tags.id3.append(frame)
        if frame.FrameID == "APIC":
            tags.pictures.append(picture(frame.type, frame.mime, frame.desc, frame.data))
        elif frame.FrameID == "TXXX":
            tags.add(frame.desc, *frame.text)
        elif frame.FrameID == "COMM":
            tags.add("comment", *frame.text)
        elif frame.FrameID == "USLT":
            tags.add("lyrics", frame.text)
        elif frame.FrameID in _ID3_FIELDS:
            tags.add(_ID3_FIELDS[frame.FrameID], *frame.text)


def _from_mp4(own: Any, tags: Tags) -> None:
    from mutagen.mp4 import MP4Cover

    for key, values in own.items():
        if key in _MP4_FIELDS:
            tags.add(_MP4_FIELDS[key], *values)
        elif key in ("trkn", "disk"):
            number, total = values[0]
            tags.add("tracknumber" if key == "trkn" else "discnumber", f"{number}/{total}" if total else number or "")
        elif key == "tmpo":
            tags.add("bpm", *values)
        elif key == "covr":
            for cover in values:
                png = cover.imageformat == MP4Cover.FORMAT_PNG
                tags.pictures.append(picture(3, "image/png" if png else "image/jpeg", "", cover))
        elif key.startswith(_MP4_FREEFORM):
            tags.add(key[len(_MP4_FREEFORM) :], *(bytes(value).decode("utf-8", "replace") for value in values))


def _from_asf(own: Any, tags: Tags) -> None:
    for key, value in own:
        if key in _ASF_FIELDS:
            tags.add(_ASF_FIELDS[key], value.value)
        elif key == "WM/Picture":  # kind, size (little endian), then MIME type and description in UTF-16, each ended by two zeros
            data, size = value.value, int.from_bytes(value.value[1:5], "little")
            mime, description = data[5 : len(data) - size].decode("utf-16-le").split("\0")[:2]
            tags.pictures.append(picture(data[0], mime, description, data[len(data) - size :]))


def _from_vorbis(file: Any, tags: Tags) -> None:
    from mutagen.flac import Picture

    for name, values in file.tags.as_dict().items():
        if name.lower() == "metadata_block_picture":
            tags.pictures.extend(Picture(base64.b64decode(value)) for value in values)
        else:
            tags.add(name, *values)
    tags.pictures.extend(getattr(file, "pictures", []))


def write_tags(path: Path, format: str, subtype: str, tags: Tags) -> None:
    """Add tags to a song file of this container and codec (`audio.OutputFormat`'s words)."""
    if not tags or format == "RF64":  # mutagen does not know RF64; INFO is in it already
        return
    if format in ("FLAC", "OGG"):
        _write_vorbis(path, format, subtype, tags)
    elif format == "M4A":
        _write_mp4(path, tags)
    else:
        _write_id3(path, format, tags)


def _write_vorbis(path: Path, format: str, subtype: str, tags: Tags) -> None:
    from mutagen.flac import FLAC
    from mutagen.oggopus import OggOpus
    from mutagen.oggvorbis import OggVorbis

    file: Any = {"OPUS": OggOpus, "VORBIS": OggVorbis}.get(subtype, FLAC)(path)
    if file.tags is None:
        file.add_tags()
    for name, texts in tags.fields.items():
        if name.isascii() and name.isprintable() and "=" not in name and "~" not in name:  # what a Vorbis comment's name may hold
            file.tags[name] = texts
    if format == "FLAC":
        for picture in tags.pictures:
            file.add_picture(picture)
    elif tags.pictures:
        file.tags["metadata_block_picture"] = [base64.b64encode(picture.write()).decode("ascii") for picture in tags.pictures]
    file.save()


def _write_mp4(path: Path, tags: Tags) -> None:
    from mutagen.mp4 import MP4, MP4Cover, MP4FreeForm

    names = {name: key for key, name in _MP4_FIELDS.items()}
    file = MP4(path)
    for name, texts in tags.fields.items():
        if name in ("tracknumber", "discnumber"):
            file["trkn" if name == "tracknumber" else "disk"] = [_number_of_total(texts[0])]
        elif name == "bpm" and texts[0].isdecimal():
            file["tmpo"] = [min(int(texts[0]), 65_535)]
        elif name in names:
            file[names[name]] = texts
        else:
            file[_MP4_FREEFORM + name.upper()] = [MP4FreeForm(text.encode()) for text in texts]
    formats = {"image/png": MP4Cover.FORMAT_PNG, "image/jpeg": MP4Cover.FORMAT_JPEG, "image/jpg": MP4Cover.FORMAT_JPEG}
    covers = [MP4Cover(picture.data, formats[picture.mime]) for picture in tags.pictures if picture.mime in formats]
    if covers:
        file["covr"] = covers
    file.save()


def _number_of_total(text: str) -> tuple[int, int]:
    number, _, total = text.partition("/")
    return tuple(min(int(part), 65_535) if part.strip().isdecimal() else 0 for part in (number, total))  # type: ignore[return-value]


def _write_id3(path: Path, format: str, tags: Tags) -> None:
    from mutagen.aiff import AIFF
    from mutagen.mp3 import MP3
    from mutagen.wave import WAVE

    file: Any = {"MP3": MP3, "AIFF": AIFF}.get(format, WAVE)(path)
    if file.tags is None:
        file.add_tags()
    for frame in tags.id3 or _id3_frames(tags):
        file.tags.add(frame)
    file.save()


def _id3_frames(tags: Tags) -> Iterator[Any]:
    from mutagen import id3

    names = {name: frame for frame, name in _ID3_FIELDS.items()}
    for name, texts in tags.fields.items():
        frame = getattr(id3, names.get(name, "TXXX"))(encoding=3, text=texts)
        if name in names and [str(text) for text in frame.text] == texts:  # of a date it takes numbers only
            yield frame
        elif name == "comment":
            yield id3.COMM(encoding=3, lang="XXX", desc="", text=texts)
        elif name == "lyrics":
            yield id3.USLT(encoding=3, lang="XXX", desc="", text="\n\n".join(texts))
        else:
            yield id3.TXXX(encoding=3, desc=name, text=texts)
    for number, picture in enumerate(tags.pictures):
        # an ID3 tag keeps one picture of each description
        description = picture.desc if number == 0 else f"{picture.desc} ({number + 1})"
        yield id3.APIC(encoding=3, mime=picture.mime, type=picture.type, desc=description, data=picture.data)
