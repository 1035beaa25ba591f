"""The verbs: the only place that reads arguments and TOML. A verb's modules are imported when it is called.

Results go to stdout, progress, warnings and errors to stderr. A song that fails is one line with the reason, and the other songs are done.
Exit codes: 0 all done, 1 some songs failed or none could be found, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import math
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from stylestream import __version__
from stylestream.recipes import SCORE_SUFFIXES
from stylestream.sources import SONG_SUFFIXES, walk

if TYPE_CHECKING:
    from stylestream.style import Card, StyleEntry

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: importing rich would take longer than all the rest
    help="Play a song in the style of other music: the same notes and rhythm, another sound.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
styles_app = typer.Typer(rich_markup_mode=None, help="List, show, install and remove styles.")
app.add_typer(styles_app, name="styles")
dataset_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Thousands of songs as frames on disk.")
app.add_typer(dataset_app, name="dataset")

# click's own, wherever typer keeps it: older ones depend on click, newer ones carry it inside
_ClickException: Any = typer.BadParameter.__mro__[2]


# ------------------------------------------------------------------------------------------------- errors, exit codes, output


@dataclass
class Outcome:
    """What became of one song."""

    song: str
    output: str
    style: str | None = None
    error: str | None = None
    warnings: list[str] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code; no traceback for anything a user can cause."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # pytest's and others' streams have no encoding to set
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a file name need not be valid text
    warnings.showwarning = _print_warning
    if arguments is None:  # this process is ours: being told to end tidies up like Ctrl-C
        for name in ("SIGTERM", "SIGHUP"):  # of nohup's the second is ignored, and stays so
            if (number := getattr(signal, name, None)) and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _end)
    try:
        code = app(args=list(arguments) if arguments is not None else None, prog_name="stylestream", standalone_mode=False)
        sys.stdout.flush()
    except _ClickException as error:
        code = _click_failure(error, _dashed(arguments))
    except WrongUsage as error:
        code = _fail(f"{error}{_dashed(arguments)}", 2)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone; so does the flush at exit
        code = 1
    except (ValueError, OSError, MemoryError, ModuleNotFoundError, FloatingPointError) as error:
        code = _fail(reason(error), 1)
    if code == 130:  # newer typers make this of Ctrl-C themselves
        _fail("interrupted", 130)
    sys.exit(code if isinstance(code, int) else 0)


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _dashed(arguments: Sequence[str] | None) -> str:
    """The remedy for a file whose name begins with a dash and was read as options; of wrong usage any may be the cause."""
    words = itertools.takewhile(lambda word: word != "--", sys.argv[1:] if arguments is None else arguments)
    return next((f"; for the file {word!r} write ./{word}" for word in words if word.startswith("-") and os.path.lexists(word)), "")


def _click_failure(error: Any, remedy: str) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":  # the help is the message
        print(error.format_message(), file=sys.stderr)
        return 2
    message = error.format_message().removesuffix(".") if remedy else error.format_message()
    return _fail(f"{message}{remedy} (see `{context.command_path if context else 'stylestream'} --help`)", 2)


def _fail(message: str, code: int) -> int:
    print(f"stylestream: {_printable(message)}", file=sys.stderr)
    return code


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"stylestream: warning: {_printable(str(message))}", file=sys.stderr)


def _printable(text: str) -> str:
    """Return text on one line, without control characters: names and cards come from strangers, and a terminal obeys escapes.

    >>> _printable("a\\nb\\x1b[31mc")
    'a b[31mc'
    """
    return "".join(c for c in re.sub(r"\s+", " ", text) if c.isprintable() or c == "\u200d" or 0xDC80 <= ord(c) <= 0xDCFF).strip()


def _as_path(text: str) -> str:
    """A path on one line as it is, for whoever reads it, but for what a terminal would obey.

    >>> _as_path("a  b\\x1b[31m.wav")
    'a  b[31m.wav'
    """
    return re.sub(r"\S+", lambda word: _printable(word[0]), re.sub(r"[^\S ]", " ", text))


_REMEDIES = {
    errno.ENOSPC: "no space left on the disk; free some, or choose another place with -o",
    errno.EDQUOT: "your disk quota is used up; free some space, or choose another place with -o",
    errno.EACCES: "no permission; choose another place, or change the permissions",
    errno.EPERM: "not permitted; choose another place, or change the permissions",
    errno.EROFS: "the disk is read-only; choose another place with -o",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one with -o",
    errno.ENOENT: "no such file or folder",
    errno.EEXIST: "a file stands where a folder should be; choose another place with -o",
    errno.ENOTDIR: "a file stands where a folder should be; choose another place with -o",
}

# Which extra brings a package; the others come with StyleStream itself.
_EXTRAS = {
    "pyarrow": "train",
    "fsspec": "train",
    "ray": "scale",
    "gradio": "serve",
    "fastapi": "serve",
    "uvicorn": "serve",
    "symusic": "midi",
    "tensorboard": "train",
    "accelerate": "scale",
    "librosa": "eval",
    "mir_eval": "eval",
    "sklearn": "eval",
}


def reason(error: BaseException, *, written: Path | None = None) -> str:
    """Make one line of an exception: what was wrong, and the remedy where there is one.

    ``written`` is what was being written, for errors of the system that do not say where they happened.
    """
    if isinstance(error, MemoryError):
        return "not enough memory; close other programs, or use a shorter song"
    if isinstance(error, ModuleNotFoundError):
        wanted = _EXTRAS.get((error.name or "").split(".")[0])
        return f"{error.name} is missing: pip install 'stylestream{f'[{wanted}]' if wanted else ''}'"
    if isinstance(error, OSError) and error.errno is not None:
        file = error.filename or written
        place = f"{_text(file)}: " if file else ""
        return _printable(place + _REMEDIES.get(error.errno, error.strerror or "failed"))
    return _printable(str(error)) or type(error).__name__


def _text(path: str | bytes | os.PathLike[str]) -> str:
    return os.fsdecode(path)


class WrongUsage(Exception):
    """What was asked for cannot be: the message is one line; the exit code is 2."""


@contextlib.contextmanager
def _wrong_usage() -> Iterator[None]:
    """What fails in here was asked for wrongly: a style that does not exist is exit code 2, not 1."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise WrongUsage(reason(error)) from None


