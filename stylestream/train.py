"""Frames → weights, scored as they go.

The loop: crops of songs of one or more styles, a style-neutral view of each, one step of AdamW; late in the run a critic sharpens the
canvas and the texture stage learns what the canvas lacks. The weights kept are the running average (EMA) with the best held-out
*transfer* score: how far of the way from the song to the target the canvas gets on pieces that are not trained on, shown in another
orchestration. A low training loss says nothing: a model that copies has a very low one.

Everything random is a function of (seed, step), and a checkpoint holds all that changes, so an interrupted run, resumed, is the same
run bit for bit (on one CPU, under a budget of steps).

`fit` is the loop; `stylestream.workshop.train` is the whole way from folders of music to a style file.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylestream import corpus, views
from stylestream.corpus import FrameStore
from stylestream.draw import Draw, DrawConfig, PatchCritic
from stylestream.files import whole_file
from stylestream.team import ALONE, Team

CHECKPOINT_SECONDS = 25.0  # at most this much work is lost
LEAST_BATCH = 8  # crops in a step of one process, where nothing else is said
LAST_STAGE = 0.85  # of the budget; from here on the learning rate is small
LEAST_GAIN = 0.002  # of the way: less is no better
Config = TypeVar("Config")


@dataclass(frozen=True)
class TrainConfig:
    """How to train. ``steps`` or ``minutes``: whichever is set is the budget."""

    steps: int = 0
    minutes: float = 10.0
    batch: int = 8  # crops in a step, of all processes together; 0: 8, and on a GPU as many as are worth it
    crop_frames: int = 128  # 1.5 s: the context of the network
    learning_rate: float = 2e-3
    final_rate: float = 0.02  # of learning_rate, reached by a cosine
    warmup: float = 0.02  # of the budget
    kl_warmup: float = 0.05  # β rises over this share: a posterior must be worth something before it is taxed
    critic_from: float = 0.6  # of the budget; 1: no critic
    critic_share: float = 1.0  # norm of the critic's gradient on the canvas, relative to the L1 loss's
    critic_batch: int = 64  # at most so many crops of a batch: the critic works at full resolution and is dear
    texture_from: float = 0.5
    ema: float = 0.998
    freeze_encoder: bool = False
    patience: int = 0  # scores without a better one, and the next stage begins, after the last the end; 0: never. Where minutes count
    clip_share: float = 0.0  # of crops are told their style by a clip, of whatever orchestration, through the style encoder
    clip_frames: int = 256  # 3 s
    score_seconds: float = 60.0  # between two scores; under a budget of steps, a twentieth of them lies between (at least 100)
    score_songs: int = 4  # of each style
    score_frames: int = 1024  # of each song at most: 12 s. A score costs as much as one or two steps
    threads: int = 0  # of the CPU; 0: as many as torch takes, or only one if minutes count and one is faster
    seed: int = 0

    def __post_init__(self) -> None:
        share, some, none = (0.0, 1.0), (1.0, math.inf), (0.0, math.inf)
        corpus.check_ranges(self, minutes=(1e-6, math.inf), learning_rate=(1e-9, 1.0), final_rate=share, warmup=share, kl_warmup=none)
        corpus.check_ranges(self, steps=none, batch=none, crop_frames=(4, math.inf), critic_from=share, critic_share=none)
        corpus.check_ranges(self, critic_batch=some, texture_from=share, ema=share, patience=none, clip_share=share, clip_frames=some)
        corpus.check_ranges(self, score_seconds=none, score_songs=some, score_frames=some, threads=none)


@dataclass
class State:
    """Everything that changes while training."""

    model: Draw
    average: Draw
    optimizer: torch.optim.Optimizer
    critic: PatchCritic
    critic_optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    best_score: float = -1e9
    retries: int = 0  # how often a loss was not finite and the last good state was taken up again
    batch: int = 0  # crops in a step, where the machine has chosen; 0: as the config says
    skipped: float = 0.0  # share of the budget passed over because nothing got better
    unscored: dict[str, float] = field(default_factory=dict)  # losses of a step whose score is due and not yet made
    history: list[dict[str, float]] = field(default_factory=list)
    team: Team = ALONE


def new_state(
    model_config: DrawConfig,
    config: TrainConfig,
    *,
    device: str = "cpu",
    base: Mapping[str, Tensor] | None = None,
    model: Draw | None = None,
    team: Team = ALONE,
) -> State:
    """Fresh optimisers and model (or the given one, compiled perhaps, taken over); weights from ``base`` where given."""
    torch.manual_seed(config.seed)
    model, average = model or Draw(model_config), Draw(model_config)
    if base is not None:
        model.load_state_dict(dict(base))
    average.load_state_dict(model.state_dict())
    critic = PatchCritic(model_config.n_bins, model_config.styles)
    model, average, critic = (m.to(device, memory_format=torch.channels_last) for m in (model, average, critic))  # type: ignore[call-overload]
    if config.freeze_encoder:
        for part in (model.read, model.encoder, model.q):
            part.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3, fused=device.startswith("cuda"))
    critic_optimizer = torch.optim.AdamW([p for p in critic.parameters() if p.requires_grad], lr=1e-3, betas=(0.5, 0.9))
    model.noise = team.noise
    return State(model, average, optimizer, critic, critic_optimizer, team=team)


def compile_model(model: Draw) -> None:
    """Compile the recurrence and the texture stage for fixed shapes: a minute once, then 1.6 × faster on an H100. Not worth it on a CPU."""
    model.paint = torch.compile(model.paint, dynamic=False)  # type: ignore[method-assign]
    model._texture_loss = torch.compile(model._texture_loss, dynamic=False)  # type: ignore[method-assign]


def learning_rate(progress: float, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine to ``final_rate``; ``progress`` in [0, 1]."""
    if progress < config.warmup:
        return config.learning_rate * max(progress / config.warmup, 0.01)
    angle = math.pi * (progress - config.warmup) / (1 - config.warmup)
    return config.learning_rate * (config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(min(angle, math.pi))))


