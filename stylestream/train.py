"""Dataset → style file, scored as it goes.

The loop: crops of songs of one or more styles, a style-neutral view of each, one step of AdamW; late in the run a critic sharpens the
canvas and the texture stage learns what the canvas lacks. The weights kept are the running average (EMA) with the best held-out
*transfer* score: how far of the way from the song to the target the canvas gets on pieces that are not trained on, shown in another
orchestration. A low training loss says nothing: a model that copies has a very low one.

Everything random is a function of (seed, step), and a checkpoint holds all that changes, so an interrupted run, resumed, is the same
run bit for bit (on one CPU, under a budget of steps).

`train` is the whole way from folders of music to a style file; `fit` is its loop.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from stylestream import dataset, views
from stylestream.dataset import BuildConfig, FrameStore
from stylestream.draw import Draw, DrawConfig, PatchCritic
from stylestream.files import whole_file

if TYPE_CHECKING:
    from stylestream.style import Card, StyleData

CHECKPOINT_SECONDS = 25.0  # at most this much work is lost
Config = TypeVar("Config")


@dataclass(frozen=True)
class TrainConfig:
    """How to train. ``steps`` or ``minutes``: whichever is set is the budget."""

    steps: int = 0
    minutes: float = 10.0
    batch: int = 8
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
    score_seconds: float = 60.0  # between two scores; under a budget of steps, a twentieth of them lies between (at least 100)
    score_songs: int = 4  # of each style
    score_frames: int = 1024  # of each song at most: 12 s. A score costs as much as one or two steps
    threads: int = 0  # of the CPU; 0: as many as torch takes, or only one if minutes count and one is faster
    seed: int = 0


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
    history: list[dict[str, float]] = field(default_factory=list)


def new_state(
    model_config: DrawConfig,
    config: TrainConfig,
    *,
    device: str = "cpu",
    base: Mapping[str, Tensor] | None = None,
    model: Draw | None = None,
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
    return State(model, average, optimizer, critic, critic_optimizer)


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
    """One step on one batch; changes the state, returns the losses (on the device: reading them waits for it)."""
    seed = (config.seed * 1_000_003 + state.retries) * 1_000_003 + state.step
    torch.manual_seed(seed)  # the posterior's noise
    device = store.device
    batch = store.batch(config.batch, config.crop_frames, other=view_config.other, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        view = views.perturb(batch["view"], view_config, torch.Generator(device).manual_seed(seed))
        known = (torch.rand(config.batch, device=device) < 0.5)[:, None, None]  # beats are not always known
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(progress, config)
    beta = min(1.0, 0.05 + progress / max(config.kl_warmup, 1e-9))
    with autocast(device):
        out = state.model(view, batch["target"], batch["style"], batch["phase"] * known, texture=progress >= config.texture_from, beta=beta)
    loss = out["loss/total"]
    if progress >= config.critic_from:
        ramp = min(1.0, (progress - config.critic_from) / 0.05)
        few = slice(config.critic_batch)
        canvas = out["canvas"][few]
        share = config.critic_share * ramp * (canvas.shape[0] / config.batch) ** 0.5
        pull, critic_loss = critic_gradient(state, canvas, batch["target"][few], batch["style"][few], share / out["canvas"].numel() ** 0.5)
        loss = loss + (canvas * pull).sum()
        out["loss/critic"] = critic_loss
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_((p for p in state.model.parameters() if p.grad is not None), 1.0)
    state.optimizer.step()
    update_average(state, min(config.ema, (1 + state.step) / (10 + state.step)))
    state.step += 1
    return {key: value.detach() for key, value in out.items() if key.startswith("loss/")}


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
    state.critic_optimizer.step()
    with autocast(canvas.device.type):
        scores, features = critic(fake, style)
        real_features = [f.detach() for f in real_features]
        adversarial = -sum(s.float().mean() for s in scores)
        matching = sum((f - r).float().abs().mean() / r.float().abs().mean() for f, r in zip(features, real_features, strict=True))
        wanted = adversarial + 2 * matching / len(features)
    assert isinstance(wanted, Tensor)
    (pull,) = torch.autograd.grad(wanted, fake)
    model = state.model.config
    return pull * (norm * model.range_db / model.scale_db / pull.norm().clamp(min=1e-12)), hinge.detach()


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
        target = store.frames[0, window].T.float()[None] / dataset.LEVELS
        song = _stand_in(store, window, target, role)
        phase = store.phase[window].T.float()[None] / 127
        with autocast(store.device):
            out = model.transfer(song, style=style_id if model.config.styles > 1 else 0, phase=phase, grain=0.0)
        ways.setdefault(style_id, []).append((_distance(out, target), _distance(song, target)))
    result = {f"score/way/{store.styles[s]}": 1 - sum(o for o, _ in pairs) / sum(c for _, c in pairs) for s, pairs in ways.items()}
    both = [pair for pairs in ways.values() for pair in pairs]
    result["score/l1_db"], result["score/copy_db"] = (sum(column) / len(both) for column in zip(*both, strict=True))
    return result | {"score/way": sum(value for key, value in result.items() if key.startswith("score/way/")) / len(ways)}


def _stand_in(store: FrameStore, window: slice, target: Tensor, role: int) -> Tensor:
    songs = [frames[window].T.float()[None] / dataset.LEVELS for frames in store.frames[1:]]
    far = [_distance(song, target) for song in songs]
    if len(far) >= role and far[role - 1] > 2.0:
        return songs[role - 1]
    if max(far, default=0.0) > 2.0:
        return songs[far.index(max(far))]
    return views.perturb(target, views.STAND_IN, torch.Generator(target.device).manual_seed(window.start))


def _distance(a: Tensor, b: Tensor) -> float:
    difference = (a.float() - b) * views.RANGE_DB
    return float((difference - difference.median()).abs().mean())


# --- checkpoints -------------------------------------------------------------------------------------------------------------------


_PLAIN = ("step", "seconds", "best_score", "retries", "history")  # of a State, what JSON holds


def save_checkpoint(state: State, folder: Path) -> None:
    """The whole state, as safetensors and JSON in one file, whole or not at all."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name in ("model", "average", "critic"):
        tensors |= {f"{name}/{key}": value.contiguous() for key, value in getattr(state, name).state_dict().items()}
    for name in ("optimizer", "critic_optimizer"):
        for index, slots in getattr(state, name).state_dict()["state"].items():
            tensors |= {f"{name}/{index}/{slot}": torch.as_tensor(value).contiguous() for slot, value in slots.items()}
    plain = {name: getattr(state, name) for name in _PLAIN}
    with whole_file(folder / "last.safetensors") as temporary:
        save_file({key: value.clone() for key, value in tensors.items()}, temporary, metadata={"state": json.dumps(plain)})


