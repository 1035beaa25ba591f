"""Train the learned part of the inversion (tools/polish.py): what it mends in the sound that frames and the song's phase give.

    python tools/make_vocoder.py all --data DATA --work WORK
    python tools/make_vocoder.py train --work WORK --minutes 4 --batch 16 --frames 96 --device cuda

``prepare`` makes pairs: a passage as a style plays it (truth), the same passage on other instruments (song), and the canvas that the
shipped style paints of that song; also recordings, whose song is the recording without its phase and fine structure. All renders are
FluidR3's, of training pieces; pieces of the validation split are kept for the score that is printed. It resumes. ``train`` needs nothing
but WORK: every passage is inverted from the truth's own frames and from the canvas, once, and the network learns to take the results
nearer to the truth. It writes the running mean of its weights, and its log, every half minute.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from polish import Polish, PolishConfig, both_arrived, load_polish
from torch import Tensor, nn
from torch.nn import functional as F

from stylestream.style import Card, Source, save_style
from stylestream.vocoder import Vocoder

RATE = 44100
STYLES = ("rock", "jazz", "electronic", "choir", "strings", "piano", "chiptune")
HOP = 512


# --- pairs -------------------------------------------------------------------------------------------------------------------------


def hashed(text: str) -> int:
    """A number that nobody chose."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def level(y: np.ndarray) -> np.ndarray:
    """The mid of a song at the frames' loudness, a whole number of hops."""
    from stylestream import audio
    from stylestream.features import FeatureConfig

    mid = y.mean(0, keepdims=True)[:, : y.shape[1] // HOP * HOP]
    gain_db = min(FeatureConfig().loudness_lufs - audio.loudness(mid, RATE), 60.0)
    return np.asarray(mid[0] * 10 ** (gain_db / 20), dtype=np.float32)


def keep(path: Path, truth: np.ndarray, song: np.ndarray, canvas: np.ndarray) -> None:
    """Write a pair: sixteen bits under full scale, frames in 255 steps of 0.35 dB."""
    import soundfile

    scale = float(max(np.abs(truth).max(), np.abs(song).max(), 1e-3)) * 1.01
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path.with_suffix(".npz"), canvas=np.rint(canvas.clip(0, 1) * 255).astype(np.uint8), scale=np.float32(scale))
    temporary = path.with_suffix(".part")
    soundfile.write(temporary, np.stack([truth, song], axis=1) / scale, RATE, format="FLAC", subtype="PCM_16")
    temporary.replace(path)


def canvas_of(style: Any, song: np.ndarray) -> np.ndarray:
    """What a style paints of a song (N,) at the frames' loudness."""
    heard: list[Tensor] = []
    synthesise = style.vocoder.synthesise

    def remember(x_hat: Tensor, analysis: Any, **settings: Any) -> Tensor:
        heard.append(x_hat)
        result: Tensor = synthesise(x_hat, analysis, **settings)
        return result

    style.vocoder.synthesise = remember
    try:
        style.transfer(song[None], RATE, chunk_seconds=song.size / RATE + 1)
    finally:
        del style.vocoder.synthesise
    return torch.cat(heard, dim=1).float().numpy()


def without_phase(y: np.ndarray, seed: int) -> np.ndarray:
    """A recording played by nobody: its frames an octave wide, with phase and fine structure drawn by chance."""
    vocoder = Vocoder(iterations=1)
    noise = torch.randn(1, y.size, generator=torch.Generator().manual_seed(seed)) * 0.1
    x = vocoder.frames(vocoder.analyse(torch.from_numpy(y)[None]))
    return vocoder.synthesise(x, vocoder.analyse(noise))[0].numpy()