def _report(outcomes: list[Outcome], *, as_json: bool) -> int:
    """Print the list of failures, or everything as JSON; return the exit code."""
    failed = [outcome for outcome in outcomes if outcome.error]
    if as_json:
        print(json.dumps({"songs": [asdict(outcome) for outcome in outcomes], "failed": len(failed)}, ensure_ascii=False, indent=1))
    if len(outcomes) > 1 and failed:
        print(f"stylestream: {len(failed)} of {len(outcomes)} failed", file=sys.stderr)
    return 1 if failed or not outcomes else 0


def _run(jobs: Sequence[Job], work: Callable[[Job, Callable[[float], None]], list[str]], *, force: bool, as_json: bool) -> int:
    """Do every job under one progress bar. A failure is recorded and the rest go on.

    ``work`` gets the job and a function to tell the done fraction, and returns warnings.
    """
    outcomes = []
    with _progress_bar(len(jobs)) as advance:
        for index, job in enumerate(jobs):
            outcome = Outcome(_text(job.song), _text(job.output), job.style)
            made: list[Path] = []
            try:
                _check_output(job, force=force)
                made = _make_folders(job.output.parent)
                outcome.warnings = work(job, lambda fraction, index=index, job=job: advance(index + fraction, job.song.name))  # type: ignore[misc]
            except (ValueError, OSError, MemoryError, ModuleNotFoundError, RuntimeError) as error:  # torch's own are RuntimeErrors
                outcome.error = reason(error, written=job.output)
                named = _text(job.song) in outcome.error
                print("stylestream: " + ("" if named else f"{_printable(_text(job.song))}: ") + outcome.error, file=sys.stderr)
            else:
                if not as_json:
                    print(_as_path(outcome.output))
            finally:
                for folder in made:  # of a song that came to nothing no folder stays either
                    with contextlib.suppress(OSError):  # it is not empty, as it should be
                        folder.rmdir()
            for warning in outcome.warnings:
                print(f"stylestream: warning: {_printable(_text(job.song))}: {_printable(_unnamed(warning, job))}", file=sys.stderr)
            outcomes.append(outcome)
            advance(index + 1, job.song.name)
    return _report(outcomes, as_json=as_json)


def _unnamed(warning: str, job: Job) -> str:
    return warning.removeprefix(f"{job.song}: ")


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it; return the new ones, the innermost first."""
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return new


@contextlib.contextmanager
def _progress_bar(total: int) -> Iterator[Callable[[float, str], None]]:
    """Give a function that shows how many songs are done (a real number) and which is in work. Silent where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda done, name: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("", total=total)
        yield lambda done, name: bar.update(task, completed=done, description=escape(_printable(name)))


# ------------------------------------------------------------------------------------------------------- songs and their outputs