def load_checkpoint(state: State, folder: Path) -> bool:
    """Fill a fresh state from a folder; False if there is no checkpoint."""
    from safetensors import safe_open

    path = folder / "last.safetensors"
    if not path.exists():
        return False
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
        setattr(state, name, plain[name])
    return True


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
    grow: bool = False,
) -> State:
    """Train until the budget is spent; checkpoints and the best weights (``best.safetensors``) lie in ``folder``.

    Ctrl-C, and being told to end, are obeyed between two steps, when a checkpoint has been written.

    Parameters
    ----------
    report : function of a row of scores
    tick : function of (state, share of the budget that is spent, losses), after every step
    grow : bool
        Take in songs that were written since, at every score (rendering may go on beside the training).

    Raises
    ------
    FloatingPointError
        If the loss is not finite time and again.
    """
    began, last_saved, last_scored = time.monotonic() - state.seconds, time.monotonic(), time.monotonic()
    if state.step == 0:
        set_mean_frames(state, store)
        save_checkpoint(state, folder)
    with _ending_between_steps() as asked:
        while (progress := _progress(state, config, time.monotonic() - began)) < 1 and not asked:
            losses = train_step(state, store, config, view_config, progress)
            now = time.monotonic()
            state.seconds = now - began
            spent = _progress(state, config, state.seconds)
            to_score = spent >= 1 or _score_is_due(state, config, now - last_scored)
            to_save = spent >= 1 or now - last_saved > CHECKPOINT_SECONDS or asked
            if (to_score or to_save) and not torch.isfinite(losses["loss/total"]):
                go_back(state, folder)
                continue
            if to_score:
                if grow:
                    store.refresh()
                report(score(state, held_out, config, losses, spent, folder))
                last_scored = time.monotonic()
            if to_save:
                save_checkpoint(state, folder)
                last_saved = now
            tick(state, spent, losses)
    if asked:
        signal.raise_signal(asked[0])
        raise KeyboardInterrupt
    if not (folder / "best.safetensors").exists():  # the budget was spent on a loss that was not finite
        save_best(state, folder)
    return state


