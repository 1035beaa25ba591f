"""The two kinds of read and write, trained alike: convolutional, and the N×N Gaussian attention of the DRAW paper.

    python benchmarks/attention.py FRAMES --style rock --steps 300 --out docs/ablations.md

FRAMES is a folder of rendered songs of the style, as ``tools/make_styles.py render`` leaves it in WORK/frames. Both kinds see the same
crops and views in the same order (all randomness is a function of seed and step), with neither critic nor texture stage, and are scored
on the same held-out songs, shown in another orchestration.
"""

from __future__ import annotations

import argparse
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from stylestream import train, views
from stylestream.dataset import FrameStore
from stylestream.draw import DrawConfig
from stylestream.files import whole_file

KINDS = {
    "convolutional": DrawConfig(texture_channels=0),
    # what the windows are for the paper: pictures, 0.37 s wide, painted with 16 brushes of 12 × 12
    "Gaussian attention": DrawConfig(
        attention="gaussian",
        steps=16,
        latents=32,
        encoder_channels=256,
        decoder_channels=256,
        window_frames=32,
        glimpse=12,
        texture_channels=0,
    ),
}


@dataclass(frozen=True)
class Row:
    """What a kind came to."""

    name: str
    parameters: int
    gflop_per_second: float
    seconds: float
    score: dict[str, float]

    def markdown(self, steps: int) -> str:
        cells = (
            self.name,
            f"{steps}",
            f"{self.parameters / 1e6:.2f} M",
            f"{self.gflop_per_second:.2f}",
            f"{self.seconds:.0f} s",
            f"{self.score['score/l1_db']:.2f} dB",
            f"{100 * self.score['score/way']:.1f} %",
        )
        return "| " + " | ".join(cells) + " |"


def train_kind(name: str, model_config: DrawConfig, stores: tuple[FrameStore, FrameStore], options: argparse.Namespace) -> Row:
    config = train.TrainConfig(
        steps=options.steps, batch=options.batch, critic_from=1.0, texture_from=1.0, learning_rate=options.rate, seed=options.seed
    )
    state = train.new_state(model_config, config)
    train.set_mean_frames(state, stores[0])
    parameters, cost = sum(p.numel() for p in state.model.parameters()), state.model.gflop_per_second()
    began = time.process_time()
    for step in range(options.steps):
        losses = train.train_step(state, stores[0], config, views.ViewConfig(), step / options.steps)
        if (step + 1) % max(1, options.steps // 6) == 0:
            values = "  ".join(f"{key} {float(value):.3f}" for key, value in losses.items() if value.numel() == 1)
            print(f"{name}: step {step + 1}, {time.process_time() - began:.0f} s of CPU  {values}", flush=True)
    seconds = time.process_time() - began
    return Row(name, parameters, cost, seconds, score(state, stores[1]))


def mean_spectrum(stores: tuple[FrameStore, FrameStore]) -> Row:
    """What both kinds start from: the first canvas, with nothing written on it."""
    state = train.new_state(KINDS["convolutional"], train.TrainConfig())
    train.set_mean_frames(state, stores[0])
    torch.nn.init.zeros_(state.average.write.write.weight)
    return Row("the style's mean spectrum", 0, 0.0, 0.0, score(state, stores[1]))


def score(state: train.State, held_out: FrameStore) -> dict[str, float]:
    return train.transfer_score(state.average, held_out, songs_per_style=100)


def page(rows: list[tuple[int, Row]], options: argparse.Namespace, held_out: FrameStore) -> str:
    copy_db = rows[0][1].score["score/copy_db"]
    table = "\n".join(row.markdown(steps) for steps, row in rows)
    command = f"python benchmarks/attention.py FRAMES --style {shlex.quote(options.style)} --steps {options.steps} --batch {options.batch}"
    command += f" --only {shlex.quote(options.only)}" if options.only else ""
    return f"""# Ablations

Written by `{command} --out docs/ablations.md`; do not edit.

## Read and write: convolutional, or the paper's Gaussian attention

Style {options.style}; {options.steps} steps of {options.batch} crops of 1.5 s, learning rate {options.rate:g}, seed {options.seed};
no critic, no texture stage; both kinds see the same crops and views.
Scored on {len(held_out.songs)} held-out songs shown in another orchestration, on frames: the mean distance to the truth, and the share
of the copy's distance ({copy_db:.2f} dB) that is gone. Cost is the forward pass for a second of audio; time is that of one core.

| kind | steps | weights | GFLOP per s | training | to the truth | of the way |
| --- | --- | --- | --- | --- | --- | --- |
{table}

One seed and few steps: a point or two between the kinds is no ranking, and neither is at its end; more steps say more.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("frames", type=Path, help="folder of rendered songs")
    parser.add_argument("--style", default="rock")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(KINDS), help="train one kind and print its row")
    parser.add_argument("--out", type=Path, help="where to write the page; default is stdout")
    options = parser.parse_args()
    torch.set_num_threads(1)
    stores = (FrameStore(options.frames, (options.style,)), FrameStore(options.frames, (options.style,), split="valid"))
    rows = [(0, mean_spectrum(stores))]
    for name, config in KINDS.items():
        if options.only in (None, name):
            rows.append((options.steps, train_kind(name, config, stores, options)))
            print(rows[-1][1].markdown(options.steps), flush=True)
    text = page(rows, options, stores[1])
    if options.out is None:
        print(text)
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(options.out) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
