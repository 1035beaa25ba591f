"""Two trained rivals beside a style: RAVE and ss-vq-vae, of the same songs, for the same minutes, scored alike.

    python benchmarks/rivals_trained.py DATA --work build/rivals --rave RAVE --ssvqvae SS-VQ-VAE prepare
    python benchmarks/rivals_trained.py DATA --work build/rivals --rave RAVE --ssvqvae SS-VQ-VAE --site SITE rave ssvqvae scratch tune
    python benchmarks/rivals_trained.py DATA --work build/rivals --rave RAVE --ssvqvae SS-VQ-VAE --site SITE score page --out docs/rivals.md

RAVE and SS-VQ-VAE are checkouts of github.com/acids-ircam/RAVE and github.com/cifkao/ss-vq-vae; what is imported here is theirs: networks,
losses, hyper-parameters, and the way from sound to input and back. SITE is a folder with what they need and this environment lacks
(`pip install --no-deps --target SITE gin-config cached-conv einops GPUtil lmdb confugue bidict wrapt`). RAVE's trainer and reader, for
which Lightning and torchaudio would be needed, stay unused: what it imports of them gets a stand-in where they are missing.

The songs are the ten minutes of `own_style.py`. `scratch` and `tune` are `stylestream train` from nothing and from the base. Each run's
clock counts processor seconds of its one thread (on another device than the CPU: seconds), so that a busy machine takes nothing from
any of them; each keeps its weights at some minutes. `score` makes every keepsake play the same held-out pieces and is picked up where it
was interrupted; `page` writes what was found.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import shutil
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import own_style
import torch
from numpy.typing import NDArray

from stylestream import audio, baselines, bootstrap, evaluate, metrics, recipes, train, workshop
from stylestream.baselines import levelled
from stylestream.cli import read_config
from stylestream.features import FeatureConfig
from stylestream.files import whole_file
from stylestream.sound import read_sound, write_sound
from stylestream.style import Card, find_style, save_style

Array = NDArray[np.floating]
Make = Callable[[Array, str], Array]  # the song (C, N) at 44.1 kHz and its id → the result

RATE = metrics.SAMPLE_RATE
OURS = ("scratch", "tune")
THEIRS = ("rave", "ssvqvae")
TITLES = {
    "copy": "copy",
    "equalise": "equalise",
    "rave": "RAVE",
    "ssvqvae": "ss-vq-vae",
    "scratch": "StyleStream, from nothing",
    "tune": "StyleStream, from the base",
    "shipped": "StyleStream, the style that ships",
    "ceiling": "ceiling",
}
COLUMNS = ("log_mel_l1", "mfcc", "mfcc_16k", "lsd", "lsd_16k", "chroma", "note_auc", "flux")
MARKS_MINUTES = (1, 2, 3, 5, 8, 12, 16, 20, 25, 30, 40, 50, 60)

RAVE_CONFIG = "v2_small.gin"
PHASE_1_SHARE = 0.65  # of RAVE's minutes; then its encoder rests and its discriminators begin


@dataclass(frozen=True)
class Sizes:
    """Of a rival's training step."""

    rave_batch: int = 8
    rave_samples: int = 131072
    clip_batch: int = 256
    clip_seconds: float = 8.0


THEIR_SIZES = Sizes()
CORE_SIZES = Sizes(rave_batch=4, rave_samples=65536, clip_batch=4, clip_seconds=4.0)  # many small steps, where minutes are few


def sizes_of(options: argparse.Namespace) -> Sizes:
    return CORE_SIZES if options.device == "cpu" else THEIR_SIZES


def frames_in(seconds: float, experiment: Any) -> int:
    """Frames of a clip in ss-vq-vae."""
    return round(seconds * experiment.sr / 500) + 1


# -- their code ------------------------------------------------------------------------------------------------------------


class Nothing(types.ModuleType):
    """A module that is imported and not used: any name is an empty class."""

    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *args, **settings: None})