@contextlib.contextmanager
def _ending_between_steps() -> Iterator[list[int]]:
    """Collect the signals that ask to end, for the loop to obey. A second one is obeyed at once."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # signals go to the main thread only
        yield asked
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

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


def _score_is_due(state: State, config: TrainConfig, seconds_since: float) -> bool:
    if config.steps:  # by steps alone: which weights are kept must not depend on how fast they were trained
        return state.step % max(config.steps // 20, 100) == 0
    return seconds_since > config.score_seconds


def score(
    state: State, held_out: FrameStore, config: TrainConfig, losses: Mapping[str, Tensor], progress: float, folder: Path
) -> dict[str, float]:
    """Score the averaged weights, keep them if they are the best, and write the row to the history."""
    scored_progress = state.history[-1].get("progress", 0.0) if state.history else 0.0
    row = {"step": state.step, "seconds": state.seconds, "progress": progress}
    row |= {key: float(value) for key, value in losses.items() if value.numel() == 1}
    row |= transfer_score(state.average, held_out, max_frames=config.score_frames, songs_per_style=config.score_songs)
    state.history.append(row)
    write_history(state, folder)
    if progress > config.critic_from > scored_progress:
        state.best_score = -1e9  # sharpened canvases are a little further off and better: they start their own contest
    if row["score/way"] > state.best_score:
        state.best_score = row["score/way"]
        save_best(state, folder)
    return row


def go_back(state: State, folder: Path) -> None:
    """Take up the last good state, with other random numbers from here on.

    Raises
    ------
    FloatingPointError
        If there is none, or it has been tried three times.
    """
    step, retries = state.step, state.retries + 1
    if retries > 3 or not load_checkpoint(state, folder):
        raise FloatingPointError(f"the loss is not finite at step {step}; lower the learning rate (learning_rate in [train])")
    state.retries = retries


def _progress(state: State, config: TrainConfig, seconds: float) -> float:
    return state.step / config.steps if config.steps else seconds / (60 * config.minutes)


def set_mean_frames(state: State, store: FrameStore) -> None:
    """Give both models the styles' mean spectra as first canvas."""
    for model in (state.model, state.average):
        model.mean_frames.copy_(store.mean_frames())