def prepare_style(options: argparse.Namespace, name: str, split: Any, count: int) -> None:
    """The passages of one style."""
    from stylestream import midi, passages, recipes
    from stylestream.transfer import load_style

    protocol = passages.Protocol(pieces=count, seconds=options.seconds, min_notes=8)
    recipe, style, renderer = recipes.recipe_of(name), load_style(name), passages.Renderer(options.work / "renders")
    for number, excerpt in enumerate(passages.excerpts(options.data, name, protocol, split=split)[0]):
        path = options.work / "pairs" / split / f"{name}-{excerpt.id[:12]}.flac"
        if path.exists():
            continue
        score = midi.load_score(excerpt.content)
        target = recipes.target_score(score, recipe)
        song = passages.song_score(score if recipe.layers else target, excerpt.content, recipe)
        if number % 2:  # half of the songs on what the protocol says (mostly the piano), half on anything
            song = midi.random_orchestration(target, np.random.default_rng(hashed(excerpt.id)))
        try:
            pair = [level(renderer.render(s, "fluidr3", excerpt)) for s in (target, song)]
            keep(path, *pair, canvas_of(style, pair[1]))
        except ValueError as error:
            print(f"{path.name}: {error}", flush=True)
    print(f"{name} {split}: done", flush=True)


def prepare_recordings(options: argparse.Namespace) -> None:
    """Passages of openly licensed recordings; the canvas is their own frames, blurred as canvases are."""
    from stylestream import audio, recipes

    vocoder = Vocoder()
    with (options.data / "audio.csv").open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if recipes.licence_allowed(row["licence"])]
    for row in sorted(rows, key=lambda row: hashed(row["path"]))[: options.recordings]:
        path = options.work / "pairs" / "train" / f"recording-{hashed(row['path']):08x}.flac"
        if path.exists():
            continue
        start = float(row["seconds"]) / 4
        y, _ = audio.load(options.data / row["path"], sample_rate=RATE, mono=True, max_seconds=start + options.seconds)
        truth = level(y[:, round(start * RATE) :])
        x = vocoder.frames(vocoder.analyse(torch.from_numpy(truth)[None]))
        blurred = F.avg_pool2d(x[None, None], 3, stride=1, padding=1, count_include_pad=False)[0, 0]
        keep(path, truth, level(without_phase(truth, hashed(row["path"]))[None]), blurred.numpy())
    print("recordings: done", flush=True)


def prepare(options: argparse.Namespace) -> None:
    """All pairs."""
    for split, count in (("valid", options.valid), ("train", options.pieces)):
        for name in STYLES:
            prepare_style(options, name, split, count)
    prepare_recordings(options)


# --- what is learned from ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Passage:
    """One inverted passage: for each band what is wanted, what it gives, and the song, (T, bins) complex; and the truth, (N,)."""

    low: tuple[Tensor, Tensor, Tensor]
    high: tuple[Tensor, Tensor, Tensor]
    truth: Tensor
    kind: str  # "true": from the truth's own frames; "canvas"

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.high[0].shape[0]


def read_pairs(options: argparse.Namespace, split: str) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(truth, song, canvas) of every pair of a split."""
    import soundfile

    paths = sorted((options.work / "pairs" / split).glob("*.flac"))
    if not paths:
        raise SystemExit(f"{options.work / 'pairs' / split}: has no pairs; run prepare first")
    for path in paths[: options.most or None]:
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as kept:
            scale, canvas = kept["scale"], kept["canvas"].astype(np.float32) / 255
        truth, song = (soundfile.read(path, dtype="float32")[0] * scale).T
        yield truth, song, canvas


def inverted(vocoder: Vocoder, truth: Tensor, song: Tensor, canvas: Tensor) -> Iterator[Passage]:
    """A pair from the truth's own frames, and from the canvas."""
    analysis = vocoder.analyse(song[None])
    own = vocoder.frames(vocoder.analyse(truth[None]))
    frames = min(own.shape[1], canvas.shape[1], analysis.high.shape[1])
    analysis = replace(analysis, y=analysis.y[:, : (frames - 1) * HOP], low=analysis.low[:, :frames], high=analysis.high[:, :frames])
    for kind, x in (("true", own), ("canvas", canvas)):
        low, high = both_arrived(vocoder, x[:, :frames], analysis)
        yield Passage((*low, analysis.low.mT), (*high, analysis.high.mT), truth[: (frames - 1) * HOP], kind)


