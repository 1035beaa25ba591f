"""A style of one's own from ten minutes of audio: fine-tuned from the base, beside trained from nothing.

    python benchmarks/own_style.py DATA --work build/own-style tune scratch score page

DATA is a collection with midi.csv. The corpus is ten minutes of its string quartets (training split), played by the SoundFont and
written as audio: from here on they are recordings like anybody's. `tune` and `scratch` train on them and keep what they are at some
minutes; each goes on where it was interrupted, and they may run on different days. `score` measures every keepsake by the reduction
protocol on held-out quartets; `page` writes the section of docs/benchmarks.md from what is measured so far.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

STYLE = "strings"
MARKS_MINUTES = (0.5, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 25, 30, 40, 50, 60, 75, 90, 105, 120)
RUNS = {"tune": ("base", 10.0), "scratch": ("none", 120.0)}


def corpus(options: argparse.Namespace) -> Path:
    """Ten minutes of quartets as WAV, at most a minute of each; what is there is left."""
    from stylestream import audio, dataset, midi

    folder, seconds = options.work / "music", 0.0
    chosen = dataset.select(dataset.pieces(options.data, STYLE), 40)
    with midi.Synthesizer(midi.find_soundfont("fluidr3")) as synthesizer:
        for index, (_, content) in enumerate(dataset.read_pieces(options.data, chosen)):
            if seconds >= 60 * options.minutes_of_music:
                break
            path = folder / f"{index:02}.wav"
            score = dataset.target_score(midi.load_score(content), dataset.recipe_of(STYLE))
            seconds += min(midi.duration_seconds(score), 60.0)
            if not path.exists():
                folder.mkdir(parents=True, exist_ok=True)
                audio.save(path, synthesizer.render(score, max_seconds=60.0), synthesizer.sample_rate)
    return folder


class Keeper:
    """Copies the best weights at some minutes, with what they cost: the wall's minutes and the processor's."""

    def __init__(self, folder: Path, checkpoints: Path) -> None:
        self.folder, self.checkpoints, self.began = folder, checkpoints, time.process_time()
        folder.mkdir(parents=True, exist_ok=True)
        self.kept = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
        self.before = max((row["cpu_minutes"] for row in self.kept), default=0.0)

    def __call__(self, row: dict[str, float]) -> None:
        minutes = row["seconds"] / 60
        last = max((kept["minutes"] for kept in self.kept), default=0.0)
        if any(last < mark <= minutes for mark in MARKS_MINUTES):
            self.keep(row)

    def keep(self, row: dict[str, float]) -> None:
        name = f"{row['step']:06.0f}"
        cpu_minutes = self.before + (time.process_time() - self.began) / 60
        kept = {"name": name, "minutes": row["seconds"] / 60, "cpu_minutes": cpu_minutes, "step": row["step"], "way": row["score/way"]}
        shutil.copy(self.checkpoints / "best.safetensors", self.folder / f"{name}.safetensors")
        (self.folder / f"{name}.json").write_text(json.dumps(kept))
        self.kept.append(kept)


def train(options: argparse.Namespace, run: str) -> None:
    """One of the two trainings."""
    from stylestream import workshop
    from stylestream.cli import read_config

    base, minutes = RUNS[run]
    out = options.work / run / f"{STYLE}-{run}.safetensors"
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists():
        return
    tables = read_config("default")
    for table in ("train", "tune"):  # two trainings side by side would wait for each other
        tables[table]["threads"] = options.threads
    keeper = Keeper(options.work / run / "kept", out.with_name(out.name + ".ckpt"))
    plan = workshop.make_plan([corpus(options)], tables, minutes=minutes, base=base)[0]
    (options.work / run / "model.json").write_text(json.dumps(asdict(plan.model)))

    def report(row: dict[str, float]) -> None:
        print(json.dumps({key: round(value, 4) for key, value in row.items()}), flush=True)
        keeper(row)

    workshop.train(
        [options.work / "music"], out, config=tables, minutes=minutes, base=base, jobs=options.threads or None, report=report, say=print
    )


def keep_last(options: argparse.Namespace, run: str) -> None:
    """What a finished training wrote, beside its keepsakes."""
    from safetensors.torch import save_file

    from stylestream.style import load_style_file

    out, kept = options.work / run / f"{STYLE}-{run}.safetensors", options.work / run / "kept"
    if not out.exists() or (kept / "last.json").exists():
        return
    data = load_style_file(out)
    rows = [json.loads(path.read_text()) for path in kept.glob("*.json")]
    way = data.card.metrics["held-out frames"]["way"]
    row = {"name": "last", "minutes": data.card.training_minutes, "step": data.card.training_steps, "way": way}
    latest = max(rows, key=lambda row: row["minutes"])
    row["cpu_minutes"] = latest["cpu_minutes"] * data.card.training_minutes / latest["minutes"]
    save_file(data.weights, kept / "last.safetensors")
    (kept / "last.json").write_text(json.dumps(row))


def score(options: argparse.Namespace) -> None:
    """Way of every keepsake on held-out quartets; what is scored is left. The last ones come first: they say most."""
    from safetensors.torch import load_file

    from stylestream import evaluate
    from stylestream.features import FeatureConfig
    from stylestream.style import Card, save_style

    for run in RUNS:
        keep_last(options, run)
    protocol = evaluate.Protocol(pieces=options.pieces, seconds=options.seconds)
    rows = {path: json.loads(path.read_text()) for path in options.work.glob("*/kept/*.json")}
    longest = {run: max((row["minutes"] for path, row in rows.items() if path.parts[-3] == run), default=1.0) for run in RUNS}
    for row_path, row in sorted(rows.items(), key=lambda pair: -pair[1]["minutes"] / longest[pair[0].parts[-3]]):
        path = row_path.with_suffix(".safetensors")
        if row.get("protocol") == asdict(protocol):
            continue
        settings = json.loads((path.parent.parent / "model.json").read_text())
        style = options.work / "scored.safetensors"
        save_style(style, load_file(path), model_config=settings, feature_config=asdict(FeatureConfig()), card=Card(STYLE))
        report = evaluate.evaluate(options.data, style, recipe=STYLE, protocol=protocol, jobs=options.threads or None)
        row |= {"protocol": asdict(protocol), "evaluated": report["way"]["scored"], "equalise": report["way"]["equalise"]}
        row_path.write_text(json.dumps(row))
        print(path, row["evaluated"], flush=True)


def page(options: argparse.Namespace) -> str:
    """The two curves as a table, and what they say."""
    head = (
        f"Written by `python benchmarks/own_style.py DATA --threads {options.threads} --pieces {options.pieces} tune scratch score page`."
    )
    what = (
        "Ten minutes of string quartets as audio; the way from song to truth of the weights that were best by then. Both runs\n"
        "shared a machine, hence the minutes of the processor. The base has string quartets, rendered from scores, among its styles."
    )
    lines = ["| run | minutes | of the processor | steps | way, held-out frames | way, held-out pieces |", "|---|---|---|---|---|---|"]
    best = {}
    for run in RUNS:
        rows = sorted(
            (json.loads(path.read_text()) for path in (options.work / run / "kept").glob("*.json")), key=lambda row: row["minutes"]
        )
        for row in rows:
            found = row.get("evaluated", {})
            cell = f"{100 * found['mean']:.1f} % ({100 * found['low']:.1f} – {100 * found['high']:.1f})" if found else ""
            numbers = f"{row['minutes']:.1f} | {row['cpu_minutes']:.1f} | {row['step']:.0f} | {100 * row['way']:.1f} %"
            lines.append(f"| {run} | {numbers} | {cell} |")
        best[run] = max((row for row in rows if "evaluated" in row), key=lambda row: row["minutes"], default=None)
    tune, scratch = best["tune"], best["scratch"]
    said = []
    if tune and scratch:
        share = tune["evaluated"]["mean"] / scratch["evaluated"]["mean"]
        said = [
            f"Tuned from the base for {tune['minutes']:.0f} minutes it goes {100 * share:.0f} % as far as trained from nothing "
            f"for {scratch['minutes']:.0f} minutes ({tune['cpu_minutes']:.0f} and {scratch['cpu_minutes']:.0f} minutes of a processor)."
        ]
    return "\n".join([head, what, "", *said, *([""] if said else []), *lines])


def write(options: argparse.Namespace, text: str) -> None:
    """Into the page, or to stdout."""
    if options.out is None:
        print(text)
        return
    part = options.work / "page.md"
    part.write_text(text, encoding="utf-8")
    subprocess.run(
        [sys.executable, str(Path(__file__).parent.parent / "tools" / "fill"), str(options.out), "own style", str(part)], check=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("what", nargs="+", choices=[*RUNS, "score", "page"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="the page whose block `own style` is filled; default is stdout")
    parser.add_argument("--minutes-of-music", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=0, help="0: as the training chooses")
    parser.add_argument("--pieces", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    work: dict[str, Callable[[], Any]] = {run: (lambda run=run: train(options, run)) for run in RUNS}  # type: ignore[misc]
    work |= {"score": lambda: score(options), "page": lambda: write(options, page(options))}
    for what in options.what:
        work[what]()


if __name__ == "__main__":
    main()