def save_best(state: State, folder: Path) -> None:
    """The averaged weights, float32."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / "best.safetensors") as temporary:
        save_file({key: value.contiguous().clone() for key, value in state.average.state_dict().items()}, temporary)


def write_history(state: State, folder: Path) -> None:
    """Every scored row so far, as JSON: what a card and a curve are made of."""
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / "history.json") as temporary:
        temporary.write_text(json.dumps(state.history))


def one_style(weights: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    """Weights of a many-style model, cut down to one of its styles."""
    return {key: value[index : index + 1].clone() if key in ("style", "mean_frames") else value for key, value in weights.items()}


# --- folders of music → a style file -----------------------------------------------------------------------------------------------

MODELS = ("draw", "plain", "lstm2017")
TABLES = {"model": DrawConfig, "train": TrainConfig, "tune": TrainConfig, "views": views.ViewConfig, "data": BuildConfig}
# What [tune] starts from: training that starts from a style's weights. The encoder hears music already.
TUNE = TrainConfig(
    learning_rate=1e-3, final_rate=0.01, kl_warmup=0.0, critic_from=0.35, texture_from=0.0, ema=0.995, freeze_encoder=True
)  # fmt: skip
RENDER_SHARE = 0.25  # of the minutes given, at most, goes into rendering
LEAST_SECONDS = 180.0  # of music: with less, a style knows its songs and not their sound
# of a network: others than those of the weights are no harm
_FREE_SETTINGS = ("beta", "scale_db", "texture_scale_db", "phase_iterations", "grain_power")


@dataclass(frozen=True)
class Plan:
    """All that a training is. The same plan goes on where it was interrupted."""

    kind: str  # of MODELS
    start: str  # "none", "base", or a style
    model: DrawConfig
    config: TrainConfig
    views: Mapping[str, Any]  # as given; the rest depends on what the sources are
    data: BuildConfig
    sources: tuple[str, ...]

    def tables(self) -> dict[str, dict[str, Any]]:
        """As JSON, under the names that the user knows."""
        call = {"--model": self.kind, "--from": self.start, "sources": list(self.sources)}
        return {
            "": call,
            "[model] ": asdict(self.model),
            "[train] ": asdict(self.config),
            "[views] ": dict(self.views),
            "[data] ": asdict(self.data),
        }


@dataclass(frozen=True)
class Trained:
    """What came of a training."""

    path: Path
    songs: int  # found
    failures: dict[str, str]  # songs that could not be used, and why
    score: dict[str, float]  # the best row of held-out scores


def train(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    config: Mapping[str, Mapping[str, Any]] | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    base: str | Path | None = None,
    model: str = "draw",
    jobs: int | None = None,
    report: Callable[[dict[str, float]], None] = lambda row: None,
    progress: Callable[[str, float, str], None] = lambda phase, done, text: None,
    say: Callable[[str], None] = lambda line: None,
) -> Trained:
    """Make a style file of music. The same call goes on where it was interrupted.

    Parameters
    ----------
    sources : sequence of paths
        Folders of MIDI or audio, single files, or a collection with ``midi.csv``: of this one the pieces of ``recipe`` in
        ``config["data"]``, or of the recipe that has the name of ``out``.
    out : path of a ``.safetensors``
        Checkpoints, frames and logs lie in ``OUT.ckpt/`` until it is done; then only the logs do.
    config : mapping of table to mapping of key to value
        ``model`` (`DrawConfig`), ``train`` and ``tune`` (`TrainConfig`; ``tune`` is taken for a start from weights), ``views``
        (`ViewConfig`), ``data`` (`BuildConfig`).
    minutes, steps : one of them, or neither: as the config says
        Minutes count rendering. Steps are the same on every run.
    base : "base", "none", or a style's name or file, optional
        What to start from; the bundled base when not given, unless ``config["model"]`` is a network of another size.
    model : "draw", "plain", "lstm2017"
        The latter two are what a style has to beat (`baselines`).
    jobs : int, optional
        Processes that render; one a core when not given.
    report, progress, say : functions
        Of a row of scores; of (what is done, share of it, text); of a line that the user should read.

    Raises
    ------
    ValueError, OSError
        If there is no music, the config is wrong, ``OUT.ckpt`` holds another training, or a file cannot be written.
    FloatingPointError
        If the loss is not finite time and again.
    """
    plan, start = make_plan(sources, config or {}, minutes=minutes, steps=steps, seed=seed, base=base, model=model)
    out = Path(out)
    if not plan.data.recipe and out.stem in dataset.STYLE_RECIPES and any((Path(source) / "midi.csv").is_file() for source in sources):
        plan = replace(plan, data=replace(plan.data, recipe=out.stem))  # a collection has many styles: the output says which
    folder = out.with_name(out.name + ".ckpt")
    _open_folder(folder, plan)
    limit = None if plan.config.steps else RENDER_SHARE * 60 * plan.config.minutes
    prepared = _prepare(plan, folder, limit, jobs, progress, say)
    if limit is not None:
        left = max(60 * plan.config.minutes - prepared.seconds, 60 * plan.config.minutes * (1 - 2 * RENDER_SHARE))
        plan = replace(plan, config=replace(plan.config, minutes=left / 60, score_seconds=min(plan.config.score_seconds, left / 8)))
    if plan.kind == "lstm2017":
        return _train_lstm2017(plan, prepared, out, folder, device, progress)
    state = _fit_folder(plan, start, folder, device, report, progress, say)
    best = next((row for row in state.history if row["score/way"] == state.best_score), {})
    about = _card(plan, start, state, prepared, out, device, best)
    _write_style(plan, start, prepared, out, folder, about)
    _tidy(folder)
    return Trained(out, prepared.found, prepared.failures, best)


def make_plan(
    sources: Sequence[str | Path],
    config: Mapping[str, Mapping[str, Any]],
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    base: str | Path | None = None,
    model: str = "draw",
) -> tuple[Plan, StyleData | None]:
    """Check what was asked for before anything is done; the plan, and the style to start from.

    Raises
    ------
    ValueError
        If it cannot be.
    """
    for name in config:
        if name not in TABLES:
            raise ValueError(f"unknown table [{name}]; {_nearest(name, list(TABLES))}")
    if model not in MODELS:
        raise ValueError(f"unknown model {model!r}; {_nearest(model, MODELS)}")
    if model != "draw" and base not in (None, "none"):
        raise ValueError(f"--model {model} is trained from nothing; leave --from out")
    made: dict[str, Any] = {name: construct(kind, config.get(name, {}), f"[{name}]") for name, kind in TABLES.items()}
    start = _start(base, config.get("model", {})) if model == "draw" else None
    network = made["model"] if start is None else _adopted(start, config.get("model", {}), str(base or "base"))
    settings = made["train"] if start is None else replace(TUNE, **config.get("tune", config.get("train", {})))
    if model == "plain":  # as a style is trained, but shown the target itself, and nothing that is not in the 2017 way
        settings = replace(settings, critic_from=1.0, texture_from=1.0)
    if steps is not None or minutes is not None:
        settings = replace(settings, steps=steps or 0, minutes=settings.minutes if minutes is None else minutes)
    settings = replace(settings, seed=seed)
    if settings.crop_frames % network.grid_frames or settings.crop_frames % 4:
        raise ValueError(f"[train] crop_frames {settings.crop_frames} is not a multiple of {max(network.grid_frames, 4)}")
    name = "none" if start is None else "base" if base in (None, "base") else str(base)
    where = tuple(str(Path(source).resolve()) for source in sources)
    return Plan(model, name, replace(network, styles=1), settings, dict(config.get("views", {})), made["data"], where), start


def construct(kind: type[Config], table: Mapping[str, Any], where: str) -> Config:
    """Call a config's constructor with a table.

    Raises
    ------
    ValueError
        If a key is unknown (names the nearest), or a value is of the wrong type.
    """
    known = {f.name: f.default for f in fields(kind)}  # type: ignore[arg-type]
    for key, value in table.items():
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}; {_nearest(key, list(known))}")
        if type(value) is not type(known[key]) and not (isinstance(known[key], float) and type(value) is int):
            raise ValueError(f"{where}: {key} is {value!r}, not a {type(known[key]).__name__} such as {known[key]!r}")
    return kind(**table)


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


# -- what to start from ----------------------------------------------------------------------------------------------------


def base_file() -> Path:
    """The bundled base: a network of many styles, to start a new one from. No style of its own."""
    from stylestream.style import bundled_folder

    return bundled_folder() / "base" / "base.safetensors"


def _start(base: str | Path | None, wanted: Mapping[str, Any]) -> StyleData | None:
    """The style to start from; None: from nothing."""
    from stylestream.features import FeatureConfig
    from stylestream.style import find_style, load_style_file

    if base == "none":
        return None
    path = base_file() if base in (None, "base") else find_style(base or "")
    data = load_style_file(path)
    if "model" in data.model_config or data.feature_config != asdict(FeatureConfig()):
        raise ValueError(f"--from {base}: not a network that can be trained on; choose another style, or --from none")
    return None if base is None and _different(data, wanted) else data


def _different(data: StyleData, wanted: Mapping[str, Any]) -> list[str]:
    own = {**asdict(DrawConfig()), **data.model_config}
    return [key for key, value in wanted.items() if key not in (*_FREE_SETTINGS, "styles") and value != own.get(key)]


def _adopted(data: StyleData, wanted: Mapping[str, Any], name: str) -> DrawConfig:
    """The network of a style's weights, with the settings that are asked for and free."""
    for key in _different(data, wanted):
        raise ValueError(f"[model] {key} is {wanted[key]!r}, in {name} it is another; leave it out, or start from nothing with --from none")
    own = construct(DrawConfig, data.model_config, f"--from {name}")
    return replace(own, **{key: wanted[key] for key in _FREE_SETTINGS if key in wanted})


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
    return {**weights, "style": embedding[None], "mean_frames": mean_frames.cpu()[None]}


