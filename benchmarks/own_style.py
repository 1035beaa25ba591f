"""A style of one's own from ten minutes of audio: fine-tuned from the base, beside trained from nothing.

    python benchmarks/own_style.py DATA --work build/own-style pace tune scratch score page
    python benchmarks/own_style.py DATA --work build/own-style --sound guitar pace tune score page

DATA is a collection with midi.csv. The corpus is ten minutes of its string quartets, or of its classical guitar, a sound that is in no
style of the base (training split), played by the SoundFont and written as audio: from here on they are recordings like anybody's.

`pace` measures what a step takes on this machine, which must be quiet for that minute. `tune` and `scratch` train and keep what they are
at some minutes. Their clock is the steps at that pace: what else the machine does meanwhile changes nothing, and each goes on where it
was interrupted. `score` measures every keepsake by the reduction protocol on held-out pieces, with the base before it is tuned, and the
shipped style where there is one: the way, and what the base must not lose while it is tuned, attacks (flux correlation) and bass (the
error from 65 to 131 Hz). `page` writes the section of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from stylestream import corpus, evaluate, midi, recipes, train, views, workshop
from stylestream.cli import read_config
from stylestream.features import FeatureConfig
from stylestream.files import whole_file
from stylestream.style import Card, base_path, bundled_folder, load_style_file, save_style

MARKS_MINUTES = (0.5, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 25, 30, 40, 50, 60, 75, 90, 105, 120)
RUNS = {"tune": ("base", "tune"), "scratch": ("none", "train")}  # what it starts from, and its table of the config
PACE_STEPS = 4
NYLON_GUITAR = 24
BASS = "C2"  # the octave from 65 Hz: the lowest that most songs play


@dataclass(frozen=True)
class Sound:
    """What is learned. ``folders`` of the collection, played as ``programs`` says."""

    title: str
    folders: tuple[str, ...]
    programs: recipes.Programs
    shipped: str = ""  # the style of the package that has this sound, if one does


SOUNDS = {
    "strings": Sound("string quartets", ("string-quartet",), recipes.quartet_programs, shipped="strings"),
    "guitar": Sound("classical guitar", ("classical-guitar",), lambda tracks: [NYLON_GUITAR for _ in tracks]),
}


# -- the music -------------------------------------------------------------------------------------------------------------


def scores(options: argparse.Namespace, split: recipes.Split, count: int) -> list[Any]:
    """Scores of a split by hash, as the sound plays them; those that cannot be read are left out."""
    sound, found = SOUNDS[options.sound], []
    recipe = recipes.StyleRecipe(sound.folders, programs=sound.programs)
    pieces = [p for p in recipes.pieces(options.data) if p.style in sound.folders and recipes.licence_allowed(p.licence)]
    for _, content in recipes.read_pieces(options.data, recipes.select(pieces, count, split=split)):
        try:
            found.append(recipes.target_score(midi.load_score(content), recipe))
        except ValueError:
            continue
    return found


def recordings(options: argparse.Namespace) -> Path:
    """Ten minutes of the sound as WAV, at most a minute of each piece; what is there is left."""
    from stylestream import audio

    folder, seconds = options.work / "music", 0.0
    if folder.exists():
        return folder
    unfinished = options.work / "music.part"
    unfinished.mkdir(parents=True, exist_ok=True)
    with midi.Synthesizer(midi.find_soundfont("fluidr3")) as synthesizer:
        for index, score in enumerate(scores(options, "train", 60)):
            if seconds >= 60 * options.minutes_of_music:
                break
            seconds += min(midi.duration_seconds(score), 60.0)
            audio.save(unfinished / f"{index:02}.wav", synthesizer.render(score, max_seconds=60.0), synthesizer.sample_rate)
    return unfinished.rename(folder)


def held_out(options: argparse.Namespace) -> Path:
    """Test pieces as MIDI files that say themselves what plays them."""
    folder = options.work / "held-out"
    if not folder.exists():
        unfinished = options.work / "held-out.part"
        unfinished.mkdir(parents=True, exist_ok=True)
        for index, score in enumerate(scores(options, "test", 4 * options.pieces)):
            (unfinished / f"{index:03}.mid").write_bytes(score.dumps_midi())
        unfinished.rename(folder)
    return folder


# -- the clock -------------------------------------------------------------------------------------------------------------


def pace(options: argparse.Namespace) -> None:
    """Seconds of a step in each stage of the two runs, with as many threads as are fastest, and of a score."""
    out: dict[str, Any] = {}
    frames_of(options)
    songs = sorted(recordings(options).glob("*.wav"))
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        corpus.prepare([str(song) for song in songs[:2]], Path(folder), corpus.BuildConfig())
        out["render"] = (time.monotonic() - began) * len(songs) / 2
    store = corpus.FrameStore(options.work / "frames", [corpus.OWN_STYLE])
    for run, (base, _) in RUNS.items():
        config, model = settings(options, run, base)
        stages = {"content": 0.0, "texture": config.texture_from, "critic": config.critic_from}
        rounds = {}
        for threads in {1, torch.get_num_threads()}:
            state = train.new_state(model, replace(config, batch=train.LEAST_BATCH))
            rounds[threads] = {name: step_seconds(state, store, config, threads, begin) for name, begin in stages.items()}
        began = time.monotonic()
        train.transfer_score(state.average, store, max_frames=config.score_frames)
        best = min(rounds.values(), key=lambda found: sum(found.values()))
        out[run] = {"from": stages, "seconds": best, "score": time.monotonic() - began, "all": rounds}
        print(run, json.dumps(out[run]), flush=True)
    (options.work.parent / "pace.json").write_text(json.dumps(out, indent=1))


def frames_of(options: argparse.Namespace) -> corpus.Prepared:
    """The music as frames, all of it: a busy machine would hear only what a share of the minutes is enough for."""
    folder = options.work / "frames"
    listed = folder / "songs.json"
    if not listed.exists():
        prepared = corpus.prepare([str(recordings(options))], folder, corpus.BuildConfig(), jobs=None)
        listed.write_text(json.dumps(asdict(prepared)))
    return corpus.Prepared(**json.loads(listed.read_text()))


def step_seconds(state: train.State, store: corpus.FrameStore, config: train.TrainConfig, threads: int, progress: float) -> float:
    """Of the steps at a progress, the first left out; the middle one of a few."""
    torch.set_num_threads(threads)
    config, taken = replace(config, batch=train.LEAST_BATCH), []
    for _ in range(PACE_STEPS + 1):
        began = time.monotonic()
        train.train_step(state, store, config, views.RECORDINGS, min(progress + 1e-6, 1.0))
        taken.append(time.monotonic() - began)
    return sorted(taken[1:])[PACE_STEPS // 2]


def paces(options: argparse.Namespace) -> dict[str, Any]:
    """What `pace` found; it holds for any music."""
    found: dict[str, Any] = json.loads((options.work.parent / "pace.json").read_text())
    return found


def settings(options: argparse.Namespace, run: str, base: str) -> tuple[train.TrainConfig, Any]:
    """Of a run: how it trains, and its network."""
    plan = workshop.make_plan([recordings(options)], read_config("default"), base=base)[0]
    return plan.config, plan.model


class PacedClock(train.Clock):
    """Seconds as they would pass on a quiet machine: of every step what its stage takes, and of every score."""

    pace: dict[str, Any]
    whole_seconds: float

    def __init__(self, state: train.State) -> None:
        super().__init__(state)
        self.state, self.step, self.seconds = state, state.step, state.seconds

    def agree(self, *flags: bool) -> tuple[float, ...]:
        """Without flags, a score has been made."""
        share = self.seconds / self.whole_seconds + self.state.skipped
        stage = max((begin, name) for name, begin in self.pace["from"].items() if begin <= share)[1]
        self.seconds += (self.state.step - self.step) * self.pace["seconds"][stage] + (0.0 if flags else self.pace["score"])
        self.step = self.state.step
        return (self.seconds, *map(float, flags))


# -- the trainings ---------------------------------------------------------------------------------------------------------


class Keeper:
    """Keeps the averaged weights at some minutes: what a training that ended there would have, but for its last, small steps."""

    def __init__(self, folder: Path, checkpoints: Path) -> None:
        self.folder, self.checkpoints = folder, checkpoints
        folder.mkdir(parents=True, exist_ok=True)
        self.kept = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]

    def __call__(self, row: dict[str, float]) -> None:
        minutes, last = row["seconds"] / 60, max((kept["minutes"] for kept in self.kept), default=0.0)
        if any(last < mark <= minutes for mark in MARKS_MINUTES):
            self.keep(row)

    def keep(self, row: dict[str, float]) -> None:
        name = f"{row['step']:06.0f}"
        kept = {"name": name, "minutes": row["seconds"] / 60, "step": row["step"], "way": row["score/way"]}
        with whole_file(self.folder / f"{name}.safetensors") as temporary:
            temporary.write_bytes((self.checkpoints / "best.safetensors").read_bytes())
        (self.folder / f"{name}.json").write_text(json.dumps(kept))
        self.kept.append(kept)


def fit(options: argparse.Namespace, run: str) -> None:
    """One of the two trainings, by the steps of so many minutes."""
    base, table = RUNS[run]
    minutes = options.tune_minutes if run == "tune" else options.scratch_minutes
    out = options.work / run / f"{options.sound}-{run}.safetensors"
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists():
        return
    if options.clock == "paced":
        PacedClock.pace, PacedClock.whole_seconds = paces(options)[run], 60 * minutes
        train.Clock = PacedClock  # type: ignore[misc]
    tables = read_config("default")
    tables[table] |= {"threads": options.threads, "batch": train.LEAST_BATCH}
    checkpoints = out.with_name(out.name + ".ckpt")
    keeper = Keeper(options.work / run / "kept", checkpoints)
    prepared, rendering = frames_of(options), paces(options)["render"]
    if not (checkpoints / "songs.json").exists():
        shutil.copytree(options.work / "frames", checkpoints / "frames", dirs_exist_ok=True)
        (checkpoints / "songs.json").write_text(json.dumps(asdict(replace(prepared, seconds=rendering))))
    (out.parent / "model.json").write_text(json.dumps(asdict(settings(options, run, base)[1])))
    if options.replan:  # the same training, to be ended sooner
        (checkpoints / "plan.json").unlink(missing_ok=True)

    def report(row: dict[str, float]) -> None:
        print(json.dumps({key: round(value, 4) for key, value in row.items()}), flush=True)
        keeper(row)

    workshop.train([recordings(options)], out, config=tables, minutes=minutes, base=base, device=options.device, report=report, say=print)


def keep_last(options: argparse.Namespace, run: str) -> None:
    """What a finished training wrote, beside its keepsakes."""
    from safetensors.torch import save_file

    out, kept = options.work / run / f"{options.sound}-{run}.safetensors", options.work / run / "kept"
    if not out.exists() or (kept / "last.json").exists():
        return
    data = load_style_file(out)
    card = data.card
    save_file(data.weights, kept / "last.safetensors")
    row = {"minutes": card.training_minutes, "step": card.training_steps, "way": card.metrics["held-out frames"]["way"]}
    (kept / "last.json").write_text(json.dumps({"name": "last", **row}))


def keep_base(options: argparse.Namespace) -> None:
    """What a tune begins with, as a keepsake of minute 0."""
    from safetensors.torch import save_file

    kept = options.work / "tune" / "kept"
    if (kept / "000000.json").exists():
        return
    frames_of(options)
    store = corpus.FrameStore(options.work / "frames", [corpus.OWN_STYLE])
    weights = train.start_weights(load_style_file(base_path()).weights, store.mean_frames()[0])
    save_file({key: value.contiguous() for key, value in weights.items()}, kept / "000000.safetensors")
    (kept / "000000.json").write_text(json.dumps({"name": "000000", "minutes": 0.0, "step": 0}))


# -- the scores ------------------------------------------------------------------------------------------------------------


def score(options: argparse.Namespace) -> None:
    """Way of every keepsake on held-out pieces; what is scored is left. The base and the last ones come first: they say most."""
    from safetensors.torch import load_file

    for run in RUNS:
        keep_last(options, run)
    keep_base(options)
    shipped = SOUNDS[options.sound].shipped
    if shipped:
        measure(options, bundled_folder() / f"{shipped}.safetensors", options.work / "shipped.json")
    rows = {path: json.loads(path.read_text()) for path in options.work.glob("*/kept/*.json")}
    longest = {run: max((row["minutes"] for path, row in rows.items() if path.parts[-3] == run), default=1.0) for run in RUNS}
    for path, _ in sorted(rows.items(), key=lambda pair: (pair[1]["step"] > 0, -pair[1]["minutes"] / longest[pair[0].parts[-3]])):
        network = json.loads((path.parent.parent / "model.json").read_text())
        style = options.work / "scored.safetensors"
        save_style(
            style,
            load_file(path.with_suffix(".safetensors")),
            model_config=network,
            feature_config=asdict(FeatureConfig()),
            card=Card(options.sound),
        )
        measure(options, style, path)


def measure(options: argparse.Namespace, style: Path, path: Path) -> None:
    """Score a style and write it beside what is known of it, unless that is there."""
    row = json.loads(path.read_text()) if path.exists() else {}
    protocol = evaluate.Protocol(pieces=options.pieces, seconds=options.seconds)
    made_of = recipes.song_id(style.read_bytes())
    if (row.get("protocol"), row.get("made_of")) == (asdict(protocol), made_of):
        return
    report = evaluate.evaluate(held_out(options), style, recipe="own", protocol=protocol, rows=["equalise"], jobs=1)
    name = report["style"]
    cells = {"evaluated": report["way"][name], "equalise": report["way"]["equalise"], "flux": report["rows"][name]["flux"]}
    cells["bass"] = report["errors"][name]["octave"][BASS]
    path.write_text(json.dumps(row | {"protocol": asdict(protocol), "made_of": made_of, **cells}))
    print(path, cells, flush=True)


# -- the page --------------------------------------------------------------------------------------------------------------


def page(options: argparse.Namespace) -> str:
    """The two curves as a table, and what they say."""
    sound = SOUNDS[options.sound]
    kept = {run: of_run(options, run) for run in RUNS}
    runs = [run for run in RUNS if kept[run]]
    command = f"--sound {options.sound} --pieces {options.pieces} pace {' '.join(runs)} score page"
    head = [
        f"Written by `python benchmarks/own_style.py DATA {command}`.",
        f"Ten minutes of {sound.title} as audio; the way from song to truth, on frames of a held-out recording and by the reduction",
        f"protocol on {options.pieces} held-out pieces, of the weights that were best by then. Minutes are those of a quiet machine:",
        "of each step what it takes there.",
    ]
    columns = ("run", "minutes", "steps", "way, held-out frames", "way, held-out pieces", "flux corr.", "65–131 Hz, dB off")
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for run in runs:
        for row in kept[run]:
            kept_too = f"{number(row, 'flux', 2)} | {number(row, 'bass', 1)}"
            lines.append(f"| {run} | {row['minutes']:.1f} | {row['step']:.0f} | {percent(row.get('way'))} | {cell(row)} | {kept_too} |")
    return "\n".join([*head, "", *said(options, kept), "", *lines])


def of_run(options: argparse.Namespace, run: str) -> list[dict[str, Any]]:
    """Keepsakes of a run, in the order of their steps, with the minutes that a quiet machine takes for them."""
    rows = [json.loads(path.read_text()) for path in (options.work / run / "kept").glob("*.json")]
    return [row | {"minutes": quiet_minutes(options, run, row["step"])} for row in sorted(rows, key=lambda row: row["step"])]


def quiet_minutes(options: argparse.Namespace, run: str, steps: float) -> float:
    """Rendering, steps and scores of a run up to a step, each for as long as it takes on a quiet machine."""
    (history,) = (options.work / run).glob("*.ckpt/history.json")
    pace, last, seconds = paces(options)[run], 0.0, paces(options)["render"]
    for row in json.loads(history.read_text()):
        if row["step"] > steps:
            break
        stage = max((begin, name) for name, begin in pace["from"].items() if begin <= row["progress"])[1]
        seconds += (row["step"] - last) * pace["seconds"][stage] + pace["score"]
        last = row["step"]
    return seconds / 60 if steps else 0.0


def said(options: argparse.Namespace, kept: dict[str, list[dict[str, Any]]]) -> list[str]:
    """What the table says, line by line, as far as it is scored."""
    scored = {run: [row for row in rows if "evaluated" in row] for run, rows in kept.items()}
    lines = []
    if scored["tune"] and scored["scratch"]:
        tune, scratch = scored["tune"][-1], scored["scratch"][-1]
        share = tune["evaluated"]["mean"] / scratch["evaluated"]["mean"]
        lines.append(
            f"Tuned from the base for {tune['minutes']:.1f} minutes it goes {100 * share:.0f} % as far as trained from nothing for "
            f"{scratch['minutes']:.0f}: {cell(tune)} and {cell(scratch)} of the way."
        )
    if scored["tune"]:
        begin, tune = scored["tune"][0], scored["tune"][-1]
        lines.append(f"The base before it is tuned: {cell(begin)}; after {tune['minutes']:.1f} minutes: {cell(tune)}.")
        kept_up = [(number(row, "flux", 2), number(row, "bass", 1)) for row in (begin, tune)]
        lines.append(f"Its flux correlation (attacks): {kept_up[0][0]}, then {kept_up[1][0]}.")
        lines.append(f"Its error from 65 to 131 Hz, dB: {kept_up[0][1]}, then {kept_up[1][1]}.")
        lines.append(f"The song equalised to the ten minutes: {cell(tune, 'equalise')}.")
    path = options.work / "shipped.json"
    if path.exists():
        lines.append(
            f"The style {SOUNDS[options.sound].shipped} that ships, of many hours of scores: {cell(json.loads(path.read_text()))}."
        )
    return lines


def percent(way: float | None) -> str:
    return "" if way is None else f"{100 * way:.1f} %"


def number(row: dict[str, Any], key: str, digits: int) -> str:
    found = row.get(key)
    return (
        f"{found['mean']:.{digits}f} ({found['low']:.{digits}f} – {found['high']:.{digits}f})"
        if found and found["mean"] is not None
        else ""
    )


def cell(row: dict[str, Any], key: str = "evaluated") -> str:
    found = row.get(key)
    return f"{100 * found['mean']:.1f} % ({100 * found['low']:.1f} – {100 * found['high']:.1f})" if found else ""


def write(options: argparse.Namespace, text: str) -> None:
    """Into the page, or to stdout."""
    if options.out is None:
        print(text)
        return
    part = options.work / "page.md"
    part.write_text(text, encoding="utf-8")
    block = f"own style, {options.sound}"
    fill = Path(__file__).parent.parent / "tools" / "fill"
    subprocess.run([sys.executable, str(fill), str(options.out), block, str(part)], check=True)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("what", nargs="+", choices=["pace", *RUNS, "score", "page"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sound", choices=list(SOUNDS), default="strings")
    parser.add_argument("--out", type=Path, help="the page whose block `own style, SOUND` is filled; default is stdout")
    parser.add_argument("--minutes-of-music", type=float, default=10.0)
    parser.add_argument("--tune-minutes", type=float, default=10.0)
    parser.add_argument("--scratch-minutes", type=float, default=120.0)
    parser.add_argument("--threads", type=int, default=1, help="beside other programs two would wait for each other")
    parser.add_argument("--device", default="cpu", help="the steps are the same on any")
    parser.add_argument("--clock", choices=["paced", "wall"], default="paced")
    parser.add_argument("--replan", action="store_true", help="go on with a training under another number of minutes")
    parser.add_argument("--pieces", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args(arguments)
    options.work = options.work / options.sound
    return options


def main() -> None:
    options = parsed()
    work: dict[str, Callable[[], Any]] = {run: (lambda run=run: fit(options, run)) for run in RUNS}  # type: ignore[misc]
    work |= {"pace": lambda: pace(options), "score": lambda: score(options), "page": lambda: write(options, page(options))}
    for what in options.what:
        work[what]()


if __name__ == "__main__":
    main()