def passages_of(options: argparse.Namespace, split: str, vocoder: Vocoder) -> list[Passage]:
    """All inverted passages of a split, on the device."""
    found = []
    for pair in read_pairs(options, split):
        truth, song, canvas = (torch.from_numpy(np.ascontiguousarray(part)).to(options.device) for part in pair)
        found += list(inverted(vocoder, truth, song, canvas))
    return found


class Batch:
    """Crops of equally many frames: for each band (wanted, given, song), each (B, T, bins), and the truth (B, (T − 1) hops)."""

    def __init__(self, passages: list[Passage], starts: list[int], frames: int) -> None:
        cut = [(p, slice(a, a + frames)) for p, a in zip(passages, starts, strict=True)]
        self.low = tuple(torch.stack([p.low[i][s] for p, s in cut]) for i in range(3))
        self.high = tuple(torch.stack([p.high[i][s] for p, s in cut]) for i in range(3))
        self.truth = torch.stack([p.truth[s.start * HOP : (s.stop - 1) * HOP] for p, s in cut])


def crops(passages: list[Passage], size: int, frames: int, rng: np.random.Generator) -> Batch:
    """A batch of crops drawn by chance."""
    drawn = [passages[i] for i in rng.integers(len(passages), size=size)]
    return Batch(drawn, [int(rng.integers(p.frames - frames + 1)) for p in drawn], frames)


# --- frames to waveform, as the vocoder does it, with a gradient -------------------------------------------------------------------