# -- OUT.ckpt/ -------------------------------------------------------------------------------------------------------------


def _open_folder(folder: Path, plan: Plan) -> None:
    """Make the folder, or see that it holds the same training."""
    path = folder / "plan.json"
    tables = json.loads(json.dumps(plan.tables()))
    if not path.exists() or not _begun(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(tables, indent=1))
        return
    before = json.loads(path.read_text())
    for table, values in tables.items():
        for key, value in values.items():
            was = before.get(table, {}).get(key)
            if was != value:
                remedy = f"give the same command to go on with it, or remove {folder} to begin anew"
                raise ValueError(f"{folder} holds another training ({table}{key} was {was!r}, now {value!r}); {remedy}")


def _begun(folder: Path) -> bool:
    """Whether anything would be lost."""
    return any((folder / "frames").glob("*.npz")) or (folder / "last.safetensors").exists()


def _prepare(
    plan: Plan,
    folder: Path,
    seconds: float | None,
    jobs: int | None,
    progress: Callable[[str, float, str], None],
    say: Callable[[str], None],
) -> dataset.Prepared:
    """The frames of the sources; remembered in ``songs.json``, so that a song that is added meanwhile does not change the training."""
    path = folder / "songs.json"
    if path.exists():
        return dataset.Prepared(**json.loads(path.read_text()))

    def done(count: int, total: int, failure: str) -> None:
        progress("rendering", count / total, f"rendering {count}/{total}")
        if failure:
            say(failure)

    make = _spectrum if plan.kind == "lstm2017" else dataset.frames_of
    try:
        prepared = dataset.prepare(plan.sources, folder / "frames", plan.data, make=make, seconds=seconds, jobs=jobs, progress=done)
    except (ValueError, OSError):
        if not _begun(folder):  # there was no music
            _tidy(folder)
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    if prepared.music_seconds < LEAST_SECONDS:
        heard, least = prepared.music_seconds, LEAST_SECONDS / 60
        say(f"warning: only {heard:.0f} s of music to train on; with less than {least:.0f} minutes a style learns songs, not a sound")
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(asdict(prepared)))
    return prepared