# The output's suffix where it is not the song's own; any other kind of song becomes WAV.
_OUTPUT_SUFFIX = {".mp4": ".m4a", ".m4b": ".m4a", ".aac": ".m4a", ".mp2": ".mp3"}
_WRITABLE = frozenset((".wav", ".wave", ".aif", ".aiff", ".aifc", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a"))


@dataclass(frozen=True)
class Song:
    """A song that was asked for, and its place below the folder that was named (None if the song itself was named)."""

    path: Path
    below: Path | None = None


@dataclass(frozen=True)
class Job:
    """One song to be made in one style."""

    song: Path
    output: Path
    style: str | None = None


def find_songs(sources: Sequence[Path], suffixes: Collection[str], *, without: Path | None = None) -> list[Song]:
    """List songs: files as they are given, folders with all below them, in order of name; each once.

    Parameters
    ----------
    sources : sequence of Path
        Files are taken whatever they are called, so that a wrong one is reported; of folders, files with a known suffix.
    without : Path, optional
        The output folder: what lies in it is not a song, even if it lies in a source.
    """
    songs = []
    for source in sources:
        if source.is_dir():
            songs += [Song(path, path.parent.relative_to(source)) for path in walk(source, suffixes, without=without)]
        else:
            songs.append(Song(source))
    each: dict[str, Song] = {}
    for song in _without_results(songs):
        each.setdefault(os.path.realpath(song.path), song)
    return list(each.values())


def _without_results(songs: Sequence[Song]) -> list[Song]:
    """Leave out what a folder holds of results beside their songs: `waltz-rock.mp3` beside `waltz.mp3`, if its tags say that it is one."""
    from stylestream.tags import is_result

    stems = {(song.path.parent, song.path.stem) for song in songs}
    kept, results = list[Song](), list[Song]()
    for song in songs:
        words = song.path.stem.split("-")
        beside = any((song.path.parent, "-".join(words[:n])) in stems for n in range(1, len(words)))
        (results if song.below is not None and beside and is_result(song.path) else kept).append(song)
    if results:
        named = ", ".join(str(song.path) for song in results[:3]) + (", …" if len(results) > 3 else "")
        warnings.warn(f"results of songs beside them are not played: {named}; name one to play it", stacklevel=2)
    return kept


def plan(songs: Sequence[Song], styles: Sequence[str], out: str | None, *, default_suffix: str | None = None) -> list[Job]:
    """Give every song in every style its output path.

    ``out`` is a template if it has ``{name}``, ``{style}``, ``{suffix}`` (the song's own, without its dot) or ``{folder}`` (where the song
    lies below the folder that was named); a folder if it ends in a slash, is one, has no suffix, or there are several outputs; else a file.
    Without it the output is ``NAME-STYLE.SUFFIX`` here. A suffix is the song's own, MIDI becomes WAV. What the call before wrote beside the
    songs is no song (`find_songs` knows what others wrote).

    >>> [str(job.output) for job in plan([Song(Path("a/waltz.mp3"))], ["rock"], None)]
    ['waltz-rock.mp3']
    >>> [str(job.output) for job in plan([Song(Path("x.mid")), Song(Path("y.ogg"))], ["rock"], "out/{style}/{name}")]
    ['out/rock/x.wav', 'out/rock/y.ogg']
    """
    if out == "-":
        raise WrongUsage("-o -: results are files; give a file, a folder or a template")
    names = [style_name(style) for style in styles]
    jobs = [
        Job(song.path, _output(song, name, out, default_suffix), style) for song in songs for style, name in zip(styles, names, strict=True)
    ]
    if out is not None and not _is_template(out) and not _is_folder(out):
        if len(jobs) > 1:
            several = f"-o {out} is one file, there are {len(jobs)} songs to write"
            raise WrongUsage(f"{several}; give a folder, or a template such as '{{name}}-{{style}}.wav'")
        return [Job(job.song, Path(out), job.style) for job in jobs]
    written = {os.path.realpath(job.output): job.song for job in jobs}
    for song in songs:
        if song.below is None and (other := written.get(os.path.realpath(song.path), song.path)) != song.path:
            warnings.warn(f"{song.path} is what {other} becomes; it is not played itself", stacklevel=2)
    jobs = [job for job in jobs if written.get(os.path.realpath(job.song), job.song) == job.song]
    _check_distinct(jobs)
    return jobs


def style_name(style: str) -> str:
    """Name a style for file names: of a path the stem, of a blend its shares in percent."""
    from stylestream.blend import label, parse

    return label(parse(style))


def _is_template(out: str) -> bool:
    return "{" in out


def _is_folder(out: str) -> bool:
    return out.endswith(("/", os.sep)) or Path(out).is_dir() or not Path(out).suffix


def _output(song: Song, style: str, out: str | None, default_suffix: str | None) -> Path:
    own = _OUTPUT_SUFFIX.get(song.path.suffix.lower(), song.path.suffix)
    suffix = default_suffix or (own if own.lower() in _WRITABLE and not _too_many_channels(song.path, own) else ".wav")
    below = str(song.below or "")
    if out is not None and _is_template(out):
        out = out.removesuffix(".{suffix}")  # the result's is added below; it may be another
        path = Path(_fill(out, {"name": song.path.stem, "style": style, "suffix": song.path.suffix[1:], "folder": below or "."}))
        return path if Path(out).suffix and "}" not in Path(out).suffix else path.with_name(path.name + suffix)
    name = f"{song.path.stem}-{style}{suffix}" if style else f"{song.path.stem}{suffix}"
    return Path(out or "") / below / name


def _too_many_channels(song: Path, suffix: str) -> bool:
    """Whether it is the sound of a film, say, for which this kind of file that is written has no room."""
    if suffix != ".m4a":
        return False
    from stylestream import audio

    with contextlib.suppress(ValueError, OSError):  # said when it is its turn
        found = audio.info(song)
        return found.channels > 2 and audio.output_suffix(found) == ".wav"
    return False


def _fill(template: str, values: dict[str, str]) -> str:
    unknown = [name for name in re.findall(r"\{([^{}]*)\}", template) if name not in values]
    if unknown or re.sub(r"\{[^{}]*\}", "", template).strip("{}") != re.sub(r"\{[^{}]*\}", "", template):
        known = ", ".join(f"{{{name}}}" for name in values)
        raise WrongUsage(f"-o {template}: a template knows {known}" + (f", not {{{unknown[0]}}}" if unknown else ""))
    return re.sub(r"\{([^{}]*)\}", lambda match: values[match[1]], template)


def _check_distinct(jobs: Sequence[Job]) -> None:
    seen: dict[Path, Job] = {}
    for job in jobs:
        other = seen.setdefault(job.output, job)
        if other is not job:
            if other.song == job.song and style_name(str(other.style)) != style_name(str(job.style)):
                raise WrongUsage(f"{other.style} and {job.style} would both become {job.output}; add {{style}} to the template")
            if other.song == job.song:
                raise WrongUsage(f"{other.style} and {job.style} have one name and would both write {job.output}; play one at a time")
            remedy = "give a folder, or a template with {folder}, {name}, {suffix} and {style}"
            raise WrongUsage(f"{other.song} and {job.song} would both become {job.output}; {remedy}")


def _check_output(job: Job, *, force: bool) -> None:
    if not job.song.exists():
        raise FileNotFoundError(f"{job.song}: no such file or folder")
    if job.output.is_dir():
        raise IsADirectoryError(f"{job.output} is a folder; choose another name with -o")
    if job.output.exists() and job.output.samefile(job.song):
        raise FileExistsError(f"{job.output} is the song itself; choose another name with -o")
    if job.output.exists() and not force:
        raise FileExistsError(f"{job.output} exists; use --force to replace it, or choose another name with -o")


def _no_song(sources: Sequence[Path], suffixes: Collection[str]) -> int:
    return _fail(f"no song found in {', '.join(map(str, sources))} (looked for {' '.join(sorted(suffixes))})", 1)


# ---------------------------------------------------------------------------------------------------------------------- options


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a number on the dial")
    return value


def _finite_or_none(value: float | None) -> float | None:
    return None if value is None else _finite(value)


Force = Annotated[bool, typer.Option("--force", help="Replace outputs that exist.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Seed = Annotated[int, typer.Option(help="Equal seeds give equal songs.", min=0, max=2**63 - 1)]
Device = Annotated[str, typer.Option("-d", "--device", help="cpu, cuda, cuda:1 or mps.")]
Strength = Annotated[float, typer.Option(help="How far to go: 0 gives the song back, 1 is the style.", min=0.0, max=1.0, callback=_finite)]
Dream = Annotated[
    float, typer.Option(help="How much is the style's own instead of the song's: 0 nothing, 8 all.", min=0.0, callback=_finite)
]
Grain = Annotated[float, typer.Option(help="How much fine texture is drawn.", min=0.0, max=1.0, callback=_finite)]
Drums = Annotated[
    float,
    typer.Option(
        help="How loud the style's drummer plays along: 0 not at all, 0.5 as in its songs, 1 12 dB more.",
        min=0.0,
        max=1.0,
        callback=_finite,
    ),
]

Width = Annotated[
    float,
    typer.Option(
        help="Where the style is wider than a stereo song: 0 keeps the song's image, 1 is as wide as the style.",
        min=0.0,
        max=1.0,
        callback=_finite,
    ),
]


def _version(value: bool) -> None:
    if value:
        print(f"stylestream {__version__}")
        raise typer.Exit


@app.callback()
def _app(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    """Hold the options that come before the verb."""


# ------------------------------------------------------------------------------------------------------------------- transfer


@app.command()
def transfer(
    songs: Annotated[list[Path], typer.Argument(metavar="SONG|DIR...", help="Audio or MIDI files, or folders of them.")],
    style: Annotated[
        list[str],
        typer.Option(
            "-s",
            "--style",
            help="A name of `stylestream styles`, a style file, a recording, or a blend: rock:0.6,strings:0.4. Repeat for several.",
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "-o", "--out", help="A file; for several a folder, or a template: {name} {style} {suffix} {folder}. Default: NAME-STYLE here."
        ),
    ] = None,
    strength: Strength = 1.0,
    dream: Dream = 0.0,
    grain: Grain = 0.5,
    drums: Drums = 0.0,
    width: Width = 0.0,
    seed: Seed = 0,
    device: Device = "cpu",
    subtype: Annotated[
        str | None, typer.Option(help="Sample format of WAV and FLAC: PCM_16, PCM_24, FLOAT, … Default: the song's.")
    ] = None,
    force: Force = False,
    json_: Json = False,
) -> int:
    """Play songs in a style."""
    from stylestream.blend import locate

    style = list(dict.fromkeys(style))
    with _wrong_usage():
        for name in style:
            locate(name)
    suffixes = SONG_SUFFIXES
    found = find_songs(songs, suffixes, without=_folder_of(out))
    if not found:
        return _no_song(songs, suffixes)
    jobs = plan(found, style, out)

    from stylestream.transfer import Dials, load_style, transfer_file

    _check_formats(jobs, subtype)
    dials = Dials(strength=strength, dream=dream, grain=grain, drums=drums, width=width, seed=seed)
    with _wrong_usage():
        loaded = {name: load_style(name, device=device) for name in style}
        for name, ready in loaded.items():
            _check_dials(name if len(loaded) > 1 else "", ready, dials)

    def work(job: Job, progress: Callable[[float], None]) -> list[str]:
        assert job.style is not None
        result = transfer_file(loaded[job.style], job.song, job.output, **asdict(dials), subtype=subtype, progress=progress)
        return result.warnings

    return _run(jobs, work, force=force, as_json=json_)


def _check_formats(jobs: Sequence[Job], subtype: str | None) -> None:
    """Wrong usage if no output can be written so, whatever its song is; if some can, the others fail one by one."""
    from stylestream.audio import SongInfo, output_format

    wrong = None
    for job in jobs:
        try:
            output_format(SongInfo(44_100, 1, None, "WAV", "PCM_16", None), job.output, subtype)
        except ValueError as error:
            wrong = wrong or error
        else:
            return
    assert wrong is not None  # there are jobs
    raise WrongUsage(reason(wrong))


def _check_dials(name: str, style: Any, dials: Any) -> None:
    """Name the one of several styles that a dial does not suit."""
    try:
        style.check(dials)
    except ValueError as error:
        raise ValueError(f"{name}: {error}" if name else str(error)) from None


def _folder_of(out: str | None) -> Path | None:
    """Return the folder all outputs lie in, if they have one of their own."""
    if out is None:
        return None
    fixed = Path(out.split("{")[0]) if _is_template(out) else Path(out)
    return fixed if fixed != Path() else None


# --------------------------------------------------------------------------------------------------------------------- render


@app.command()
def render(
    songs: Annotated[list[Path], typer.Argument(metavar="MIDI|DIR...", help="MIDI files, or folders of them.")],
    out: Annotated[str, typer.Option("-o", "--out", help="A folder, or for one song a file.")],
    soundfont: Annotated[str | None, typer.Option(help="fluidr3, musescore, or the path of an SF2 or SF3 file.")] = None,
    force: Force = False,
    json_: Json = False,
) -> int:
    """Play MIDI files with a SoundFont and write the sound."""
    found = find_songs(songs, SCORE_SUFFIXES, without=_folder_of(out))
    if not found:
        return _no_song(songs, SCORE_SUFFIXES)
    jobs = plan(found, [""], out, default_suffix=".wav")

    from stylestream.midi import Synthesizer

    with _wrong_usage():
        synthesizer = Synthesizer(soundfont)

    def work(job: Job, progress: Callable[[float], None]) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            _render_file(synthesizer, job, progress)
        return [_unnamed(str(warning.message), job) for warning in caught]

    with synthesizer:
        return _run(jobs, work, force=force, as_json=json_)


def _render_file(synthesizer: Any, job: Job, progress: Callable[[float], None]) -> None:
    from stylestream import audio, midi

    score = midi.load_score(job.song)
    seconds = max(midi.duration_seconds(score), 1e-3)
    done_seconds = 0.0
    rate = synthesizer.sample_rate
    output = audio.output_format(audio.SongInfo(rate, 2, None, "MIDI", "PCM_16", seconds), job.output)
    resampler = audio.Resampler(rate, output.sample_rate, 2)  # Opus has no 44.1 kHz
    with audio.Writer(job.output, **vars(output)) as writer:
        for block in synthesizer.blocks(score, 10 * rate):
            writer.write(resampler.push(block))
            done_seconds += block.shape[-1] / rate
            progress(min(done_seconds / seconds, 1.0))
        writer.write(resampler.flush())


# --------------------------------------------------------------------------------------------------------------------- styles


@styles_app.callback(invoke_without_command=True)
def _styles(context: typer.Context, json_: Json = False) -> int:
    """List, show, install and remove styles. Alone: list."""
    if json_ and context.invoked_subcommand is not None:
        raise WrongUsage(f"--json comes after {context.invoked_subcommand}: stylestream styles {context.invoked_subcommand} --json")
    return styles_list(json_=json_) if context.invoked_subcommand is None else 0


@styles_app.command("list")
def styles_list(json_: Json = False) -> int:
    """List the styles that are bundled or installed."""
    from stylestream.style import list_styles

    entries = list_styles()
    if json_:
        print(json.dumps({"styles": [_entry_json(entry) for entry in entries]}, ensure_ascii=False, indent=1))
        return 0
    width = max((len(entry.name) for entry in entries), default=0)
    for entry in entries:
        text = _summary(entry.card) if entry.card else f"cannot be read: {entry.problem}"
        print(_printable(f"{entry.name:{width}}  {text}" + ("" if entry.bundled else f"  [{entry.path}]")))
    if not entries:
        print("no styles are installed; `stylestream styles install FILE` adds one", file=sys.stderr)
    return 0


def _summary(card: Card) -> str:
    return f"{card.title} · {card.hours:.1f} h of music · {card.licence}"


def _entry_json(entry: StyleEntry) -> dict[str, Any]:
    values = {"name": entry.name, "path": str(entry.path), "bundled": entry.bundled, "bytes": entry.size_bytes}
    return {**values, "card": asdict(entry.card) if entry.card else None, "problem": entry.problem or None}


@styles_app.command("show")
def styles_show(name: Annotated[str, typer.Argument(metavar="NAME|FILE|BLEND")], json_: Json = False) -> int:
    """Show a style's card: what it was trained on, under which licences, and how well it does. A blend's has the sources of all."""
    from stylestream.blend import locate, parse

    with _wrong_usage():
        paths = locate(name)
        card, widths = _card_and_widths(name, paths)
    if json_:
        parts = [
            {"name": part, "path": str(path), "bytes": path.stat().st_size, "share": share}
            for path, (part, share) in zip(paths, parse(name), strict=True)
        ]
        about = {"name": style_name(name), "card": asdict(card), "widths": widths}
        print(json.dumps((parts[0] if len(parts) == 1 else {"styles": parts}) | about, ensure_ascii=False, indent=1))
        return 0
    for line in (*card_lines(card, *paths), *width_lines(widths)):
        print(_printable(line) if not line.startswith(" ") else "  " + _printable(line))
    return 0


def _card_and_widths(name: str, paths: Sequence[Path]) -> tuple[Card, Sequence[float]]:
    from stylestream.blend import is_recording, load_blend
    from stylestream.style import read_card, read_widths

    if len(paths) == 1 and not is_recording(paths[0]):
        return read_card(paths[0]), read_widths(paths[0])  # from the file's header: torch would take longer than all the rest
    made = load_blend(name)
    return made.card, made.widths


def card_lines(card: Card, *paths: Path) -> Iterator[str]:
    """Yield a card as text, with the files that it is of."""
    yield card.title
    for text in (card.description, card.notes):
        if text:
            yield text
    for heading, text in (("for", card.intended_use), ("limits", card.limits)):
        if text:
            yield f"{heading}: {text}"
    for path in paths:
        yield f"file: {path} ({path.stat().st_size / 1024:.0f} KiB)"
    yield f"licence: {card.licence}" + (f", by {card.author}" if card.author else "")
    if card.training_steps:  # a blend and a recording were not trained
        yield f"trained: {card.training_steps} steps, {card.training_minutes:.0f} minutes, {card.training_device or 'device not said'}"
    yield f"on {card.hours:.1f} hours of music:"
    for source in card.sources:
        yield f"  {source.name}: {source.songs} songs, {source.hours:.1f} h, {source.licence}" + (
            f", {source.address}" if source.address else ""
        )
    yield from metric_lines(card.metrics)


SHOWN = {"log_mel_l1": "log-mel L1 in dB", "mfcc": "MFCC distance", "note_auc": "note AUC", "flux": "flux corr."}  # of some thirty


def metric_lines(metrics: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Yield a card's numbers as text: a few columns of an evaluation, all of anything else.

    >>> print(*metric_lines({"copy": {"mfcc": 119.2, "lsd": 9.3}, "rock": {"mfcc": 16.6, "lsd": 6.2}}), sep="\\n")
    on songs it has not heard (more of it: --json):
      MFCC distance: copy 119, rock 16.6
    """
    shown = {key: title for key, title in SHOWN.items() if any(key in columns for columns in metrics.values())}
    if shown:
        yield "on songs it has not heard (more of it: --json):"
        rows = {title: {row: columns[key] for row, columns in metrics.items() if key in columns} for key, title in shown.items()}
    for row, columns in (rows if shown else metrics).items():
        yield f"  {row}: " + ", ".join(f"{name} {value:.3g}" for name, value in columns.items())


def width_lines(widths: Sequence[float]) -> Iterator[str]:
    """Yield how wide a style's music is, as text.

    >>> [*width_lines([0.0, 0.1, 0.5])]
    ['width, side over mid in octaves from 63 Hz up: none, -10, -3 dB']
    """
    if widths and not any(widths):
        yield "width: everything is in the middle"
    elif widths:
        levels = (f"{10 * math.log10(width):.0f}" if width > 0 else "none" for width in widths)
        yield f"width, side over mid in octaves from 63 Hz up: {', '.join(levels)} dB"


@styles_app.command("install")
def styles_install(file: Annotated[Path, typer.Argument(metavar="FILE")], force: Force = False) -> int:
    """Copy a style file to your style folder, so that its name finds it."""
    from stylestream.style import install_style

    with _wrong_usage():
        print(_printable(str(install_style(file, force=force))))
    return 0


@styles_app.command("remove")
def styles_remove(name: Annotated[str, typer.Argument(metavar="NAME")]) -> int:
    """Remove a style from your style folder."""
    from stylestream.style import remove_style

    with _wrong_usage():
        print(_printable(str(remove_style(name))))
    return 0


# ----------------------------------------------------------------------------------------------------------------------- demo

DEMO_SONG = Path(__file__).parent / "demo" / "lamplight.ogg"


@app.command()
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder for STYLE.wav and STYLE.png.")] = Path("demo"),
    force: Force = False,
    json_: Json = False,
) -> int:
    """Play the bundled song in every bundled style, and draw the results. Offline, in a minute."""
    from stylestream.style import list_styles

    styles = {entry.name: entry.path for entry in list_styles() if entry.bundled}
    if not styles:
        raise ValueError("no styles are bundled with this installation; install a release, or train them with `make styles`")

    from stylestream.transfer import load_style, transfer_file

    def work(job: Job, progress: Callable[[float], None]) -> list[str]:
        assert job.style is not None
        result = transfer_file(load_style(styles[job.style]), job.song, job.output, progress=progress)
        _draw_pair(job)
        return result.warnings

    return _run([Job(DEMO_SONG, out / f"{name}.wav", name) for name in styles], work, force=force, as_json=json_)


def _draw_pair(job: Job) -> None:
    from stylestream import audio, plots
    from stylestream.files import whole_file

    song, sample_rate = audio.load(job.song)
    result, _ = audio.load(job.output, sample_rate=sample_rate)
    with whole_file(job.output.with_suffix(".png")) as temporary:
        titles = ("the song: “Lamplight”, for flute, clarinet, harp and double bass", f"the result: “Lamplight” in the style {job.style}")
        plots.plot_pair(temporary, song, result, sample_rate, titles=titles)


# --------------------------------------------------------------------------------------------------------------------- doctor


@app.command()
def doctor(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Folders, files, archives or manifests of audio and MIDI.")],
    jobs: Annotated[int | None, typer.Option("-j", "--jobs", help="Processes. Default: one a core.", min=1)] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that one file may take.", min=0.1, callback=_finite)] = 300.0,
    brief: Annotated[bool, typer.Option("--brief", help="Leave out the files that nothing is wrong with.")] = False,
    json_: Json = False,
) -> int:
    """Say what is wrong with music before it is used: a line for each file, a verdict on the whole."""
    from stylestream import doctor as practice

    with _counter("files") as count:
        checkups, diagnosis = practice.check(sources, jobs=jobs, timeout_seconds=timeout, progress=count)
    if json_:
        print(json.dumps(practice.as_json(checkups, diagnosis), ensure_ascii=False, indent=1))
    else:
        for checkup in checkups:
            if not brief or checkup.findings:
                print(_printable_columns(practice.line(checkup)))
        print()
        for line in practice.verdict_lines(diagnosis):
            print(_printable_columns(line))
    return 1 if diagnosis.usable < diagnosis.files or diagnosis.severity == "fault" else 0


@contextlib.contextmanager
def _counter(things: str) -> Iterator[Callable[[int, str], None]]:
    """Give a function that shows how many are done, of who knows how many, and the last one's name. Silent where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda done, name: None
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status("") as status:
        yield lambda done, name: status.update(f"{done:,} {things}  {escape(_printable(name))}")


def _printable_columns(line: str) -> str:
    """A line fit for a terminal, its columns kept."""
    return "".join(_printable(part) or part for part in re.split(r"( {2,})", line))


# -------------------------------------------------------------------------------------------------------------------- dataset

Data = Annotated[str, typer.Argument(metavar="DATA", help="A dataset's folder, or an address that fsspec knows.")]


@dataset_app.command("info")
def dataset_info(
    data: Data,
    picture: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw it, too.")] = None,
    force: Force = False,
    json_: Json = False,
) -> int:
    """Say what is in a dataset: songs and hours by style, licence and source, lengths, levels, failures by reason."""
    if picture is not None and picture.exists() and not force:
        raise WrongUsage(f"{picture} exists; use --force to replace it, or choose another name with --picture")

    from stylestream import audit
    from stylestream.dataset import Dataset
    from stylestream.files import whole_file

    opened = Dataset(data)
    summary = audit.summarise(opened)
    if json_:
        print(json.dumps(summary.to_json(), ensure_ascii=False, indent=1))
    else:
        for line in audit.summary_lines(summary):
            print(_printable_columns(line))
    if picture is not None:
        with whole_file(picture) as temporary:
            audit.draw(opened, temporary)
    return 0


@dataset_app.command("verify")
def dataset_verify(
    data: Data,
    jobs: Annotated[int | None, typer.Option("-j", "--jobs", help="Processes. Default: one a core.", min=1)] = None,
    json_: Json = False,
) -> int:
    """Read every byte of a dataset, and name the song and shard of whatever is not as it was written."""
    from stylestream import audit, parallel
    from stylestream.dataset import Dataset

    opened = Dataset(data)
    faults = []
    with _progress_bar(1) as advance:
        for fault in audit.verify(opened, jobs=jobs or parallel.cores(), progress=lambda n, total, name: advance(n / total, name)):
            faults.append(fault)
            if not json_:
                print(_printable(str(fault)))
    size = sum(int(shard["bytes"]) for shard in opened.description.shards)
    if json_:
        print(json.dumps({"data": data, "songs": len(opened), "bytes": size, "faults": [asdict(f) for f in faults]}, indent=1))
    elif not faults:
        count = len(opened.description.shards)
        print(_printable(f"{data}: whole: {len(opened):,} songs in {count:,} shard{'' if count == 1 else 's'}, {size / 1e6:,.1f} MB read"))
    if faults:
        faulty = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        _say(f"{faulty} in {data}; the `stylestream dataset build` that made it repairs it, or copy it again from where it is whole")
    return 1 if faults else 0


@dataset_app.command("build")
def dataset_build(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Folders, globs, archives, CSV or Parquet manifests.")],
    out: Annotated[
        Path,
        typer.Option("-o", "--out", help="The dataset's folder. The same command goes on where it stopped, and repairs."),
    ],
    jobs: Annotated[int | None, typer.Option("-j", "--jobs", help="Worker processes. Default: one a core.", min=1)] = None,
    engine: Annotated[str, typer.Option(help="local, or ray: the cluster at $RAY_ADDRESS or on this machine.")] = "local",
    max_seconds: Annotated[float, typer.Option(help="Of a song at most, from its beginning.", min=0.0, callback=_finite)] = 0.0,
    views: Annotated[int, typer.Option(help="Re-orchestrations of each score, aligned with it.", min=0, max=9)] = 0,
    songs: Annotated[int, typer.Option(help="So many songs, chosen by their ids. 0: all.", min=0)] = 0,
    drums: Annotated[bool, typer.Option("--drums/--no-drums", help="Whether scores keep their drums.")] = True,
    keep_audio: Annotated[str, typer.Option(help="Keep the sound, too: flac or opus.")] = "",
    soundfont: Annotated[str, typer.Option(help="fluidr3, musescore, or a file: what plays scores.")] = "fluidr3",
    timeout_seconds: Annotated[float, typer.Option(help="For one song, then it is given up.", min=0.1, callback=_finite)] = 600.0,
    memory_mib: Annotated[int, typer.Option(help="That one song may take.", min=64)] = 4096,
    json_: Json = False,
) -> int:
    """Turn songs into a dataset: found, rendered or decoded, transformed, compressed."""
    from stylestream import builder
    from stylestream.dataset import DatasetConfig
    from stylestream.parallel import ENGINES

    if engine not in ENGINES:
        raise WrongUsage(f"--engine {engine}: there are {', '.join(ENGINES)}")
    config = DatasetConfig(max_seconds, views, drums, soundfont, songs, keep_audio, timeout_seconds, memory_mib)
    with _wrong_usage():
        builder.check(config)
    with _build_progress() as progress:
        done = builder.build(sources, out, config=config, jobs=jobs, engine=engine, progress=progress)
    _report_build(out, done, as_json=json_)
    return 1 if done.failures else 0


SECONDS_BETWEEN_LINES = 30.0  # of progress, where stderr is no terminal


@contextlib.contextmanager
def _build_progress() -> Iterator[Callable[[Any, str], None]]:
    """Give a function of (how far it is, what failed): one line that changes; where stderr is no terminal, a line now and then."""
    shown = [-math.inf]
    live = sys.stderr.isatty()
    clear = "\r\x1b[2K" if live else ""

    def progress(done: Any, failure: str) -> None:
        if failure:
            print(f"{clear}stylestream: {_printable(failure)}", file=sys.stderr)
        if time.monotonic() - shown[0] >= (0.2 if live else SECONDS_BETWEEN_LINES):
            shown[0] = time.monotonic()
            print(f"{clear}{done.line()}", end="" if live else "\n", file=sys.stderr, flush=True)

    yield progress
    print(clear, end="", file=sys.stderr)


def _report_build(out: Path, done: Any, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"dataset": _text(out), **done.summary()}, ensure_ascii=False, indent=1))
        return
    print(_printable(_text(out)))
    print(f"stylestream: {done.line()}", file=sys.stderr)
    for why, count in done.failures.most_common():
        print(f"stylestream: {count} × {_printable(why)}", file=sys.stderr)


# ---------------------------------------------------------------------------------------------------------------------- train

CONFIGS = Path(__file__).parent / "configs"


@app.command()
def train(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE...", help="Folders or files of MIDI or audio, a collection with midi.csv, or one built dataset."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The style file to write. Checkpoints lie in OUT.ckpt/.")],
    config: Annotated[str, typer.Option("-c", "--config", help="tiny, default, a bundled style's name, or a TOML file.")] = "default",
    base: Annotated[
        str | None, typer.Option("--from", help="base, none, or a style's name or file. Default: base, if the config has its size.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Train so long, rendering included. Default: the config's; 10 from a base, 60 from nothing.",
            min=0.01,
            callback=_finite_or_none,
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Train so many steps: the same on every run.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="With --steps, equal seeds give equal styles.", min=0, max=2**63 - 1)] = 0,
    device: Device = "cpu",
    model: Annotated[str, typer.Option(help="draw; or plain, lstm2017: what a style has to beat.")] = "draw",
    jobs: Annotated[int | None, typer.Option("-j", "--jobs", help="Processes that render. Default: one a core.", min=1)] = None,
    force: Force = False,
) -> int:
    """Make a style of a folder of music. The same command goes on where it was interrupted."""
    if minutes is not None and steps is not None:
        raise WrongUsage("--minutes and --steps: give one of them")
    if out.suffix != ".safetensors":
        raise WrongUsage(f"-o {out}: a style file's name ends in .safetensors")
    with _wrong_usage():
        tables = read_config(config)

    from stylestream import workshop
    from stylestream.transfer import check_device

    if out.exists() and not force and not workshop.is_untidy(out):
        raise WrongUsage(f"{out} exists; use --force to replace it, or choose another name with -o")

    budget: dict[str, Any] = {"minutes": minutes, "steps": steps, "seed": seed, "base": base, "model": model}
    with _wrong_usage():
        check_device(device)
        workshop.make_plan(sources, tables, **budget)
    with _phases() as progress:
        done = workshop.train(
            sources, out, config=tables, **budget, device=device, jobs=jobs, report=_training_line, progress=progress, say=_say
        )
    if int(os.environ.get("RANK", "0")) > 0:  # one of several processes: the first one speaks
        return 0
    print(_printable(str(out)))
    if done.failures:
        _say(f"{len(done.failures)} of {done.songs} songs could not be used")
    return 1 if done.failures else 0


@contextlib.contextmanager
def _phases() -> Iterator[Callable[[str, float, str], None]]:
    """Give a function of (phase, share done, text): one progress bar, begun again with each phase."""
    with contextlib.ExitStack() as stack:
        shown: dict[str, Callable[[float, str], None]] = {}

        def progress(phase: str, done: float, text: str) -> None:
            if phase not in shown:
                stack.close()
                shown.clear()
                shown[phase] = stack.enter_context(_progress_bar(1))
            shown[phase](done, text)

        yield progress


def _say(line: str) -> None:
    print(f"stylestream: {_printable(line)}", file=sys.stderr)


def _training_line(row: Mapping[str, float]) -> None:
    """Print one line of held-out scores."""
    losses = f"L1 {row['loss/l1_db']:.2f} dB, KL {row['loss/kl']:.2f}"
    lines = f"copying is 0, the ceiling {100 * row['score/ceiling']:.0f}" if "score/ceiling" in row else "copying is 0"
    speed = f", {row['speed/music']:.0f} s of music a second" if row.get("speed/music") else ""
    left = f", {row['left_seconds'] / 60:.1f} min left" if row.get("left_seconds") else ""
    _say(f"step {row['step']:.0f}, {row['seconds']:.0f} s{left}: {losses}, held-out way {100 * row['score/way']:.1f} % ({lines}){speed}")


def read_config(name_or_path: str) -> dict[str, dict[str, Any]]:
    """Read a training's TOML: its tables by name. A name is a bundled config.

    Raises
    ------
    ValueError
        If there is no such config, it is not TOML, or something stands outside a table.
    """
    bundled = {path.stem: path for path in sorted(CONFIGS.glob("*.toml"))}
    path = bundled.get(name_or_path, Path(name_or_path))
    if not path.is_file():
        raise ValueError(f"no config {name_or_path!r}; give a TOML file, or one of {', '.join(bundled)}")
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ValueError(f"{path}: {name} stands outside a table; write it under [train], [model] or another")
    return tables


# ------------------------------------------------------------------------------------------------------------------- evaluate


@app.command()
def evaluate(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE...", help="Folders, archives, manifests of MIDI or recordings; collections; built datasets."),
    ],
    style: Annotated[list[str], typer.Option("-s", "--style", help="A style's name or file; repeat for several.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="A folder for report.html, report.json, report.md.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="Four short passages, no curves, no costly rows: a first look, not a result.")
    ] = False,
    compare: Annotated[Path | None, typer.Option(metavar="REPORT", help="Another report.json: say what changed beyond noise.")] = None,
    kind: Annotated[str | None, typer.Option(help="reduction (scores) or recordings. Default: what the sources are.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="The bundled style whose instruments play the truth, or own. Default: the style's name.")
    ] = None,
    pieces: Annotated[int | None, typer.Option(help="Passages, each of another piece. Default: 10.", min=1, max=10_000)] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of a passage. Default: 20.", min=2.0, max=600.0)] = None,
    source_soundfont: Annotated[str | None, typer.Option(help="Plays the song. Default: musescore, unheard in training.")] = None,
    truth_soundfont: Annotated[str | None, typer.Option(help="Plays the truth. Default: fluidr3, that of training.")] = None,
    rows: Annotated[str | None, typer.Option(help="Baselines to print, as equalise,plain; none for copy alone. Default: all.")] = None,
    baselines: Annotated[
        Path | None,
        typer.Option(help="Folder of NAME-plain, NAME-lstm2017. Default: baselines/ beside the style, or of a checkout."),
    ] = None,
    material: Annotated[
        list[Path] | None,
        typer.Option(help="Music of the style for random, musaicing, ulyanov. Default: of the sources, what is not judged."),
    ] = None,
    no_curves: Annotated[bool, typer.Option("--no-curves", help="Leave out the dials and the steps.")] = False,
    seed: Annotated[int, typer.Option(help="Of the transfer and of the intervals.", min=0, max=2**63 - 1)] = 0,
    jobs: Annotated[int | None, typer.Option("-j", "--jobs", help="Processes. Default: one a core.", min=1)] = None,
    card: Annotated[bool, typer.Option("--card", help="Write the numbers into the style file's card, too.")] = False,
    force: Force = False,
    json_: Json = False,
) -> int:
    """Measure how far a style gets, beside what it has to beat, on music it has not heard."""
    import tempfile

    from stylestream.style import find_style, update_card

    with _wrong_usage():
        paths = [find_style(name) for name in style]
    if out.exists() and not out.is_dir():
        raise WrongUsage(f"{out} is a file; -o is a folder, for several")
    if (out / "report.json").exists() and not force:
        raise WrongUsage(f"{out / 'report.json'} exists; use --force to replace it, or choose another folder with -o")
    if len({path.stem for path in paths}) < len(paths):
        raise WrongUsage("two styles of one name; rename a file")

    from stylestream import evaluate as evaluation
    from stylestream import report

    chosen = {"pieces": pieces, "seconds": seconds, "song_soundfont": source_soundfont, "truth_soundfont": truth_soundfont, "seed": seed}
    protocol = evaluation.protocol_of(quick=quick, curves=not no_curves, **chosen)
    with _wrong_usage():
        others = report.load_reports(compare) if compare is not None else None
        if others is not None:
            for path in paths:
                report.other_of(path.stem, others)
        evaluation.check(paths, recipe, kind, rows, baselines, protocol)
    with tempfile.TemporaryDirectory(prefix="stylestream-") as sounds, _progress_bar(1) as advance:
        reports = evaluation.evaluate_all(
            sources,
            paths,
            recipes=[recipe] * len(paths),
            protocol=protocol,
            kind=kind,
            rows=evaluation.rows_named(rows, quick=quick),
            baselines_folder=baselines,
            material=material or (),
            keep=sounds,
            jobs=jobs,
            progress=lambda done, total, name: advance(done / max(total, 1), name),
        )
        if others is not None:
            reports = [report.compared(one, others) for one in reports]
        made = report.write(reports, out, command=_typed(), sounds=sounds)
    for path, one in zip(paths, reports, strict=True):
        if card:
            update_card(path, metrics=report.card_metrics(one))
    _show_reports(reports, made, as_json=json_)
    return 1 if any(one["failures"] or "not_compared" in one for one in reports) else 0


def _typed() -> str:
    """The command line, as it can be typed again."""
    import shlex

    return shlex.join(["stylestream", *sys.argv[1:]])


def _show_reports(reports: list[dict[str, Any]], page: Path, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"reports": reports}, ensure_ascii=False, indent=1))
        return
    from rich.console import Console

    from stylestream.report import show

    for report in reports:
        show(report, Console())
    print(page)