def train_step(state: State, store: FrameStore, config: TrainConfig, view_config: views.ViewConfig, progress: float) -> dict[str, Tensor]:
    """One step on one batch; changes the state, returns the losses (on the device: reading them waits for it).

    With them comes ``"gradient/norm"``, before it is clipped: a gradient that is not finite breaks the weights while the losses, which are
    of the weights before, look well.
    """
    seed = seed_of(config.seed, state.retries, state.step)
    torch.manual_seed(seed)  # the posterior's noise
    device = store.device
    generator = torch.Generator().manual_seed(seed)
    clip_frames = config.clip_frames if config.clip_share else 0  # half of the clips are of another orchestration than the style's
    how: dict[str, Any] = {"other": view_config.other, "swapped": config.clip_share / 2, "generator": generator}
    batch = store.batch(config.batch, config.crop_frames, clip_frames=clip_frames, **how)
    with torch.no_grad():
        view = views.drawn(batch["view"], batch["target"], view_config, torch.Generator(device).manual_seed(seed))
        known = (torch.rand(config.batch, device=device) < 0.5)[:, None, None]  # beats are not always known
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(progress, config)
    beta = min(1.0, 0.05 + progress / max(config.kl_warmup, 1e-9))
    told = batch["style"], *(drawn_clips(batch, config, generator) if config.clip_share else ())
    view, target, phase, *told = state.team.rows((view, batch["target"], batch["phase"] * known, *told))
    name = told[0]
    with autocast(device):
        out = state.model(view, target, told_style(state.model, *told), phase, texture=progress >= config.texture_from, beta=beta)
    loss = out["loss/total"]
    if progress >= config.critic_from:
        ramp = min(1.0, (progress - config.critic_from) / 0.05)
        few, size = slice(max(config.critic_batch // state.team.size, 1)), state.team.size
        canvas = out["canvas"][few]
        share = config.critic_share * ramp * (canvas.shape[0] / target.shape[0]) ** 0.5
        norm = share / (size * out["canvas"].numel()) ** 0.5
        pull, critic_loss = critic_gradient(state, canvas, target[few], name[few], norm)
        loss = loss + size * (canvas * pull).sum()  # a sum over the batch, where the rest is a mean
        out["loss/critic"] = critic_loss
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    state.team.mean_([p.grad for p in state.model.parameters() if p.grad is not None])
    norm_of_all = nn.utils.clip_grad_norm_((p for p in state.model.parameters() if p.grad is not None), 1.0)
    state.optimizer.step()
    update_average(state, min(config.ema, (1 + state.step) / (10 + state.step)))
    state.step += 1
    return {key: value.detach() for key, value in out.items() if key.startswith("loss/")} | {"gradient/norm": norm_of_all.detach()}


def seed_of(*numbers: int) -> int:
    """One seed of several numbers, as large as torch takes: any 63 bits are lawful as the first of them.

    >>> seed_of(0, 0, 7), seed_of(20240101, 0, 7) < 2**63
    (7, True)
    """
    return functools.reduce(lambda before, number: before * 1_000_003 + number, numbers) % 2**63


def drawn_clips(batch: Mapping[str, Tensor], config: TrainConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Clips (B, F, T) and which crops are told their style by them (B,): those that are not the style's own, and as many others."""
    device, count = batch["clip"].device, len(batch["clip"])
    # moved along pitch, by up to a minor third: a clip is to tell no key
    clip = views.shift_rows(batch["clip"], 9 * (2 * torch.rand(count, generator=generator) - 1).to(device))
    share = config.clip_share / 2 / (1 - config.clip_share / 2)  # of those that could be told by name
    return clip, batch["swapped"] | (torch.rand(count, generator=generator) < share).to(device)


def told_style(model: Draw, name: Tensor, clip: Tensor | None = None, by_clip: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Style vectors of a batch, float32: the rows of its styles, or what the clips tell."""
    embedding, mean = (part.float() for part in model.style_vector(name))
    if clip is None or by_clip is None:
        return embedding, mean
    heard, spectrum = (part.float() for part in model.clip_vector(clip))
    return torch.where(by_clip[:, None], heard, embedding), torch.where(by_clip[:, None], spectrum, mean)


def critic_gradient(state: State, canvas: Tensor, target: Tensor, style: Tensor, norm: float) -> tuple[Tensor, Tensor]:
    """Train the critic one step, and return its gradient on the canvas, rescaled to ``norm`` times range / scale.

    The L1 loss's gradient is sign(error) · range / (scale · pixels), of norm range / scale / √pixels: with the norms matched, there is
    no weight to tune and nothing diverges.
    """
    critic = state.critic
    fake = canvas.detach().requires_grad_()
    with autocast(canvas.device.type):
        real_scores, real_features = critic(target, style)
        fake_scores, _ = critic(fake.detach(), style)
        hinge = sum(
            torch.relu(1 - r.float()).mean() + torch.relu(1 + f.float()).mean() for r, f in zip(real_scores, fake_scores, strict=True)
        )
    assert isinstance(hinge, Tensor)
    state.critic_optimizer.zero_grad(set_to_none=True)
    hinge.backward()
    state.team.mean_([p.grad for p in critic.parameters() if p.grad is not None])
    state.critic_optimizer.step()
    with autocast(canvas.device.type):
        scores, features = critic(fake, style)
        real_features = [f.detach() for f in real_features]
        sizes = [r.float().abs().mean() for r in real_features]
        state.team.mean_(sizes)
        adversarial = -sum(s.float().mean() for s in scores)
        matching = sum((f - r).float().abs().mean() / size for f, r, size in zip(features, real_features, sizes, strict=True))
        wanted = adversarial + 2 * matching / len(features)
    assert isinstance(wanted, Tensor)
    (pull,) = torch.autograd.grad(wanted, fake)
    model = state.model.config
    length = state.team.total(pull.square().sum()).sqrt()
    return pull * (norm * model.range_db / model.scale_db / length.clamp(min=1e-12)), hinge.detach()


@torch.no_grad()
def update_average(state: State, decay: float) -> None:
    """Exponential moving average of the weights."""
    torch._foreach_lerp_(list(state.average.parameters()), list(state.model.parameters()), 1 - decay)


def autocast(device: str) -> Any:
    """bf16 where it pays: CUDA, and CPUs that have it."""
    kind = device.split(":")[0]
    fast = kind == "cuda" or (kind == "cpu" and torch.backends.mkldnn.is_available() and _cpu_has_bf16())
    return torch.autocast(kind, dtype=torch.bfloat16) if fast else contextlib.nullcontext()


def _cpu_has_bf16() -> bool:
    return bool(getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)())


@torch.no_grad()
def transfer_score(model: Draw, store: FrameStore, *, role: int = 1, max_frames: int = 1024, songs_per_style: int = 4) -> dict[str, float]:
    """Held-out transfer in the spectrogram domain: song → target, dB.

    The song is another orchestration of the target, ``role``; where that is the target itself or nearly (a piano's piano), the one
    furthest from it; where there is none (recordings), the target disturbed.

    Returns
    -------
    dict
        ``"score/l1_db"`` and ``"score/copy_db"``, mean |difference| of frames, level differences between songs removed; ``"score/way"``,
        the share of the copy's distance that is gone; and the same per style, ``"score/way/STYLE"``.
    """
    ways: dict[int, list[tuple[float, float]]] = {}
    for _, style_id, first, count in store.songs:
        if len(ways.get(style_id, ())) == songs_per_style:
            continue
        T = min(count, max_frames)
        window = slice(first, first + T)
        target = store.frames[0, window].T.float()[None] / corpus.LEVELS
        song = stand_in(store, window, target, role)
        phase = store.phase[window].T.float()[None] / 127
        with autocast(store.device):
            out = model.transfer(song, style=style_id if model.config.styles > 1 else 0, phase=phase, grain=0.0)
        ways.setdefault(style_id, []).append((distance_db(out, target), distance_db(song, target)))
    result = {f"score/way/{store.styles[s]}": 1 - sum(o for o, _ in pairs) / sum(c for _, c in pairs) for s, pairs in ways.items()}
    both = [pair for pairs in ways.values() for pair in pairs]
    result["score/l1_db"], result["score/copy_db"] = (sum(column) / len(both) for column in zip(*both, strict=True))
    return result | {"score/way": sum(value for key, value in result.items() if key.startswith("score/way/")) / len(ways)}


def stand_in(store: FrameStore, window: slice, target: Tensor, role: int = 1) -> Tensor:
    """The song that is shown for a target (1, F, T): another orchestration of it, ``role`` if that is far enough, or it disturbed."""
    songs = [frames[window].T.float()[None] / corpus.LEVELS for frames in store.frames[1:]]
    far = [distance_db(song, target) for song in songs]
    if len(far) >= role and far[role - 1] > 2.0:
        return songs[role - 1]
    if max(far, default=0.0) > 2.0:
        return songs[far.index(max(far))]
    return views.perturb(target, views.STAND_IN, torch.Generator(target.device).manual_seed(window.start))


def distance_db(a: Tensor, b: Tensor) -> float:
    """Mean |difference| of frames, dB, a difference in level removed."""
    difference = (a.float() - b) * views.RANGE_DB
    return float((difference - difference.median()).abs().mean())


# --- checkpoints -------------------------------------------------------------------------------------------------------------------


_PLAIN = ("step", "seconds", "best_score", "retries", "batch", "skipped", "unscored", "history")  # of a State, what JSON holds


def save_checkpoint(state: State, folder: Path) -> None:
    """The whole state, as safetensors and JSON in one file, whole or not at all."""
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name in ("model", "average", "critic"):
        tensors |= {f"{name}/{key}": value.contiguous() for key, value in getattr(state, name).state_dict().items()}
    for name in ("optimizer", "critic_optimizer"):
        for index, slots in getattr(state, name).state_dict()["state"].items():
            tensors |= {f"{name}/{index}/{slot}": torch.as_tensor(value).contiguous() for slot, value in slots.items()}
    plain = {name: getattr(state, name) for name in _PLAIN}
    with whole_file(folder / "last.safetensors") as temporary:
        # as bytes, written by Python: what goes wrong on a disk is then an OSError
        temporary.write_bytes(save({key: value.clone() for key, value in tensors.items()}, metadata={"state": json.dumps(plain)}))


def load_checkpoint(state: State, folder: Path) -> bool:
    """Fill a fresh state from a folder; False if there is no checkpoint.

    Raises
    ------
    ValueError
        If it is damaged, or of another network.
    """
    from safetensors import SafetensorError

    path = folder / "last.safetensors"
    if not path.exists():
        return False
    try:
        _fill(state, path)
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path}: the checkpoint is damaged ({reason}); remove {folder} to begin anew") from None
    return True


def _fill(state: State, path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        plain = json.loads(file.metadata()["state"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for name in ("model", "average", "critic"):
        getattr(state, name).load_state_dict({key.split("/", 1)[1]: value for key, value in tensors.items() if key.startswith(name + "/")})
    for name in ("optimizer", "critic_optimizer"):
        optimizer = getattr(state, name)
        saved = optimizer.state_dict() | {"state": {}}
        for key, value in tensors.items():
            if key.startswith(name + "/"):
                _, index, slot = key.split("/")
                saved["state"].setdefault(int(index), {})[slot] = value
        optimizer.load_state_dict(saved)
        for parameter, slots in optimizer.state.items():  # laid out in memory as at first, so that sums round as at first
            slots |= {key: torch.empty_like(parameter).copy_(v) for key, v in slots.items() if v.shape == parameter.shape and v.dim() == 4}
    for name in _PLAIN:
        setattr(state, name, plain.get(name, getattr(state, name)))


# --- the loop ----------------------------------------------------------------------------------------------------------------------


def fit(
    state: State,
    store: FrameStore,
    held_out: FrameStore,
    config: TrainConfig,
    view_config: views.ViewConfig,
    folder: Path,
    *,
    report: Callable[[dict[str, float]], None] = lambda row: None,
    tick: Callable[[State, float, dict[str, Tensor]], None] = lambda state, progress, losses: None,
    show: Callable[[State], None] = lambda state: None,
    show_seconds: float = math.inf,
    say: Callable[[str], None] = lambda line: None,
    grow: bool = False,
    count: Callable[[State], Clock] | None = None,
) -> State:
    """Train until the budget is spent; checkpoints and the best weights (``best.safetensors``) lie in ``folder``.

    Ctrl-C, and being told to end, are obeyed between two steps, when a checkpoint has been written. Of a team only the first process
    scores and writes; all of them call the functions.

    Parameters
    ----------
    report : function of a row of scores
    tick : function of (state, share of the budget that is spent, losses), after every step
    show : function of the state, called every ``show_seconds``, after the first score and at the end; there may be no score yet
    say : function of a line that the user should read
    grow : bool
        Take in songs that were written since, at every score (rendering may go on beside the training).
    count : function of the state → Clock, optional
        What counts the seconds of the budget; the time that passes, unless given.

    Raises
    ------
    FloatingPointError
        If the loss is not finite time and again.
    ValueError
        If the batch is not a multiple of the team, or one crop does not fit into memory.
    """
    team, clock, ending = state.team, (count or Clock)(state), 0.0
    batch_of(state, config)
    if state.step == 0:
        set_mean_frames(state, store)
        _save(state, folder, clock)

    def scored(spent: float) -> None:
        if grow:
            store.refresh()
        report(_score_in_team(state, held_out, config, spent, folder, clock))
        if line := pass_plateau(state, config):
            say(line)

    with _ending_between_steps() as asked:
        while not ending and ((progress := spent_share(state, config)) < 1 or state.unscored):
            if state.unscored:  # of a checkpoint that was taken up: the score that came after it
                scored(progress)
                _save(state, folder, clock)
                show(state)
                continue
            try:
                losses = train_step(state, store, replace(config, batch=batch_of(state, config)), view_config, progress)
            except RuntimeError as error:
                halve_batch(state, config, error, folder, say)
                continue
            state.seconds, ending, bad = clock.agree(bool(asked), _is_bad(losses, store.device, state.step))
            clock.step_took, clock.marked = state.seconds - clock.marked, state.seconds
            spent = spent_share(state, config)
            to_score, to_save = spent >= 1 or clock.score_is_due(state, config), spent >= 1 or bool(ending) or clock.save_is_due(state)
            to_show = spent >= 1 or (to_score and not state.history) or clock.show_is_due(state, show_seconds)
            if (to_score or to_save or to_show) and store.device != "cpu":
                bad = team.agree(0.0, _is_bad(losses, "cpu", state.step))[1]
            if bad:
                go_back(state, folder, losses, say)
                clock.saved = clock.scored = state.seconds
                clock.mark()
                continue
            if to_score:
                state.unscored = _mean_losses(state, losses)
                if clock.score_makes_late(state):
                    _save(state, folder, clock)
                scored(spent)
            if to_save or to_show or clock.save_is_due(state):  # showing takes a while
                _save(state, folder, clock)
            tick(state, spent, losses)
            if to_show:
                show(state)
                clock.shown = state.seconds
                clock.mark()
    if asked:
        signal.raise_signal(asked[0])
    if ending:
        raise KeyboardInterrupt
    if team.leads and not (folder / "best.safetensors").exists():  # the budget was spent on a loss that was not finite
        save_best(state, folder)
    return state


class Clock:
    """When what is due, by the seconds that the first process of a team counts."""

    def __init__(self, state: State) -> None:
        self.team, self.step_took = state.team, 0.0
        self.score_took = math.inf  # not known yet
        self.began = self.now() - state.seconds
        self.saved = self.scored = self.marked = state.seconds
        self.shown = -math.inf if state.history else state.seconds

    def now(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def agree(self, *flags: bool) -> tuple[float, ...]:
        """Seconds of training so far, and for each flag how many processes raise it."""
        return self.team.agree(self.now() - self.began, *flags)

    def score_is_due(self, state: State, config: TrainConfig) -> bool:
        """By steps alone where steps count: which weights are kept must not depend on how fast they were trained."""
        if config.steps:
            return state.step % max(config.steps // 20, 100) == 0
        return state.seconds - self.scored > config.score_seconds

    def save_is_due(self, state: State) -> bool:
        """Before another step like the last one would make the checkpoint too old."""
        return state.seconds - self.saved + self.step_took > CHECKPOINT_SECONDS

    def score_makes_late(self, state: State) -> bool:
        """Whether the checkpoint would be too old after a score like the last one; of the first it is not known."""
        return state.seconds - self.saved + self.score_took > CHECKPOINT_SECONDS

    def show_is_due(self, state: State, show_seconds: float) -> bool:
        """Whether there has been no preview for so long."""
        return state.seconds - self.shown >= show_seconds

    def mark(self) -> None:
        """What comes from here on belongs to the next step."""
        self.marked = self.agree(False)[0]


class ProcessorClock(Clock):
    """Seconds that this process has had of the processor: for comparisons, whatever else the machine does meanwhile."""

    def now(self) -> float:
        """Of the processor."""
        return time.process_time()


def _mean_losses(state: State, losses: Mapping[str, Tensor]) -> dict[str, float]:
    """Single numbers of a step, of all processes together."""
    values = {key: value.float() for key, value in losses.items() if value.numel() == 1}
    state.team.mean_(list(values.values()))
    return {key: float(value) for key, value in values.items()}


def _score_in_team(
    state: State, held_out: FrameStore, config: TrainConfig, progress: float, folder: Path, clock: Clock
) -> dict[str, float]:
    """Score in the first process, and tell the others."""
    row = score(state, held_out, config, state.unscored, progress, folder) if state.team.leads else {}
    row, state.best_score = state.team.share((row, state.best_score))
    if not state.team.leads:
        state.history.append(row)
    before, state.seconds, state.unscored = state.seconds, clock.agree()[0], {}
    clock.score_took, clock.scored, clock.marked = state.seconds - before, state.seconds, state.seconds
    return row


def _save(state: State, folder: Path, clock: Clock) -> None:
    if state.team.leads:
        save_checkpoint(state, folder)
    clock.saved = state.seconds
    clock.mark()  # the others wait for it: they may take it up from here on


@contextlib.contextmanager
def _ending_between_steps() -> Iterator[list[int]]:
    """Collect the signals that ask to end, for the loop to obey. A second one is obeyed at once."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # signals go to the main thread only
        yield asked
        return
    numbers = [signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in signal.Signals.__members__]
    before = {number: signal.getsignal(number) for number in numbers}

    def ask(number: int, frame: Any) -> None:
        handler = before[signal.Signals(number)]
        if asked and callable(handler):
            handler(number, frame)
        asked.append(number)

    handled = [number for number, handler in before.items() if callable(handler)]
    try:
        for number in handled:
            signal.signal(number, ask)
        yield asked
    finally:
        for number in handled:
            signal.signal(number, before[number])


def score(
    state: State, held_out: FrameStore, config: TrainConfig, losses: Mapping[str, float], progress: float, folder: Path
) -> dict[str, float]:
    """Score the averaged weights, keep them if they are the best, and write the row to the history."""
    scored_progress = state.history[-1].get("progress", 0.0) if state.history else 0.0
    row = {"step": state.step, "seconds": state.seconds, "progress": progress, **losses}
    row |= transfer_score(state.average, held_out, max_frames=config.score_frames, songs_per_style=config.score_songs)
    state.history.append(row)
    write_history(state, folder)
    if progress > config.critic_from > scored_progress:
        state.best_score = -1e9  # sharpened canvases are a little further off and better: they start their own contest
    if row["score/way"] > state.best_score:
        state.best_score = row["score/way"]
        save_best(state, folder)
    return row


def pass_plateau(state: State, config: TrainConfig) -> str:
    """Pass over the rest of a stage in which the last ``patience`` scores are no better than those before: what to say, if so.

    The stages are those of the schedule: content, sharpening, and the end, where the learning rate is small. After the last the training
    is over. The weights that are kept are the best ones in any case.
    """
    progress, patience = state.history[-1]["progress"], config.patience
    ends = sorted({min(config.critic_from, 1.0), LAST_STAGE, 1.0})
    end = next(end for end in ends if progress < end or end == 1.0)
    begin = max((e for e in ends if e <= progress and e < end), default=0.0)
    ways = [row["score/way"] for row in state.history if row["progress"] >= begin]
    if config.steps or not patience or progress >= 1 or len(ways) <= patience or max(ways[-patience:]) > max(ways[:-patience]) + LEAST_GAIN:
        return ""
    state.skipped += end - progress
    best = f"no better for {patience} scores (best {100 * state.best_score:.1f} %)"
    if end == 1.0:
        return f"step {state.step}: {best}: more would not help; stopping here"
    return f"step {state.step}: {best}: going on to {'sharpening' if end == config.critic_from else 'the last, small steps'}"


def batch_of(state: State, config: TrainConfig) -> int:
    """Crops in a step.

    Raises
    ------
    ValueError
        If the processes of a team cannot share them evenly.
    """
    size, processes = state.batch or config.batch or LEAST_BATCH * state.team.size, state.team.size
    if size % processes:
        raise ValueError(f"a batch of {size} is not shared evenly by {processes} processes; set batch in [train] and [tune] to a multiple")
    return size


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of torch says that there is no memory left, of whatever device."""
    text = str(error).lower()
    return isinstance(error, torch.cuda.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text


def halve_batch(state: State, config: TrainConfig, error: RuntimeError, folder: Path, say: Callable[[str], None]) -> None:
    """Where memory has run out, take up the last checkpoint with half the batch: the step may have been half done.

    Raises
    ------
    RuntimeError
        The error itself, if it is another.
    ValueError
        If the batch cannot be halved.
    """
    if not is_out_of_memory(error):
        raise error
    batch = batch_of(state, config)
    if batch == 1 or state.team.size > 1:  # of a team, the others wait for a step that this one has not done
        remedy = "lower crop_frames" if batch == 1 else f"lower batch (it is {batch})"
        raise ValueError(f"out of memory at step {state.step}; {remedy} in [train] and [tune]") from None
    step = state.step
    state.optimizer.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    load_checkpoint(state, folder)
    state.batch = batch // 2
    save_checkpoint(state, folder)
    say(f"out of memory at step {step}: going on from step {state.step} with {state.batch} crops in a step instead of {batch}")


def _is_bad(losses: Mapping[str, Tensor], device: str, step: int) -> bool:
    """Whether a loss, or the gradient, is not finite. Reading them waits for a GPU, which is asked only now and then."""
    return (device == "cpu" or step % 50 == 0) and not all(bool(value.isfinite().all()) for value in losses.values())


def go_back(state: State, folder: Path, losses: Mapping[str, Tensor], say: Callable[[str], None] = lambda line: None) -> None:
    """Take up the last good state, with other random numbers from here on.

    Raises
    ------
    FloatingPointError
        If there is none, or it has been tried three times.
    """
    where = ", ".join(key for key, value in losses.items() if not bool(value.isfinite().all()))
    broken = next((name for name, p in state.model.named_parameters() if not bool(p.isfinite().all())), "")
    text = f"the loss is not finite at step {state.step} ({where or 'loss/total'}{'; weights: ' + broken if broken else ''})"
    retries = state.retries + 1
    if retries > 3 or not load_checkpoint(state, folder):
        raise FloatingPointError(f"{text}; lower the learning rate (learning_rate in [train] and [tune])")
    state.retries = retries
    say(f"{text}: back to step {state.step}, with other random numbers ({retries} of 3)")


def spent_share(state: State, config: TrainConfig) -> float:
    """Share of the budget that is spent, or passed over."""
    return state.step / config.steps if config.steps else state.seconds / (60 * config.minutes) + state.skipped


def set_mean_frames(state: State, store: FrameStore) -> None:
    """Give both models the styles' mean spectra as first canvas."""
    for model in (state.model, state.average):
        model.mean_frames.copy_(store.mean_frames())


def save_best(state: State, folder: Path) -> None:
    """The averaged weights, float32."""
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / "best.safetensors") as temporary:
        temporary.write_bytes(save({key: value.contiguous().clone() for key, value in state.average.state_dict().items()}))


def write_history(state: State, folder: Path) -> None:
    """Every scored row so far, as JSON: what a card and a curve are made of."""
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / "history.json") as temporary:
        temporary.write_text(json.dumps(state.history))


def one_style(weights: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    """Weights of a many-style model, cut down to one of its styles."""
    one = {key: value[index : index + 1].clone() if key in ("style", "mean_frames") else value for key, value in weights.items()}
    return without_style_encoder(one)


def without_style_encoder(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a network that knows its one style and needs no clip."""
    return {key: value for key, value in weights.items() if not key.startswith("clip.")}


def start_weights(weights: Mapping[str, Tensor], mean_frames: Tensor) -> dict[str, Tensor]:
    """Weights for one new style, from those of one or many: its embedding lies half way from the mean of all to the nearest.

    Parameters
    ----------
    weights : mapping
        Of a `Draw`; ``style`` (styles, S), ``mean_frames`` (styles, F).
    mean_frames : Tensor [shape=(F,)]
        Mean spectrum of the new style: near is who has a similar one.
    """
    nearest = (weights["mean_frames"] - mean_frames.cpu()).abs().mean(1).argmin()
    embedding = (weights["style"][nearest] + weights["style"].mean(0)) / 2
    return {**without_style_encoder(weights), "style": embedding[None], "mean_frames": mean_frames.cpu()[None]}


# --- the post-net ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PostNetConfig:
    """How to train a post-net, when everything before it is trained."""

    crops: int = 1200  # painted once, and then gone over again and again: painting costs five times as much as a step
    crop_frames: int = 144
    steps: int = 800
    batch: int = 8
    learning_rate: float = 3e-3
    envelope: float = 0.5  # weight of the coarse errors, against the fine one: sharp partials, but at the right level
    other: float = 0.85  # share of crops whose song is another orchestration: at transfer it always is
    seed: int = 0


def paint_crops(model: Draw, store: FrameStore, config: PostNetConfig, view_config: views.ViewConfig) -> tuple[Tensor, Tensor]:
    """Canvases as a transfer paints them, without a post-net, and their targets: (crops, F, crop_frames) float16 each."""
    generator = torch.Generator().manual_seed(config.seed)
    margin, postnet = 6 * model.config.grid_frames, model.postnet  # what lies outside a crop is missed by its edges most
    together = 16 if store.device == "cpu" else 128
    model.postnet, painted = None, []
    try:
        for first in range(0, config.crops, together):
            count = min(together, config.crops - first)
            batch = store.batch(count, config.crop_frames + 2 * margin, other=config.other, generator=generator)
            drawing = torch.Generator(store.device).manual_seed(seed_of(config.seed, first))
            view = views.drawn(batch["view"], batch["target"], view_config, drawing)
            with autocast(store.device):
                canvas = model.transfer(view, style=batch["style"], phase=batch["phase"], grain=0.0)
            inner = slice(margin, margin + config.crop_frames)
            painted.append((canvas[..., inner].half(), batch["target"][..., inner].half()))
    finally:
        model.postnet = postnet
    canvases, targets = (torch.cat(part) for part in zip(*painted, strict=True))
    return canvases, targets


def postnet_loss(error: Tensor, envelope: float) -> Tensor:
    """L1 of an error (B, F, T) in dB, at the resolution of pixels and, ``envelope`` times, of half octaves by 50 and by 400 ms."""
    coarse = (F.avg_pool2d(error[:, None], (18, min(width, error.shape[-1]))).abs().mean() for width in (4, 36))
    return views.RANGE_DB * (error.abs().mean() + envelope * sum(coarse))


def fit_postnet(
    model: Draw,
    canvases: Tensor,
    targets: Tensor,
    config: PostNetConfig,
    *,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train a network's post-net on painted canvases, in place; nothing else changes.

    Parameters
    ----------
    canvases, targets : Tensor [shape=(crops, F, T)]
        As of `paint_crops`.
    report : function of (step, mean loss in dB of the last hundred steps)
    """
    assert model.postnet is not None
    schedule = TrainConfig(learning_rate=config.learning_rate, warmup=0.05, final_rate=0.02)
    optimizer = torch.optim.AdamW(model.postnet.parameters(), lr=config.learning_rate, weight_decay=1e-3)
    generator, lately = torch.Generator().manual_seed(config.seed), 0.0
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step / config.steps, schedule)
        rows = torch.randint(len(canvases), (config.batch,), generator=generator)
        canvas, target = (part[rows].float() for part in (canvases, targets))
        with autocast(canvas.device.type):
            added = model.postnet(canvas)
        loss = postnet_loss(canvas + added - target, config.envelope)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        lately += float(loss.detach()) / 100
        if (step + 1) % 100 == 0:
            report(step + 1, lately)
            lately = 0.0


# --- configs ---------------------------------------------------------------------------------------------------------------------


def construct(kind: type[Config], table: Mapping[str, Any], where: str) -> Config:
    """Call a config's constructor with a table.

    Raises
    ------
    ValueError
        If a key is unknown (names the nearest), or a value is of the wrong type or out of its range.
    """
    known = {f.name: f.default for f in fields(kind)}  # type: ignore[arg-type]
    for key, value in table.items():
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}; {nearest(key, list(known))}")
        if type(value) is not type(known[key]) and not (isinstance(known[key], float) and type(value) is int):
            raise ValueError(f"{where}: {key} is {value!r}, not a {type(known[key]).__name__} such as {known[key]!r}")
    try:
        return kind(**table)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def nearest(name: str, known: Sequence[str]) -> str:
    """What may have been meant, for an error message.

    >>> nearest("learning_rat", ["steps", "learning_rate"])
    "did you mean 'learning_rate'?"
    """
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