def _tidy(folder: Path) -> None:
    """Leave only the logs: what is done needs no resuming, and another training may have the name."""
    shutil.rmtree(folder / "frames", ignore_errors=True)
    for name in ("plan.json", "songs.json", "last.safetensors", "best.safetensors"):
        (folder / name).unlink(missing_ok=True)


# -- the training itself ---------------------------------------------------------------------------------------------------


def _fit_folder(
    plan: Plan,
    start: StyleData | None,
    folder: Path,
    device: str,
    report: Callable[[dict[str, float]], None],
    progress: Callable[[str, float, str], None],
    say: Callable[[str], None],
) -> State:
    store, held_out = (FrameStore(folder / "frames", [dataset.OWN_STYLE], split=split, device=device) for split in ("train", "valid"))
    if not store.starts(plan.config.crop_frames):
        raise ValueError(f"no song is as long as a crop of {plan.config.crop_frames} frames; lower crop_frames in [train], or add songs")
    base = None if start is None else start_weights(start.weights, store.mean_frames()[0])
    state = new_state(plan.model, plan.config, device=device, base=base)
    if load_checkpoint(state, folder) and state.step:
        say(f"resuming from step {state.step}")
    how = view_config(plan, store)
    began = time.monotonic()
    with _threads(plan, store, how, device), _logged(folder, state.step, report) as log:
        left = max(plan.config.minutes - (time.monotonic() - began) / 60, plan.config.minutes / 2)
        config = replace(plan.config, minutes=left)
        return fit(state, store, held_out, config, how, folder, report=log, tick=_Ticker(progress))