# ---------------------------------------------------------------------------------------------------------------------- serve


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(envvar="GRADIO_SERVER_NAME", help="0.0.0.0 lets other machines in; behind a public name, use a proxy with TLS.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="GRADIO_SERVER_PORT", help="0: any that is free.", min=0, max=65535)] = 7860,
    auth: Annotated[str | None, typer.Option(metavar="USER:PASSWORD", help="Ask every visitor for it. Or set STYLESTREAM_AUTH.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in your browser.")] = False,
    device: Device = "cpu",
    slots: Annotated[int | None, typer.Option(help="Songs in work at once. Default: one for every four cores.", min=1, max=64)] = None,
    trust_proxy: Annotated[
        bool, typer.Option("--trust-proxy", help="The visitor's address is the last of X-Forwarded-For: only behind a proxy that sets it.")
    ] = False,
    root_path: Annotated[
        str, typer.Option(envvar="GRADIO_ROOT_PATH", metavar="PATH", help="Below which a proxy shows the page, as /music.")
    ] = "",
    upload_mb: Annotated[float, typer.Option(help="Largest file taken.", min=0.001)] = 200,
    song_seconds: Annotated[float, typer.Option(help="Longest song taken.", min=0.1)] = 900,
    decode_seconds: Annotated[float, typer.Option(help="Processor time for decoding one file.", min=1)] = 60,
    decode_mb: Annotated[float, typer.Option(help="Address space for decoding one file.", min=500)] = 3000,
    queue: Annotated[int, typer.Option(help="Jobs that may wait.", min=1)] = 50,
    address_jobs: Annotated[int, typer.Option(help="Jobs of one address, waiting or in work.", min=1)] = 6,
    address_requests: Annotated[int, typer.Option(help="Uploads and jobs a minute of one address.", min=1)] = 120,
    train_minutes: Annotated[float, typer.Option(help="Longest training; 0: none.", min=0)] = 30,
    train_songs: Annotated[int, typer.Option(help="Songs a training takes.", min=1)] = 50,
    keep_minutes: Annotated[float, typer.Option(help="Songs and results nobody asks for are removed after it.", min=0.1)] = 60,
    store_mb: Annotated[float, typer.Option(help="Disk for all songs and results together.", min=1)] = 20_000,
) -> int:
    """Open the page: drop a song, choose a style, hear both. With an API for programs."""
    auth = auth or os.environ.get("STYLESTREAM_AUTH")
    from stylestream import serve as page
    from stylestream.parallel import cores
    from stylestream.transfer import check_device
    from stylestream.uploads import Limits

    with _wrong_usage():
        check_device(device)
        limits = Limits(
            upload_mb=upload_mb,
            song_seconds=song_seconds,
            decode_seconds=decode_seconds,
            decode_mb=decode_mb,
            queue=queue,
            address_jobs=address_jobs,
            address_requests=address_requests,
            train_minutes=train_minutes,
            train_songs=train_songs,
            keep_minutes=keep_minutes,
            store_mb=store_mb,
        )
        limits.check()
    try:
        known = page.auth_of(auth) if auth else None
    except ValueError as error:
        raise WrongUsage(f"--auth: {error}") from None
    settings = page.Settings(
        host=host,
        port=port,
        auth=known,
        trust_proxy=trust_proxy,
        device=device,
        slots=slots or max(cores() // 4, 1),
        root_path=root_path,
        limits=limits,
    )

    def ready(address: str) -> None:
        print(f"StyleStream is at {address}", flush=True)
        if open_:
            import webbrowser

            webbrowser.open(address)

    page.run(settings, ready=ready)
    return 0