class Module(torch.nn.Module):
    """What RAVE's `training_step` asks of a LightningModule: its two optimisers. What it logs is kept."""

    def optimizers(self) -> Any:
        return self.both

    def log(self, name: str, value: Any) -> None:
        self.__dict__.setdefault("logged", {})[name] = float(torch.as_tensor(value).detach())

    def log_dict(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            self.log(name, value)


class Spectrogram(torch.nn.Module):
    """torchaudio's of that name, as far as RAVE uses it: complex, centred."""

    def __init__(self, n_fft: int, win_length: int | None = None, hop_length: int | None = None, **settings: Any) -> None:
        super().__init__()
        self.sizes = {"n_fft": n_fft, "win_length": win_length or n_fft, "hop_length": hop_length or n_fft // 2}
        self.normalized, self.center, self.power = settings["normalized"], settings.get("center", True), settings["power"]
        self.register_buffer("window", torch.hann_window(self.sizes["win_length"]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        S = torch.stft(x.flatten(0, -2), window=self.window, center=self.center, return_complex=True, **self.sizes)
        S = S / self.window.square().sum().sqrt() if self.normalized else S
        S = S.unflatten(0, x.shape[:-1])
        return S if self.power is None else S.abs() ** self.power


def stand_in(names: Sequence[str], **given: Any) -> None:
    """Modules that cannot be imported here become `Nothing`, with what is given."""
    for name in names:
        try:
            __import__(name)
        except (ImportError, OSError):
            sys.modules[name] = Nothing(name)
            for key, value in given.items():
                setattr(sys.modules[name], key, value)


def find_theirs(options: argparse.Namespace) -> None:
    """Their checkouts, and what they need, can be imported."""
    for path in (options.site, options.rave, options.ssvqvae and options.ssvqvae / "src"):
        if path is not None and str(path) not in sys.path:
            sys.path.append(str(path))


def rave_module(options: argparse.Namespace) -> Any:
    import scipy.signal

    find_theirs(options)
    if not hasattr(scipy.signal, "kaiser"):  # it moved; RAVE asks for it where it was
        scipy.signal.kaiser = scipy.signal.windows.kaiser
    stand_in(["pytorch_lightning", "pytorch_lightning.callbacks", "pytorch_lightning.trainer.states"], LightningModule=Module)
    pl = sys.modules["pytorch_lightning"]
    if isinstance(pl, Nothing):
        pl.callbacks, pl.Callback = sys.modules["pytorch_lightning.callbacks"], types.SimpleNamespace  # type: ignore[attr-defined]
    stand_in(["torchaudio", "torchaudio.transforms"], Spectrogram=Spectrogram)
    if isinstance(sys.modules["torchaudio"], Nothing):
        sys.modules["torchaudio"].transforms = sys.modules["torchaudio.transforms"]  # type: ignore[attr-defined]
    stand_in(["GPUtil", "lmdb", "requests", "tqdm", "udls", "udls.generated"])
    stand_in(["udls.transforms"], __all__=[])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import rave
        import rave.core
    _with_old_filters(rave.pqmf)
    return rave


def _with_old_filters(pqmf: Any) -> None:
    """SciPy no longer takes an array for a number, nor half a sampling rate by that name."""
    from scipy.signal import firwin, kaiserord

    pqmf.kaiserord = lambda ripple, width: kaiserord(ripple, float(np.squeeze(width)))
    pqmf.firwin = lambda taps, cutoff, nyq, **settings: firwin(taps, np.squeeze(cutoff), fs=2 * nyq, **settings)


# -- the songs -------------------------------------------------------------------------------------------------------------


@cache
def songs(folder: Path) -> list[Array]:
    """The training songs, (N,) each, mono at the working loudness."""
    return [levelled(audio.load(path, sample_rate=RATE)[0]).numpy() for path in sorted(folder.glob("*.wav"))]


def fitted(y: Array, like: Array) -> Array:
    """A mono result (M,) in the song's shape (C, N): cut, or silent at the end.

    >>> fitted(np.ones(3), np.zeros((2, 5))).tolist()
    [[1.0, 1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0, 0.0]]
    """
    out = np.zeros(like.shape, dtype=np.float32)
    size = min(y.shape[-1], like.shape[-1])
    out[:, :size] = y[:size]
    return out


# -- what a run keeps ------------------------------------------------------------------------------------------------------


class CoreClock:
    """Seconds of one thread's work, without those spent on keeping; on a GPU seconds."""

    def __init__(self, device: str) -> None:
        self.now = time.process_time if device == "cpu" else time.monotonic
        self.began = self.now()

    def minutes(self) -> float:
        return (self.now() - self.began) / 60

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        at = self.now()
        yield
        self.began += self.now() - at


class Keeper:
    """Weights at some minutes, with what they took."""

    def __init__(self, folder: Path, clock: CoreClock) -> None:
        self.folder, self.clock, self.last = folder, clock, 0.0
        folder.mkdir(parents=True, exist_ok=True)

    def is_due(self, minutes: float) -> bool:
        return any(self.last < mark <= minutes for mark in MARKS_MINUTES)

    def keep(self, model: torch.nn.Module, minutes: float, **facts: Any) -> None:
        from safetensors.torch import save_file

        self.last, name = minutes, f"{facts['step']:06d}"
        with self.clock.stopped():
            weights = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
            with whole_file(self.folder / f"{name}.safetensors") as temporary:
                save_file(weights, temporary)
            (self.folder / f"{name}.json").write_text(json.dumps({"name": name, "minutes": minutes, **facts}))
            print(json.dumps({"minutes": round(minutes, 2), **facts}), flush=True)


def spent(options: argparse.Namespace, clock: CoreClock) -> float:
    """Share of a run's minutes; all of it once the wall's clock says so."""
    ended = options.until is not None and time.strftime("%H:%M") >= options.until
    return 1.0 if ended else min(clock.minutes() / options.minutes, 1.0)


# -- RAVE ------------------------------------------------------------------------------------------------------------------


@cache
def rave_model(options: argparse.Namespace) -> Any:
    rave = rave_module(options)
    import gin

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gin.parse_config_files_and_bindings([RAVE_CONFIG], [])
        model = rave.RAVE(n_channels=1)
        model.receptive_field[:] = torch.tensor(rave.core.get_rave_receptive_field(model))
    return model.to(options.device)


def rave_batch(generator: np.random.Generator, music: Sequence[Array], options: argparse.Namespace) -> torch.Tensor:
    """Excerpts as its reader gives them: at random, four in five with another phase, with the noise of a last bit."""
    import rave.core

    excerpts, size = [], sizes_of(options).rave_samples
    for _ in range(sizes_of(options).rave_batch):
        song = music[generator.integers(len(music))]
        start = generator.integers(len(song) - size)
        y = song[start : start + size].astype(np.float64)
        y = rave.core.random_phase_mangle(y, 20, 2000, 0.99, RATE) if generator.random() < 0.8 else y
        excerpts.append(y + generator.random(y.shape) / 2**16)
    return torch.from_numpy(np.stack(excerpts)[:, None].astype(np.float32)).to(options.device)


def fit_rave(options: argparse.Namespace) -> None:
    """Its own `training_step`; its schedule, which counts to a million steps, counts shares of the minutes here."""
    torch.manual_seed(0)
    model, music = rave_model(options), songs(options.work / "music")
    clock, generator = CoreClock(options.device), np.random.default_rng(0)
    keeper, step = Keeper(options.work / "rave" / "kept", clock), 0
    (generator_optimizer, discriminator_optimizer) = (found["optimizer"] for found in model.configure_optimizers())
    model.__dict__["both"] = (generator_optimizer, discriminator_optimizer)
    beta = sys.modules["rave"].BetaWarmupCallback()
    model.train()
    while (share := spent(options, clock)) < 1:
        model.warmed_up = share >= PHASE_1_SHARE
        for group in generator_optimizer.param_groups:
            group["lr"] = 1e-3 * (1 - 0.9 * min(share / PHASE_1_SHARE, 1.0))
        beta.on_train_batch_start(None, model, None, step)
        model.training_step(rave_batch(generator, music, options), step)
        step += 1
        if keeper.is_due(clock.minutes()):
            keeper.keep(model, clock.minutes(), **facts_of_rave(model, step, sizes_of(options)))
    keeper.keep(model, clock.minutes(), **facts_of_rave(model, step, sizes_of(options)))


def facts_of_rave(model: Any, step: int, sizes: Sizes) -> dict[str, Any]:
    heard = step * sizes.rave_batch * sizes.rave_samples / RATE
    return {"step": step, "heard_seconds": heard, "phase": 1 + model.warmed_up, "loss": model.logged.get("fullband_spectral_distance")}


def load_rave(options: argparse.Namespace, weights: Path) -> Make:
    from safetensors.torch import load_file

    model = rave_model(options)
    model.load_state_dict(load_file(weights))
    model.eval()

    @torch.no_grad()
    def make(song: Array, name: str) -> Array:
        y = levelled(song)
        padded = torch.nn.functional.pad(y, (0, -len(y) % 4096))
        torch.manual_seed(0)
        return fitted(model(padded[None, None].to(options.device))[0, 0].cpu().numpy(), song)

    return make


# -- ss-vq-vae -------------------------------------------------------------------------------------------------------------


@cache
def ssvqvae_experiment(options: argparse.Namespace) -> Any:
    find_theirs(options)
    import confugue
    from ss_vq_vae.models.vqvae_oneshot import Experiment

    config = confugue.Configuration.from_yaml_file(str(options.ssvqvae / "experiments" / "model" / "config.yaml"))
    experiment = config.configure(Experiment, logdir=str(options.work / "ssvqvae"), device=options.device)
    experiment.model.decoder_modules[-1].append(Copied())
    return experiment


class Copied(torch.nn.Module):
    """Its decoder masks a ReLU's result in place, which today's autograd refuses: it masks a copy."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clone()


@cache
def ssvqvae_frames(options: argparse.Namespace) -> list[Array]:
    """The training songs as its input, (1025, T) each."""
    experiment = ssvqvae_experiment(options)
    return [experiment.preprocess(at_rate(song, experiment.sr)) for song in songs(options.work / "music")]


def at_rate(y: Array, rate: int, origin: int = RATE) -> Array:
    import soxr

    return np.asarray(soxr.resample(y, origin, rate), dtype=np.float32)


def pairs(generator: np.random.Generator, frames: Sequence[Array], width: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two excerpts of one song, (B, 1025, width) each: what is played is to be learnt of the first, how it sounds of the second."""
    content, style = [], []
    for _ in range(batch):
        song = frames[generator.integers(len(frames))]
        for clips in (content, style):
            start = generator.integers(song.shape[1] - width + 1)
            clips.append(song[:, start : start + width])
    return torch.from_numpy(np.stack(content)), torch.from_numpy(np.stack(style))


def fit_ssvqvae(options: argparse.Namespace) -> None:
    """Its own model, losses and optimiser."""
    torch.manual_seed(0)
    experiment, frames = ssvqvae_experiment(options), ssvqvae_frames(options)
    model, batch, seconds = experiment.model, sizes_of(options).clip_batch, sizes_of(options).clip_seconds
    width = frames_in(seconds, experiment)
    optimizer = torch.optim.Adam(model.parameters(), **experiment._cfg["optimizer"].get())
    clock, generator = CoreClock(options.device), np.random.default_rng(0)
    keeper, step = Keeper(options.work / "ssvqvae" / "kept", clock), 0
    lengths = torch.full((batch,), width, device=options.device)
    while spent(options, clock) < 1:
        model.train()
        content, style = (clips.to(options.device) for clips in pairs(generator, frames, width, batch))
        losses = model(content, style, lengths, lengths, return_losses=True)[1]
        experiment._add_total_loss(losses, step=step)
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        step += 1
        facts = {"step": step, "heard_seconds": step * batch * 2 * seconds, "loss": float(losses["reconstruction"].detach())}
        if keeper.is_due(clock.minutes()):
            keeper.keep(model, clock.minutes(), **facts)
    keeper.keep(model, clock.minutes(), **facts)


def load_ssvqvae(options: argparse.Namespace, weights: Path) -> Make:
    from safetensors.torch import load_file

    experiment = ssvqvae_experiment(options)
    experiment.model.load_state_dict(load_file(weights))
    experiment.model.eval()
    frames = ssvqvae_frames(options)
    width = frames_in(THEIR_SIZES.clip_seconds, experiment)

    @torch.no_grad()
    def make(song: Array, name: str) -> Array:
        clip = frames[sum(name.encode()) % len(frames)]  # of the style: any of its songs, the same for every keepsake
        start = (clip.shape[1] - width) // 2
        content = torch.from_numpy(experiment.preprocess(at_rate(levelled(song).numpy(), experiment.sr)))[None].to(options.device)
        style = torch.from_numpy(clip[:, start : start + width])[None].to(options.device)
        lengths = [torch.tensor([x.shape[2]], device=options.device) for x in (content, style)]
        found = experiment.model(content, style, *lengths)[0].cpu().numpy()
        return fitted(at_rate(experiment.postprocess(found), RATE, experiment.sr), song)

    return make


# -- StyleStream -----------------------------------------------------------------------------------------------------------


def ours(options: argparse.Namespace, run: str) -> None:
    """Train, or take over what is trained."""
    adopt(options, run) if options.own else fit_ours(options, run)
    if run == "tune":
        own_style.keep_base(options)


def fit_ours(options: argparse.Namespace, run: str) -> None:
    """`stylestream train`, from nothing or from the base; making the frames counts."""
    base, table = own_style.RUNS[run]
    folder = options.work / run
    out = folder / f"{options.sound}-{run}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    if options.device == "cpu":
        train.Clock = train.ProcessorClock  # type: ignore[misc]
    tables = read_config("default")
    tables[table] |= {"threads": 1, "batch": train.LEAST_BATCH} if options.device == "cpu" else {}
    checkpoints = out.with_name(out.name + ".ckpt")
    prepared = own_style.frames_of(options)
    if not (checkpoints / "songs.json").exists():
        shutil.copytree(options.work / "frames", checkpoints / "frames", dirs_exist_ok=True)
        (checkpoints / "songs.json").write_text(json.dumps(asdict(prepared)))
    (folder / "model.json").write_text(json.dumps(asdict(own_style.settings(options, run, base)[1])))
    keeper = own_style.Keeper(folder / "kept", checkpoints)

    def report(row: dict[str, float]) -> None:
        print(json.dumps({key: round(value, 4) for key, value in row.items()}), flush=True)
        keeper(row | {"seconds": row["seconds"] + prepared.seconds})

    music = [own_style.recordings(options)]
    workshop.train(music, out, config=tables, minutes=options.minutes, base=base, device=options.device, report=report, say=print)
    own_style.keep_last(options, run)
    last = folder / "kept" / "last.json"
    row = json.loads(last.read_text())
    if "made_frames" not in row:  # making them is no training, but it takes its time
        last.write_text(json.dumps(row | {"minutes": row["minutes"] + prepared.seconds / 60, "made_frames": prepared.seconds}))


def adopt(options: argparse.Namespace, run: str) -> None:
    """A run of `own_style.py`, of the same songs, instead of a new one: its keepsakes, at the minutes that one thread takes for them."""
    source, folder = options.own / options.sound / run, options.work / run
    if folder.exists():
        raise ValueError(f"{folder} is there already; remove it to take another run")
    shutil.copytree(source / "kept", folder / "kept")
    shutil.copy(source / "model.json", folder)
    pace = json.loads((options.own / "pace.json").read_text())
    (history,) = (json.loads(path.read_text()) for path in source.glob("*.ckpt/history.json"))
    for path in (folder / "kept").glob("*.json"):
        row = json.loads(path.read_text())
        minutes = core_minutes(pace, run, history, row["step"])
        path.write_text(json.dumps({"name": row["name"], "minutes": minutes, "step": row["step"], "adopted": True}))


def core_minutes(pace: Mapping[str, Any], run: str, history: Sequence[Mapping[str, float]], steps: float) -> float:
    """Making the frames, the steps up to one, and the scores among them, as one thread of a quiet machine takes for each."""
    found, last, seconds = pace[run], 0.0, pace["render"] if steps else 0.0
    for row in history:
        if row["step"] > steps:
            break
        stage = max((begin, name) for name, begin in found["from"].items() if begin <= row["progress"])[1]
        seconds += (row["step"] - last) * found["all"]["1"][stage] + found["score"]
        last = row["step"]
    return float(seconds / 60)


def load_ours(options: argparse.Namespace, weights: Path) -> Make:
    from safetensors.torch import load_file

    network = json.loads((weights.parent.parent / "model.json").read_text())
    style = options.work / "scored.safetensors"
    features = asdict(FeatureConfig())
    save_style(style, load_file(weights), model_config=network, feature_config=features, card=Card(options.sound))
    return played_by(style)


def played_by(style: str | Path) -> Make:
    from stylestream.transfer import load_style

    loaded = load_style(style)
    return lambda song, name: loaded.transfer(song, RATE, drums=0.0, seed=0)


# -- the scores ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Passage:
    """A held-out passage: song and truth (C, N), its notes, and what the scores are kept under."""

    song: Array
    truth: evaluate.Take
    notes: NDArray[Any]
    facts: dict[str, Any]


def passages(options: argparse.Namespace) -> list[Passage]:
    """As `stylestream evaluate` makes them."""
    protocol = protocol_of(options)
    judge, found = evaluate.Judge(protocol, options.work / "cache"), []
    for excerpt in evaluate.excerpts(own_style.held_out(options), "own", protocol)[0]:
        nobody = evaluate.Contenders(options.sound, Path(), None, None, None)
        stage = judge.stage(evaluate.Task(nobody, "own", excerpt))
        piece, place = excerpt.piece, {"start_seconds": excerpt.start_seconds, "seconds": excerpt.seconds}
        assert stage.notes is not None
        found.append(
            Passage(stage.song.y, stage.truths["rows"], stage.notes, {"id": excerpt.id, "path": piece.path, "group": piece.group, **place})
        )
    return found


def protocol_of(options: argparse.Namespace) -> evaluate.Protocol:
    return evaluate.Protocol(pieces=options.pieces, seconds=options.seconds)


def scores_of(passage: Passage, y: Array) -> dict[str, float]:
    """The columns of the page for one result."""
    truth, result = metrics.matched(passage.truth.sound, metrics.prepare(y))
    return {
        "log_mel_l1": metrics.log_mel_l1(truth, result),
        "mfcc": metrics.mfcc_distance(truth, result),
        "mfcc_16k": metrics.mfcc_distance(*(metrics.prepare(to_8_khz(sound)) for sound in (passage.truth.y, y))),
        "lsd": metrics.lsd(truth, result),
        "lsd_16k": metrics.lsd_16k(truth, result),
        "chroma": metrics.chroma_cosine(truth, result),
        "note_auc": metrics.note_auc(result, passage.notes),
        "flux": metrics.flux_correlation(truth, result),
    }


def to_8_khz(y: Array) -> Array:
    """What of a sound (C, N) a method at 16 kHz could have made: mono, nothing above."""
    mono = y.mean(0)
    return fitted(at_rate(at_rate(mono, 16000), RATE, 16000), mono[None])


def score(options: argparse.Namespace) -> None:
    """Every keepsake on the same passages; the last ones first, they say most. What is scored is left."""
    heard = passages(options)
    music = recipes.song_id(b"".join(song.tobytes() for song in songs(options.work / "music")))
    for row, make in plain_rows(options, heard).items():
        measure(options, heard, row, music, lambda make=make: make)
    shipped = own_style.SOUNDS[options.sound].shipped
    if shipped:
        measure(options, heard, "shipped", recipes.song_id(find_style(shipped).read_bytes()), lambda: played_by(shipped))
    load = {"rave": load_rave, "ssvqvae": load_ssvqvae, "scratch": load_ours, "tune": load_ours}
    runs = {run: kept(options, run) for run in (*THEIRS, *OURS)}
    for place in range(max((len(rows) for rows in runs.values()), default=0)):
        for run, rows in runs.items():
            if place < len(rows):
                row = rows[-1 - place]
                weights = options.work / run / "kept" / f"{row['name']}.safetensors"
                measure(
                    options, heard, f"{run}-{row['name']}", row["made_of"], lambda run=run, weights=weights: load[run](options, weights)
                )


def plain_rows(options: argparse.Namespace, heard: Sequence[Passage]) -> dict[str, Make]:
    mean = np.mean([baselines.mean_frames(song[None]) for song in songs(options.work / "music")], axis=0)
    truths = {id(passage.song): passage.truth for passage in heard}
    return {
        "copy": lambda song, name: song,
        "equalise": lambda song, name: baselines.equalise(song, mean),
        "ceiling": lambda song, name: baselines.ceiling(song, truths[id(song)].y),
        "truth": lambda song, name: truths[id(song)].y,
    }


def measure(options: argparse.Namespace, heard: Sequence[Passage], row: str, made_of: str, load: Callable[[], Make]) -> None:
    """Scores of a row on every passage, written once; its sound lies beside them, and is not made again for another score."""
    path = options.work / "scores" / f"{row}.json"
    about = {"made_of": made_of, "protocol": asdict(protocol_of(options)), "columns": list(COLUMNS)}
    if path.exists() and {**json.loads(path.read_text()), "pieces": None} == about | {"pieces": None}:
        return
    make, found = functools.cache(load), []
    for passage in heard:
        sound = options.work / "sound" / f"{row}-{made_of}" / f"{passage.facts['id']}-{options.seconds:g}.flac"
        if not sound.exists():
            write_sound(sound, make()(passage.song, passage.facts["path"]))
        found.append(passage.facts | {"scores": scores_of(passage, read_sound(sound))})
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(about | {"pieces": found}))
    print(row, {key: round(float(np.mean([piece["scores"][key] for piece in found])), 3) for key in COLUMNS}, flush=True)


def kept(options: argparse.Namespace, run: str) -> list[dict[str, Any]]:
    """What a run kept, in the order of its steps; the same weights once."""
    rows = [json.loads(path.read_text()) for path in (options.work / run / "kept").glob("*.json")]
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["minutes"], row["step"])):
        made_of = recipes.song_id((options.work / run / "kept" / f"{row['name']}.safetensors").read_bytes())
        found.setdefault(made_of, row | {"made_of": made_of})
    return list(found.values())


# -- the page --------------------------------------------------------------------------------------------------------------


def table_of(options: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Pieces with the scores of every row, and their means."""
    rows = {path.stem: json.loads(path.read_text())["pieces"] for path in sorted((options.work / "scores").glob("*.json"))}
    pieces = merged(rows)
    return pieces, bootstrap.table(pieces)


def merged(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Row → its pieces, as pieces with rows. ValueError if a row was scored on other passages.

    >>> merged({"copy": [{"path": "a", "scores": {"mfcc": 1.0}}]})
    [{'path': 'a', 'rows': {'copy': {'mfcc': 1.0}}}]
    """
    pieces: list[dict[str, Any]] = []
    for row, found in rows.items():
        facts = [{key: value for key, value in piece.items() if key != "scores"} for piece in found]
        pieces = pieces or [piece | {"rows": {}} for piece in facts]
        if [{key: value for key, value in piece.items() if key != "rows"} for piece in pieces] != facts:
            raise ValueError(f"{row} was scored on other passages; remove its file in scores/ and score it again")
        for piece, scored in zip(pieces, found, strict=True):
            piece["rows"][row] = scored["scores"]
    return pieces


def shown_of(options: argparse.Namespace, run: str, found: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of ours the last one within the rivals' minutes; of a rival the one that went furthest on these very passages, in its favour."""
    scored = [row for row in kept(options, run) if f"{run}-{row['name']}" in found["rows"]]
    if run in THEIRS:
        return max(scored, key=lambda row: found["way"][f"{run}-{row['name']}"]["mean"], default=None)
    ends = [rows[-1]["minutes"] for rival in THEIRS if (rows := kept(options, rival))]
    within = [row for row in scored if row["minutes"] <= min(ends, default=float("inf")) + 0.1]
    return within[-1] if within else None


TEXT = """# Trained rivals

Written by `python benchmarks/rivals_trained.py DATA --work WORK --rave RAVE --ssvqvae SS-VQ-VAE --site SITE score page --out
docs/rivals.md` after one call with `RUN --minutes MINUTES` for each training: {planned} (what was taken from
elsewhere is said below). Do not edit. Two methods of others that are
trained, beside `stylestream train`: the same ten minutes of {title} as audio, minutes of {device}, the same held-out passages ({pieces}
pieces, {seconds:.0f} s of each), the same scores. Songs and truths are those of [the reduction protocol](evaluation.md): the song is a
piece's piano reduction in a SoundFont that nobody was trained on, the truth the piece as the style plays it. Baselines that are not
trained are in [quality.md](quality.md).

Minutes are processor time of one thread, so that what else the machine does takes nothing from anybody; ours include making the frames
and scoring on held-out frames, theirs only training. **They are few.** RAVE is normally trained for days on a GPU at 44.1 kHz,
ss-vq-vae for 32 epochs of a large corpus of many instruments: the table says what comes of minutes of a processor, which is what
`stylestream train` is made for, not what these methods can do. The curves say how far each has come, and whether it is still rising.
`--device cuda` is there to train them at their own batches and lengths; this page's runs did not use it.

"""
DONE = """
## What was done with their code

Nothing of it is in this repository; the script imports it from a checkout that its user names. It was written beside f048ec4 of RAVE
and f890ad5 of ss-vq-vae.

**RAVE** (Caillon and Esling, 2021; github.com/acids-ircam/RAVE). Kept: `v2_small.gin` with every size in it, {rave_weights:.1f} million
weights in encoder and generator; its `training_step`, so its multiscale spectral distance on full band and on 16 PQMF bands, its
regularisation at the configured β, its three multi-scale and five multi-period discriminators with hinge loss and feature matching;
Adam at 1e-3 and 1e-4 with betas 0.5 and 0.9; 44.1 kHz; the reader's random phase and dither. It plays a song by encoding and decoding
it, which is its authors' timbre transfer. Changed: steps are {rave_batch} excerpts of {rave_samples} samples (theirs: 8 of 131072); the
first phase, a million steps, is {phase_1:.0%} of the minutes, and the learning rate falls from 1e-3 to 1e-4 within it, as theirs does;
no validation. Lightning, torchaudio's spectrogram and readers that are not used have stand-ins where
they are not installed; two SciPy calls are given what today's SciPy asks for.

**ss-vq-vae** (Cífka et al., 2021; github.com/cifkao/ss-vq-vae). Kept: `experiments/model/config.yaml` with every size in it,
{ssvqvae_weights:.1f} million weights; its losses and its Adam at 4e-4; 16 kHz, its own spectrogram and its own 32 rounds of
Griffin–Lim. Content and style input of a step are two excerpts of one song, as in the paper; it plays a song with {their_clip:.0f} s of
a training song as style input. Changed: steps are {clip_batch} pairs of {clip_seconds:.0f} s (theirs: 256 of 8 s); the decoder masks a
copy, because today's autograd refuses to have a ReLU's result changed in place. It is meant to learn of many instruments what timbre
is; here it hears one ensemble, as the others do. Above 8 kHz it plays nothing, which the log-mel distance hears.

**StyleStream**: `stylestream train --from none` and `--from base` at the size that ships, one thread. Of the ten songs it keeps one to
score itself by; the rivals train on all ten. The base has heard other music, string quartets among it but none of the test pieces, for
GPU hours before ([training.md](training.md)); *from nothing* has not. A training that no longer gains ends by itself. What is kept at a
minute is the best on held-out frames until then; of the rivals it is what they are at that minute. The first table has ours as it was
when the rivals ended, or as it ended before, and of each rival the keepsake that went furthest on these very passages,
which is in its favour. The row *that ships* was
trained for hours on many scores.

The rivals were trained on mono songs at −20 LUFS and play songs at −20 LUFS; results are compared in mono and at equal loudness. One
run of each: the intervals are over pieces, not over trainings.
"""
ADOPTED = """
{runs}: not a run of this script but that of `benchmarks/own_style.py` on the same songs ([benchmarks.md](benchmarks.md)), taken by
`--own`. The one
from nothing had two hours ahead of it and was ended early: no keepsake of it has had the small last steps that a training of these
minutes ends with. Minutes are its steps and scores, each at what it takes on one thread of a quiet machine, and making the
frames.
"""
LABELS = {"log_mel_l1": "log-mel L1, dB", "mfcc": "MFCC distance", "note_auc": "note AUC", "mfcc_16k": "MFCC, to 8 kHz"}


def page(options: argparse.Namespace) -> str:
    pieces, found = table_of(options)
    last = {run: row for run in (*THEIRS, *OURS) if (row := shown_of(options, run, found))}
    names = {"copy": "copy", "equalise": "equalise", **{run: f"{run}-{row['name']}" for run, row in last.items()}}
    names |= {row: row for row in ("shipped", "ceiling", "truth") if row in found["rows"]}
    sizes, device = sizes_of(options), "one core" if options.device == "cpu" else options.device
    planned = ", ".join(f"`{run}` {kept(options, run)[-1]['minutes']:.0f}" for run in last)
    about = {"title": own_style.SOUNDS[options.sound].title, "device": device, "planned": planned}
    taken = [run for run in last if any(row.get("adopted") for row in kept(options, run))]
    text = TEXT.format(pieces=len(pieces), seconds=pieces[0]["seconds"], **about)
    weights = {f"{run}_weights": millions(options, run, last[run]) if run in last else float("nan") for run in THEIRS}
    done = DONE.format(phase_1=PHASE_1_SHARE, their_clip=THEIR_SIZES.clip_seconds, **asdict(sizes), **weights)
    parts = [*result_lines(options, found, names, last), "", "## What it says", "", *verdicts(pieces, names, last), ""]
    parts += [
        "## Curves",
        "",
        "![way, MFCC distance and note AUC over minutes](images/rivals-curves.png)",
        "",
        *curve_lines(options, found),
    ]
    adopted = ADOPTED.format(runs=" and ".join(f"`{run}`" for run in taken)) if taken else ""
    return text + "\n".join(parts) + "\n" + done + adopted


def millions(options: argparse.Namespace, run: str, row: Mapping[str, Any]) -> float:
    """Weights that play: without discriminators and what is only counted."""
    from safetensors.torch import load_file

    weights = load_file(options.work / run / "kept" / f"{row['name']}.safetensors")
    playing = ("encoder.", "decoder.") if run == "rave" else ("",)
    return sum(w.numel() for key, w in weights.items() if key.startswith(playing) and w.is_floating_point() and "running_" not in key) / 1e6


def result_lines(options: argparse.Namespace, found: Mapping[str, Any], names: Mapping[str, str], last: Mapping[str, Any]) -> list[str]:
    """The table: ours at the end, a rival at its best."""
    lines = [
        "|  | minutes | steps | audio heard | way | " + " | ".join(heading(c) for c in COLUMNS) + " |",
        "|---" + "|---:" * (4 + len(COLUMNS)) + "|",
    ]
    for row, name in names.items():
        spent_on = last.get(row)
        took = (
            ["", "", ""]
            if spent_on is None
            else [f"{spent_on['minutes']:.1f}", f"{spent_on['step']:.0f}", heard_text(options, row, spent_on)]
        )
        way = "" if row in ("copy", "ceiling", "truth") else way_text(found["way"][name])
        cells = [number(found["rows"][name][column]["mean"]) for column in COLUMNS]
        lines.append("| " + " | ".join([TITLES.get(row, row), *took, way, *cells]) + " |")
    return lines


def heading(column: str) -> str:
    return {**evaluate.COLUMNS, **LABELS}[column]


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def way_text(cell: Mapping[str, Any]) -> str:
    """A part of the way with its interval.

    >>> way_text({"mean": 0.514, "low": 0.4, "high": -0.004})
    '51 % [40, -0]'
    """
    return f"{100 * cell['mean']:.0f} % [{100 * cell['low']:.0f}, {100 * cell['high']:.0f}]"


def heard_text(options: argparse.Namespace, run: str, row: Mapping[str, Any]) -> str:
    """How much audio went through the network."""
    seconds = row.get("heard_seconds")
    if seconds is None and options.device == "cpu":
        features, config = FeatureConfig(), own_style.settings(options, run, own_style.RUNS[run][0])[0]
        seconds = row["step"] * train.LEAST_BATCH * config.crop_frames * features.hop_length / features.sample_rate
    return "" if seconds is None else f"{seconds:.0f} s"


def verdicts(pieces: Sequence[Mapping[str, Any]], names: Mapping[str, str], last: Mapping[str, Any]) -> list[str]:
    """Each of ours against each rival, and each rival against the song itself, piece by piece."""
    lines = []
    for run in OURS:
        for rival in THEIRS:
            if run in last and rival in last:
                cells = bootstrap.difference(pieces, pieces, (names[run], names[rival]))
                lines.append(f"- {TITLES[run]}, less {TITLES[rival]}: {said(cells)}.")
    for rival in THEIRS:
        if rival in last:
            cells = bootstrap.difference(pieces, pieces, (names[rival], "copy"))
            lines.append(f"- {TITLES[rival]}, less the song itself: {said(cells)}.")
    return lines


def said(cells: Mapping[str, Mapping[str, Any]]) -> str:
    """Differences in timbre and in pitch, and on which of them the first is better beyond noise.

    >>> said({"mfcc": {"mean": -2.0, "low": -3.0, "high": -1.0}, "note_auc": {"mean": 0.1, "low": -0.1, "high": 0.3}})
    'MFCC distance −2.00 [−3.00, −1.00], better; note AUC +0.10 [−0.10, +0.30], within noise'
    """
    parts = []
    for column in ("log_mel_l1", "mfcc", "mfcc_16k", "chroma", "note_auc"):
        if column not in cells:
            continue
        mean, low, high = (cells[column][key] for key in ("mean", "low", "high"))
        higher_is_better = column in ("chroma", "note_auc")
        better, worse = (low > 0, high < 0) if higher_is_better else (high < 0, low > 0)
        text = f"{heading(column)} {mean:+.2f} [{low:+.2f}, {high:+.2f}]".replace("-0.00", "0.00")
        text = text.replace("log-mel", "log~mel").replace("-", "−").replace("~", "-")
        parts.append(f"{text}, {'better' if better else 'worse' if worse else 'within noise'}")
    return "; ".join(parts)


def curve_lines(options: argparse.Namespace, found: Mapping[str, Any]) -> list[str]:
    """Every keepsake that is scored."""
    columns = ("log_mel_l1", "mfcc", "mfcc_16k", "chroma", "note_auc", "flux")
    lines = [
        "| run | minutes | steps | way | " + " | ".join(heading(c) for c in columns) + " |",
        "|---" + "|---:" * (3 + len(columns)) + "|",
    ]
    for run in (*THEIRS, *OURS):
        for row in kept(options, run):
            name = f"{run}-{row['name']}"
            if name in found["rows"]:
                cells = [number(found["rows"][name][column]["mean"]) for column in columns]
                phase = ", phase 2" if row.get("phase") == 2 else ""
                took = [TITLES[run] + phase, f"{row['minutes']:.1f}", f"{row['step']:.0f}", way_text(found["way"][name])]
                lines.append("| " + " | ".join([*took, *cells]) + " |")
    return lines


def draw_curves(options: argparse.Namespace, path: Path) -> None:
    """Way, MFCC distance and note AUC over minutes, with copy and ceiling as lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    found = table_of(options)[1]
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for axis, (title, of) in zip(axes, panels(found).items(), strict=True):
        for run in (*THEIRS, *OURS):
            points = [(row["minutes"], of(name)) for row in kept(options, run) if (name := f"{run}-{row['name']}") in found["rows"]]
            axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=TITLES[run]) if points else None
        for row, dashes in (("copy", ":"), ("equalise", "--"), ("ceiling", "-.")):
            axis.axhline(of(row), color="0.5", linestyle=dashes, linewidth=1, label=row)
        axis.set(title=title, xlabel="minutes of training")
    axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)


def panels(found: Mapping[str, Any]) -> dict[str, Callable[[str], float]]:
    return {
        "part of the way, %": lambda name: 100 * found["way"][name]["mean"],
        "MFCC distance (lower is better)": lambda name: found["rows"][name]["mfcc"]["mean"],
        "note AUC (higher is better)": lambda name: found["rows"][name]["note_auc"]["mean"],
    }


def write(options: argparse.Namespace) -> None:
    """The page with its picture, or the page alone to stdout."""
    if options.out is None:
        print(page(options))
        return
    options.out.write_text(page(options), encoding="utf-8")
    draw_curves(options, options.out.parent / "images" / "rivals-curves.png")


# -- the command line ------------------------------------------------------------------------------------------------------


class Options(argparse.Namespace):
    """What was asked for; what is made once is kept by it."""

    __hash__ = object.__hash__


def parsed(arguments: Sequence[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("what", nargs="+", choices=["prepare", *THEIRS, *OURS, "score", "page"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rave", type=Path, help="a checkout of RAVE")
    parser.add_argument("--ssvqvae", type=Path, help="a checkout of ss-vq-vae")
    parser.add_argument("--site", type=Path, help="a folder of packages that they need")
    parser.add_argument("--own", type=Path, help="take `scratch` and `tune` from this work folder of own_style.py instead of training")
    parser.add_argument("--sound", choices=list(own_style.SOUNDS), default="strings")
    parser.add_argument("--out", type=Path, help="the page; default is stdout")
    parser.add_argument("--minutes", type=float, default=20.0, help="of each training, on one core")
    parser.add_argument("--minutes-of-music", type=float, default=10.0)
    parser.add_argument("--until", help="HH:MM, when a rival's training ends at the latest")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pieces", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=12.0)
    options = parser.parse_args(arguments, namespace=Options())
    options.work = options.work / options.sound
    return options


def main() -> None:
    options = parsed()
    torch.set_num_threads(1)
    work: dict[str, Callable[[], Any]] = {
        "prepare": lambda: own_style.frames_of(options),
        "rave": lambda: fit_rave(options),
        "ssvqvae": lambda: fit_ssvqvae(options),
        "scratch": lambda: ours(options, "scratch"),
        "tune": lambda: ours(options, "tune"),
        "score": lambda: score(options),
        "page": lambda: write(options),
    }
    for what in options.what:
        work[what]()


if __name__ == "__main__":
    main()