@contextlib.contextmanager
def _threads(plan: Plan, store: FrameStore, how: views.ViewConfig, device: str) -> Iterator[None]:
    """As many threads as asked for; where minutes count, one if that is faster: beside other programs two can be slower than one."""
    before = torch.get_num_threads()
    wanted = plan.config.threads or before
    if not plan.config.threads and not plan.config.steps and device == "cpu" and before > 1:
        trial = new_state(plan.model, plan.config)
        seconds = {threads: _seconds_per_step(trial, store, plan.config, how, threads) for threads in (1, before)}
        wanted = min(seconds, key=lambda threads: seconds[threads])
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _seconds_per_step(state: State, store: FrameStore, config: TrainConfig, how: views.ViewConfig, threads: int) -> float:
    torch.set_num_threads(threads)
    train_step(state, store, config, how, 0.0)  # the first one is slower
    began = time.monotonic()
    train_step(state, store, config, how, 0.0)
    return time.monotonic() - began


def view_config(plan: Plan, store: FrameStore) -> views.ViewConfig:
    """How this training draws its views: as asked, and the rest by how much of the music is recordings."""
    if plan.kind == "plain":
        return views.NEUTRAL
    windows = [slice(first, first + count) for _, _, first, count in store.songs]
    recorded = sum(torch.equal(store.frames[-1, window], store.frames[0, window]) for window in windows) / len(windows)
    usual = replace(views.ViewConfig(), whiten_share=views.RECORDINGS.whiten_share * recorded) if recorded < 1 else views.RECORDINGS
    return replace(usual, **plan.views)


class _Ticker:
    """Tells how far a training is, a few times a second: reading a loss waits for the device."""

    def __init__(self, progress: Callable[[str, float, str], None]) -> None:
        self.progress, self.last = progress, 0.0

    def __call__(self, state: State, spent: float, losses: dict[str, Tensor]) -> None:
        if time.monotonic() - self.last < 0.5:
            return
        self.last = time.monotonic()
        way = f" · way {100 * state.history[-1]['score/way']:.0f} %" if state.history else ""
        shown = f"L1 {float(losses['loss/l1_db']):.2f} dB · KL {float(losses['loss/kl']):.2f}"
        self.progress("training", min(spent, 1.0), f"step {state.step} · {shown}{way}")