def overlap_added(X: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Frames (B, T, bins) → waveform (B, (T − 1) hops); right but for half a window at each end."""
    window = torch.hann_window(n_fft, device=X.device)
    pieces = torch.fft.irfft(X, n_fft) * (window * (4 / n_fft) * (n_fft * hop_length / 6))  # over the sum of the squared windows
    length = (X.shape[1] - 1) * hop_length + n_fft
    y = F.fold(pieces.mT, (1, length), (1, n_fft), stride=(1, hop_length))[:, 0, 0]
    return y[:, n_fft // 2 : length - n_fft // 2]


def waveform(vocoder: Vocoder, low: Tensor, high: Tensor) -> Tensor:
    """The sum of the bands: (B, T, 257) and (B, T, 1025) → (B, (T − 1) hops)."""
    c = vocoder.features.config
    few = overlap_added(low * vocoder.low.share, c.n_fft_decimated, c.hop_decimated)
    taps = vocoder.features.decimate_taps * c.decimation
    many = F.conv_transpose1d(few[:, None], taps[None, None], stride=c.decimation)[:, 0, taps.numel() // 2 :]
    y = overlap_added(high * vocoder.high.share, c.n_fft_high, c.hop_length)
    return y + F.pad(many, (0, max(0, y.shape[1] - many.shape[1])))[:, : y.shape[1]]


# --- how far from the truth --------------------------------------------------------------------------------------------------------

RESOLUTIONS = ((512, 128), (1024, 256), (2048, 512), (4096, 1024))
EDGE = 8 * HOP  # samples of a crop that its ends reach: half a long window, and the network's sight


def mel_rows(n_fft: int = 2048, count: int = 128, from_hz: float = 30.0, to_hz: float = 16000.0) -> Tensor:
    """Triangles of height 1 on the mel scale (Slaney's: even to 1 kHz, then 27 an octave and a bit), (count, n_fft // 2 + 1)."""
    step = np.log(6.4) / 27
    mel = [hz / (200 / 3) if hz < 1000 else 15 + np.log(hz / 1000) / step for hz in (from_hz, to_hz)]
    at = np.linspace(*mel, count + 2)
    hz = np.where(at < 15, at * 200 / 3, 1000 * np.exp(step * (at - 15)))
    bins = np.arange(n_fft // 2 + 1) * RATE / n_fft
    up, down = (bins - hz[:-2, None]) / np.diff(hz)[:-1, None], (hz[2:, None] - bins) / np.diff(hz)[1:, None]
    return torch.from_numpy(np.maximum(0, np.minimum(up, down))).float()


def power(y: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Power spectrogram (B, n_fft // 2 + 1, T) of the inside of a waveform; a full-scale sine is 1."""
    window = torch.hann_window(n_fft, device=y.device) * (4 / n_fft)
    S = torch.stft(y, n_fft, hop_length, window=window, center=False, return_complex=True)
    return S.real.square() + S.imag.square()


def nepers(P: Tensor) -> Tensor:
    """Log-magnitude over a soft floor of −80 dB."""
    return 0.5 * torch.log(P + 1e-8)


class Distance(nn.Module):
    """Waveforms (B, N) → how far from the truth: log magnitude and convergence on four resolutions, and log-mel."""

    mels: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mels", mel_rows())

    def forward(self, y: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """``log`` (nepers), ``convergence``, ``mel`` (nepers)."""
        found = {"log": y.new_zeros(()), "convergence": y.new_zeros(()), "mel": y.new_zeros(())}
        for n_fft, hop_length in RESOLUTIONS:
            a, b = power(truth, n_fft, hop_length), power(y, n_fft, hop_length)
            found["log"] = found["log"] + (nepers(a) - nepers(b)).abs().mean() / len(RESOLUTIONS)
            off = (a.sqrt() - (b + 1e-12).sqrt()).square().sum((1, 2)) / (a.sum((1, 2)) + 1e-6)
            found["convergence"] = found["convergence"] + (off + 1e-8).sqrt().mean() / len(RESOLUTIONS)
            if n_fft == 2048:
                found["mel"] = (nepers(self.mels @ a) - nepers(self.mels @ b)).abs().mean()
        return found


def loss_of(found: dict[str, Tensor]) -> Tensor:
    """Their sum: what a judge of everything but phase hears, and mels once more because bins are mostly treble."""
    return found["log"] + 0.5 * found["convergence"] + 2 * found["mel"]


class Critic(nn.Module):
    """Which of two spectrograms is the truth: one small convolutional network a resolution, patch by patch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.resolutions = RESOLUTIONS[:3]
        sizes = (
            (2, channels, (2, 1)),
            (channels, channels, (2, 1)),
            (channels, 2 * channels, (2, 2)),
            (2 * channels, 2 * channels, (2, 1)),
        )
        self.stacks = nn.ModuleList(
            nn.ModuleList(
                [nn.utils.parametrizations.weight_norm(nn.Conv2d(a, b, (5, 5), stride=s, padding=2)) for a, b, s in sizes]
                + [nn.Conv2d(2 * channels, 1, 3, padding=1)]
            )
            for _ in self.resolutions
        )

    def forward(self, y: Tensor) -> list[list[Tensor]]:
        """What every layer of every network says; the last is the verdict, high for the truth."""
        said = []
        for (n_fft, hop_length), stack in zip(self.resolutions, self.stacks, strict=True):
            level = nepers(power(y, n_fft, hop_length))[:, None] / 5 + 1
            where = torch.linspace(-1, 1, level.shape[2], device=y.device)[None, None, :, None].expand_as(level)
            h, layers = torch.cat([level, where], dim=1), []
            for layer in stack[:-1]:
                h = F.leaky_relu(layer(h), 0.1)
                layers.append(h)
            said.append([*layers, stack[-1](h)])
        return said


def fooling(true: list[list[Tensor]], made: list[list[Tensor]]) -> Tensor:
    """Low where the critic takes the result for the truth, and sees the same things in it."""
    total = made[0][-1].new_zeros(())
    for a, b in zip(true, made, strict=True):
        total = total - b[-1].mean()
        total = total + 2 * sum(
            (x.detach() - y).abs().mean() / (x.detach().abs().mean() + 1e-3) for x, y in zip(a[:-1], b[:-1], strict=True)
        )
    return total


def telling(true: list[list[Tensor]], made: list[list[Tensor]]) -> Tensor:
    """The critic's own loss (hinge)."""
    parts = [F.relu(1 - a[-1]).mean() + F.relu(1 + b[-1]).mean() for a, b in zip(true, made, strict=True)]
    return torch.stack(parts).sum()


# --- training ----------------------------------------------------------------------------------------------------------------------


@dataclass
class State:
    """Everything that training changes."""

    model: Polish
    mean: Polish  # running mean of the weights: what is kept
    critic: Critic
    optimizer: torch.optim.Optimizer
    critic_optimizer: torch.optim.Optimizer
    step: int = 0
    critic_began: bool = False


def new_state(options: argparse.Namespace) -> State:
    """An identity, or what was learned before, and a critic that knows nothing."""
    torch.manual_seed(0)
    config = PolishConfig(channels=options.channels, blocks=options.blocks, rounds=options.rounds)
    model, mean = Polish(config).to(options.device), Polish(config).to(options.device)
    critic = Critic(options.critic_channels).to(options.device)
    if options.start:
        model.load_state_dict(load_polish(options.start).state_dict())
    mean.load_state_dict(model.state_dict())
    return State(
        model,
        mean.requires_grad_(False),
        critic,
        torch.optim.AdamW(model.parameters(), lr=options.rate, betas=(0.9, 0.99), weight_decay=0.01),
        torch.optim.AdamW(critic.parameters(), lr=5e-4, betas=(0.5, 0.9)),
    )


def polished(model: Polish, vocoder: Vocoder, batch: Batch, options: argparse.Namespace) -> Tensor:
    """What the network makes of a batch: the waveform but for its ends."""
    with torch.autocast(torch.device(options.device).type, dtype=torch.bfloat16, enabled=options.device != "cpu"):
        low, high = model.low(*batch.low), model.high(*batch.high)
    return waveform(vocoder, low, high)[:, EDGE:-EDGE]


def learn(
    state: State, vocoder: Vocoder, distance: Distance, batch: Batch, options: argparse.Namespace, *, critic: bool
) -> dict[str, float]:
    """One step."""
    y, truth = polished(state.model, vocoder, batch, options), batch.truth[:, EDGE:-EDGE]
    found = distance(y, truth)
    (push,) = torch.autograd.grad(loss_of(found), y, retain_graph=True)
    said = {}
    if critic:
        fooled = fooling(state.critic(truth), state.critic(y))
        (other,) = torch.autograd.grad(fooled, y, retain_graph=True)
        push = push + options.share * other * (
            push.norm() / (other.norm() + 1e-12)
        )  # as strong as the distance, no more: never to be tuned
        said["fooled"] = float(fooled.detach())
    state.optimizer.zero_grad(set_to_none=True)
    y.backward(push)
    nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
    state.optimizer.step()
    if critic:
        told = telling(state.critic(truth), state.critic(y.detach()))
        state.critic_optimizer.zero_grad(set_to_none=True)
        told.backward()
        state.critic_optimizer.step()
        said["told"] = float(told.detach())
    keep_mean(state)
    state.step += 1
    return said | {name: float(value.detach()) for name, value in found.items()}


@torch.no_grad()
def keep_mean(state: State) -> None:
    """Weights follow with a memory of a few hundred steps."""
    share = min(0.998, (1 + state.step) / (10 + state.step))
    for kept, new in zip(state.mean.parameters(), state.model.parameters(), strict=True):
        kept.lerp_(new, 1 - share)


@torch.no_grad()
def validated(model: Polish, vocoder: Vocoder, distance: Distance, held: list[Passage], options: argparse.Namespace) -> dict[str, float]:
    """Mean distances of whole passages by kind; log-mel in dB."""
    found: dict[str, list[float]] = {}
    for passage in held:
        batch = Batch([passage], [0], passage.frames)
        parts = distance(polished(model, vocoder, batch, options), batch.truth[:, EDGE:-EDGE])
        for name, value in parts.items():
            found.setdefault(f"{passage.kind} {name}", []).append(float(value) * (8.686 if name == "mel" else 1))
    return {name: round(float(np.mean(values)), 4) for name, values in found.items()}


def write(path: Path, state: State, options: argparse.Namespace, scores: dict[str, Any], minutes: float, passages: list[Passage]) -> None:
    """The weights, half precision, with their card."""
    seconds = sum(p.truth.shape[0] for p in passages) / 2 / RATE
    about = Card(
        title="Polish",
        description="The learned part of the inversion: turns the bins of frames that borrowed the phase of a song. No style.",
        author="StyleStream contributors",
        licence="Apache-2.0",
        sources=(
            Source(
                "training pieces and recordings of the styles' corpus", "see docs/data.md", len(passages) // 2, round(seconds / 3600, 2)
            ),
        ),
        training_minutes=round(minutes, 1),
        training_steps=state.step,
        training_device=options.device,
        metrics=scores,
        notes="Pieces rendered with FluidR3 (MIT). Canvases by the shipped styles.",
    )
    config = {"model": "polish", **asdict(state.mean.config)}
    save_style(path, state.mean.state_dict(), model_config=config, feature_config={}, card=about)


def train(options: argparse.Namespace) -> None:
    """Learn for so many minutes."""
    began = time.monotonic()
    vocoder, distance = Vocoder(iterations=options.rounds).to(options.device), Distance().to(options.device)
    passages, held = passages_of(options, "train", vocoder), passages_of(options, "valid", vocoder)
    state, rng = new_state(options), np.random.default_rng(0)
    scores: dict[str, Any] = {"before": validated(state.mean, vocoder, distance, held, options)}
    print(f"{len(passages)} passages after {time.monotonic() - began:.0f} s; before: {scores['before']}", flush=True)
    began, seconds, told = time.monotonic(), options.minutes * 60, 0.0
    log: list[str] = []
    while (gone := (time.monotonic() - began) / seconds) < 1:
        for group in state.optimizer.param_groups:
            group["lr"] = options.rate * min(1, (state.step + 1) / 100) * (0.02 + 0.98 * (1 + np.cos(np.pi * gone)) / 2)
        critic = gone > options.critic_from
        if critic and not state.critic_began:  # what the distance alone has taught stays to be compared
            state.critic_began = True
            write(options.out.with_stem(options.out.stem + "-plain"), state, options, scores, gone * options.minutes, passages)
        batch = crops(passages, options.batch, options.frames, rng)
        said = learn(state, vocoder, distance, batch, options, critic=critic)
        if gone * seconds - told > options.report_seconds or options.steps == state.step:
            told = gone * seconds
            scores["after"] = validated(state.mean, vocoder, distance, held, options)
            print(f"{told:.0f} s, step {state.step}: {scores['after']}", flush=True)
            log.append(json.dumps({"seconds": round(told, 1), "step": state.step, "train": said, "valid": scores["after"]}))
            options.out.with_suffix(".jsonl").write_text("\n".join(log) + "\n", encoding="utf-8")
            write(options.out, state, options, scores, told / 60, passages)
        if options.steps == state.step:
            break
    scores["after"] = validated(state.mean, vocoder, distance, held, options)
    write(options.out, state, options, scores, (time.monotonic() - began) / 60, passages)
    print(f"step {state.step}: {scores['after']}; {options.out}", flush=True)


def main() -> None:
    """Prepare, train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", nargs="?", default="all", choices=("prepare", "train", "all"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="weights; WORK/polish.safetensors when not given")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a passage")
    parser.add_argument("--pieces", type=int, default=8, help="of each style to train on")
    parser.add_argument("--valid", type=int, default=1, help="of each style to score on while training")
    parser.add_argument("--recordings", type=int, default=6)
    parser.add_argument("--most", type=int, default=0, help="pairs to use of what was prepared; 0: all")
    parser.add_argument("--minutes", type=float, default=24.0)
    parser.add_argument("--steps", type=int, default=0, help="stop there if that is earlier")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--frames", type=int, default=64, help="of a crop")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--rounds", type=float, default=0, help="of fast Griffin–Lim before the network; the styles ask for none, mostly")
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--critic-from", type=float, default=1.0, help="part of the time after which the critic joins; 1: never")
    parser.add_argument("--critic-channels", type=int, default=12)
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--share", type=float, default=0.5, help="of the critic's gradient, re the distance's")
    parser.add_argument("--report-seconds", type=float, default=30.0)
    options = parser.parse_args()
    options.out = options.out or options.work / "polish.safetensors"
    if options.step != "train":
        prepare(options)
    if options.step != "prepare":
        train(options)


if __name__ == "__main__":
    main()