@contextlib.contextmanager
def _logged(folder: Path, step: int, report: Callable[[dict[str, float]], None]) -> Iterator[Callable[[dict[str, float]], None]]:
    """Rows go to TensorBoard too, where it is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        yield report
        return
    with SummaryWriter(str(folder / "tensorboard"), purge_step=step) as writer:

        def log(row: dict[str, float]) -> None:
            for key, value in row.items():
                writer.add_scalar(key, value, int(row["step"]))
            report(row)

        yield log


def _card(
    plan: Plan, start: StyleData | None, state: State, prepared: dataset.Prepared, out: Path, device: str, best: Mapping[str, float]
) -> Card:
    about = replace(card(out.stem, prepared, device), training_minutes=round(state.seconds / 60, 1), training_steps=state.step)
    if best:
        scores = {key: round(best[f"score/{key}"], 3) for key in ("way", "l1_db", "copy_db")}
        about = replace(about, metrics={"held-out frames": scores})
    if start is not None:
        about = replace(about, notes=f"Trained on from {start.card.title} ({start.card.licence}).")
    if plan.kind == "plain":
        about = replace(about, title=f"{about.title} (plain autoencoder)", description="A baseline: the same network shown its target.")
    return about


def _write_style(plan: Plan, start: StyleData | None, prepared: dataset.Prepared, out: Path, folder: Path, about: Card) -> None:
    from safetensors.torch import load_file

    from stylestream.features import FeatureConfig
    from stylestream.style import save_style

    heard = {**(start.fingerprints if start is not None else {}), **fingerprints(prepared)}
    weights, features = load_file(folder / "best.safetensors"), asdict(FeatureConfig())
    save_style(out, weights, model_config=asdict(plan.model), feature_config=features, card=about, fingerprints=heard)


def card(name: str, prepared: dataset.Prepared, device: str) -> Card:
    """What a style was made of."""
    from stylestream.style import Card, Source

    whence = {song["id"]: (song["source"], song["licence"]) for song in prepared.songs}
    seconds: dict[tuple[str, str], list[float]] = {}
    for song_id, heard in prepared.heard().items():
        seconds.setdefault(whence[song_id], []).append(heard)
    sources = tuple(Source(source, licence, len(s), round(sum(s) / 3600, 3)) for (source, licence), s in sorted(seconds.items()))
    hardware = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{device}, {torch.get_num_threads()} threads"
    return Card(name.replace("-", " ").replace("_", " ").capitalize(), sources=sources, training_device=hardware)


def fingerprints(prepared: dataset.Prepared) -> dict[str, list[int]]:
    """Training songs by id, with the hashes of their melodies."""
    return {song["id"]: song["fingerprint"] for song in prepared.songs if song["split"] == "train"}


# -- the baseline of 2017 --------------------------------------------------------------------------------------------------


def _spectrum(renderer: dataset.PieceRenderer, part: dataset.Part) -> dict[str, Any]:
    """A part as the system of 2017 sees it."""
    from stylestream import baselines

    content = part.song.content
    if isinstance(content, Path):
        y = renderer.recording(content, window=part.window)[None]
    else:
        y = renderer.sound(content, dataset.own_recipe(renderer.config), seed=part.seed, window=part.window)
    return {"spectrum": baselines.spectrum_2017(y).half().numpy(), "seconds": y.shape[1] / baselines.FEATURES.sample_rate}


def _train_lstm2017(
    plan: Plan, prepared: dataset.Prepared, out: Path, folder: Path, device: str, progress: Callable[[str, float, str], None]
) -> Trained:
    """Train it; from the beginning, if it was interrupted: it is small."""
    import numpy as np

    from stylestream import baselines
    from stylestream.style import save_style

    songs = []
    for song in prepared.songs:
        if song["split"] == "train":
            with np.load(folder / "frames" / song["name"], allow_pickle=False) as arrays:
                songs.append(torch.from_numpy(arrays["spectrum"]))
    began, training = time.monotonic(), baselines.Lstm2017Training(seed=plan.config.seed, steps=plan.config.steps or 20)
    if not plan.config.steps:  # how many steps the minutes are worth
        baselines.fit_lstm2017(songs, training, device=device)
        training = replace(training, steps=max(int(20 * 60 * plan.config.minutes / (time.monotonic() - began)), 20))

    def tell(step: int, losses: dict[str, float]) -> None:
        if losses:
            progress("training", step / training.steps, f"step {step} · loss {losses['loss/total']:.3f}")

    network = baselines.fit_lstm2017(songs, training, device=device, progress=tell)
    about = replace(
        card(out.stem, prepared, device),
        description="A baseline: the system of 2017, a frame-wise VAE with LSTMs at 4.41 kHz.",
        training_minutes=round((time.monotonic() - began) / 60, 1),
        training_steps=training.steps,
    )
    settings = {"model": "lstm2017", **asdict(network.config)}
    save_style(out, network.state_dict(), model_config=settings, feature_config={}, card=about, fingerprints=fingerprints(prepared))
    _tidy(folder)
    return Trained(out, prepared.found, prepared.failures, {})
