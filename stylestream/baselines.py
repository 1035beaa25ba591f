"""What a style has to beat, and what it cannot beat. Each is a function of the song that a reader can call.

- *copy*: the song itself. Whoever is no closer to the truth than this has transferred nothing.
- *random_piece*: another song of the style. All of the style, nothing of the song: what a metric of style alone would praise.
- *equalise*: the song filtered to the mean spectrum of the style's training songs. Cheap, and strong on long-term timbre.
- *musaicing*, *ulyanov*: two methods of others that need only sound of the style (`rivals`).
- *plain*: the autoencoder without views, the same DRAW shown the target itself in training. It learns to copy. It is a style file like
  any other (``train`` with no views) and is run like any other.
- *lstm2017*: the system of 2017, on its own terms: 4.41 kHz, 513 bins, a frame-wise VAE with LSTMs, ten rounds of Griffin–Lim.
- *ceiling*: the truth's own frames, brought back to sound with the song's phase: what the best possible canvas would score.

Waveforms are ``(C, N)`` at 44.1 kHz and keep their shape; level is not matched, the metrics do that.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from stylestream.features import FeatureConfig, LogFrequency, stft
from stylestream.rivals import levelled, musaicing, ulyanov

if TYPE_CHECKING:
    from stylestream.recipes import Piece
    from stylestream.style import StyleData

Array = NDArray[np.floating]

FEATURES = FeatureConfig()


def copy(y: Array) -> Array:
    """The song, unchanged."""
    return y


def random_piece(y: Array, style_audio: Sequence[Array]) -> Array:
    """One of the style's songs instead of the song, drawn by the song's hash; repeated or cut to its length.

    Parameters
    ----------
    y : array [shape=(C, N)]
    style_audio : sequence of array [shape=(C', M)]

    Returns
    -------
    array [shape=(C, N)]
        The drawn song's mono fold-down in every channel.

    Raises
    ------
    ValueError
        If there is no sound of the style.
    """
    songs = [song for song in style_audio if np.size(song)]
    if not songs:
        raise ValueError("no sound of the style was given; pass waveforms of its training songs as style_audio")
    drawn = songs[int(_digest(y), 16) % len(songs)].mean(0)
    return np.repeat(np.resize(drawn, y.shape[-1])[None], y.shape[0], axis=0).astype(np.float32)


OF_STYLE_AUDIO: dict[str, Callable[[Array, Sequence[Array]], Array]] = {  # rows that are made of the song and sound of the style
    "random_piece": random_piece,
    "musaicing": musaicing,
    "ulyanov": ulyanov,
}


def style_audio(data_root: str | Path, style: str, *, songs: int = 8, seconds: float = 8.0, cache: str | Path | None = None) -> list[Array]:
    """Some seconds of each of a style's first training songs by hash, as its own training renders them.

    Parameters
    ----------
    data_root : path
        A collection (see ``recipes.pieces``).
    style : str
        A name in ``recipes.STYLE_RECIPES``.
    cache : path, optional
        Folder where renders are kept (see `cached`).

    Returns
    -------
    list of array [shape=(2, M), 44.1 kHz]

    Raises
    ------
    ValueError
        If the style is unknown, or none of its songs can be played.
    """
    from stylestream import corpus, recipes

    renderer = corpus.PieceRenderer(corpus.BuildConfig(max_seconds=seconds, min_seconds=min(seconds, 4.0)))
    chosen = recipes.select(recipes.pieces(data_root, style), songs)
    played = []
    for _, content in recipes.read_pieces(data_root, chosen):
        try:
            played.append(
                cached(renderer.sound, content, recipes.recipe_of(style), cache=cache, name="style", key=f"{style} {seconds}", seed=0)
            )
        except ValueError:  # a piece its recipe refuses is no loss: there are others
            continue
    if not played:
        raise ValueError(f"none of the training songs of style {style!r} can be played; look at them with `stylestream doctor`")
    return played


# --- kept on disk ------------------------------------------------------------------------------------------------------------------

CACHE_VERSION = 1  # of everything kept: another number where a baseline changes


def cached(make: Callable[..., Array], *inputs: Any, cache: str | Path | None, name: str, key: str = "", **settings: Any) -> Array:
    """``make(*inputs, **settings)``, made once and then read: kept under a hash of everything it depends on.

    Parameters
    ----------
    make : function → array [shape=(C, N), 44.1 kHz]
    inputs : arrays, bytes, sequences of them; anything else must be named by ``key``
    cache : path or None
        Folder of the kept files; None keeps nothing.
    name : str
        Of the baseline: what `costs` lists.
    key : str
        What else the result depends on, for example a model's file hash.

    Returns
    -------
    array [shape=(C, N), float32]
        24 bits, peak below full scale (a louder one is turned down); the first call returns what the next will read.
    """
    if cache is None:
        return make(*inputs, **settings)
    known = [_digest(value) for value in inputs if isinstance(value, bytes | np.ndarray | list | tuple)]
    path = Path(cache) / name / (_digest(repr((CACHE_VERSION, name, key, known, sorted(settings.items()))).encode()) + ".flac")
    if not path.is_file():
        began = time.process_time()
        y = make(*inputs, **settings)
        _keep(path, y, time.process_time() - began)
    return _kept(path)


def _digest(value: Any) -> str:
    """Hash of an array's samples, of bytes, or of a sequence of these."""
    if isinstance(value, list | tuple):
        value = "".join(_digest(inner) for inner in value).encode()
    if isinstance(value, np.ndarray):
        value = repr((value.shape, str(value.dtype))).encode() + np.ascontiguousarray(value).tobytes()
    return hashlib.sha256(value).hexdigest()[:32]


def _keep(path: Path, y: Array, seconds: float) -> None:
    import soundfile

    from stylestream.files import whole_file

    path.parent.mkdir(parents=True, exist_ok=True)
    quieter = min(1.0, 0.99 / max(float(np.abs(y).max(initial=0.0)), 1e-9))
    with whole_file(path) as temporary, soundfile.SoundFile(temporary, "w", FEATURES.sample_rate, len(y), "PCM_24", format="FLAC") as file:
        file.comment = f"{seconds:.3f} s"  # what it cost: see `costs`
        file.write((y * quieter).T)


def _kept(path: Path) -> Array:
    import soundfile

    return soundfile.read(path, dtype="float32", always_2d=True)[0].T


def costs(cache: str | Path) -> dict[str, tuple[int, float]]:
    """What the kept results cost when they were made: name → how many, and mean processor seconds of each."""
    import soundfile

    spent: dict[str, list[float]] = {}
    for path in sorted(Path(cache).glob("*/*.flac")):
        with soundfile.SoundFile(path) as file:
            spent.setdefault(path.parent.name, []).append(float(file.comment.removesuffix(" s") or 0))
    return {name: (len(seconds), sum(seconds) / len(seconds)) for name, seconds in spent.items()}


# --- equalise ----------------------------------------------------------------------------------------------------------------------


def mean_frames(y: Array, config: FeatureConfig = FEATURES) -> Array:
    """Mean spectrum of a song: frames of its mono fold-down at ``config.loudness_lufs``, averaged over time.

    Parameters
    ----------
    y : array [shape=(C, N), 44.1 kHz]

    Returns
    -------
    array [shape=(n_bins,), frames: 0 is −90 dB, 1 is 0 dB]
    """
    return LogFrequency(config)(levelled(y, config)).mean(-1).numpy()


def gain_db(
    song_mean: Array, style_mean: Array, *, config: FeatureConfig = FEATURES, smooth_octaves: float = 1 / 3, bound_db: float = 24.0
) -> Array:
    """Gain that brings one mean spectrum to another, dB per row: smoothed over a third of an octave, within ± ``bound_db``.

    Parameters
    ----------
    song_mean, style_mean : array [shape=(n_bins,), frames]

    Returns
    -------
    array [shape=(n_bins,), dB]
    """
    if song_mean.shape != style_mean.shape:
        raise ValueError(f"mean spectra differ in shape: {song_mean.shape} and {style_mean.shape}; use frames of one feature config")
    width = max(1, round(smooth_octaves * config.bins_per_octave) | 1)
    difference = np.pad((style_mean - song_mean) * -config.floor_db, width // 2, mode="edge")
    return np.clip(np.convolve(difference, np.ones(width) / width, mode="valid"), -bound_db, bound_db)


def equaliser(gains_db: Array, *, config: FeatureConfig = FEATURES, taps: int = 16383) -> Array:
    """Linear-phase filter with these gains, symmetric about its middle tap; below and above the rows their outermost gain holds.

    Returns
    -------
    array [shape=(taps,)]
        A windowed frequency-sampling design (Oppenheim and Schafer, "Discrete-Time Signal Processing", §7.5). 16383 taps resolve
        a third of an octave at C1.
    """
    hz = np.fft.rfftfreq(taps + 1, 1 / config.sample_rate)
    octave = np.log2(np.maximum(hz, 1.0) / config.fmin_hz)
    wanted = np.interp(octave, np.arange(config.n_bins) / config.bins_per_octave, gains_db)
    h = np.fft.fftshift(np.fft.irfft(10 ** (wanted / 20)))[1:]  # zero phase, so the peak is in the middle of an odd number of taps
    return h * np.hanning(taps)


def equalise(y: Array, style_mean: Array, *, config: FeatureConfig = FEATURES) -> Array:
    """The song with the mean spectrum of a style, sample-aligned.

    Parameters
    ----------
    y : array [shape=(C, N), 44.1 kHz]
    style_mean : array [shape=(n_bins,), frames]
        ``mean_frames`` of the style's training songs, averaged; a style file carries it.
    """
    from scipy.signal import oaconvolve

    h = equaliser(gain_db(mean_frames(y, config), style_mean, config=config), config=config)
    middle = len(h) // 2
    return oaconvolve(y, h[None], axes=-1)[..., middle : middle + y.shape[-1]].astype(np.float32)


# --- ceiling -----------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def ceiling(y: Array, truth: Array, *, config: FeatureConfig = FEATURES) -> Array:
    """The truth's frames brought back to sound with the phase of the song: the score of a perfect canvas.

    Parameters
    ----------
    y, truth : array [shape=(C, N), 44.1 kHz]
        Song and truth, of equal length.

    Returns
    -------
    array [shape=(C, N)]
        At ``config.loudness_lufs``, every channel the same.
    """
    from stylestream.vocoder import Vocoder

    vocoder = Vocoder(LogFrequency(config))
    x = vocoder.features(levelled(truth, config))
    sound = vocoder.synthesise(x, vocoder.analyse(levelled(y, config)[None])).numpy()
    return np.repeat(sound, y.shape[0], axis=0)


# --- the system of 2017 ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lstm2017Config:
    """The settings of 2017, kept as they were."""

    sample_rate: int = 4410  # nothing above 2.2 kHz
    n_fft: int = 1024
    hop_length: int = 256
    hidden: int = 256
    latents: int = 64
    reconstruction_weight: float = 30.0
    griffin_lim_iterations: int = 10
    floor_db: float = -80.0  # levels are mapped to [0, 1] for the squared error

    @property
    def n_bins(self) -> int:
        """513."""
        return self.n_fft // 2 + 1


class Lstm2017(nn.Module):
    """Frame-wise VAE with two-layer LSTMs: one Gaussian latent vector a frame, 2.3 M parameters.

    What the project's first code meant to do. What it did was less: it threw the LSTM's output away.
    """

    def __init__(self, config: Lstm2017Config = Lstm2017Config()) -> None:
        super().__init__()
        c = self.config = config
        self.encoder = nn.LSTM(c.n_bins, c.hidden, num_layers=2, batch_first=True)
        self.posterior = nn.Linear(c.hidden, 2 * c.latents)
        self.decoder = nn.LSTM(c.latents, c.hidden, num_layers=2, batch_first=True)
        self.output = nn.Linear(c.hidden, c.n_bins)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latents: (B, T, 513) → 2 × (B, T, latents)."""
        mean, log_variance = self.posterior(self.encoder(x)[0]).chunk(2, dim=-1)
        return mean, log_variance

    def decode(self, z: Tensor) -> Tensor:
        """Levels of the frames, in [0, 1]: (B, T, latents) → (B, T, 513)."""
        return torch.sigmoid(self.output(self.decoder(z)[0]))

    def loss(self, S: Tensor) -> dict[str, Tensor]:
        """30 · MSE + KL to the standard normal, both means over all their elements, as in 2017.

        Parameters
        ----------
        S : Tensor [shape=(B, 513, T), magnitude]
        """
        x = self._levels(S)
        mean, log_variance = self.encode(x)
        error = F.mse_loss(self.decode(mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)), x)
        kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).mean()
        return {"loss/total": self.config.reconstruction_weight * error + kl, "loss/mse": error, "loss/kl": kl}

    @torch.no_grad()
    def reconstruct(self, S: Tensor) -> Tensor:
        """Magnitudes through the latents' means: (B, 513, T) → (B, 513, T)."""
        level = self.decode(self.encode(self._levels(S))[0]).mT
        return torch.where(level > 0.01, 10 ** ((1 - level) * self.config.floor_db / 20), torch.zeros(()))

    def _levels(self, S: Tensor) -> Tensor:
        return torch.clamp(1 - 20 * torch.log10(S.clamp(min=1e-9)) / self.config.floor_db, 0, 1).mT


def spectrum_2017(y: Array, config: Lstm2017Config = Lstm2017Config()) -> Tensor:
    """The song as the system of 2017 saw it: (C, N) at 44.1 kHz → magnitudes (513, T) of the levelled mono fold-down at 4.41 kHz."""
    import soxr

    low = soxr.resample(levelled(y).numpy(), FEATURES.sample_rate, config.sample_rate)
    return stft(torch.from_numpy(low), n_fft=config.n_fft, hop_length=config.hop_length).abs()


def lstm2017(y: Array, model: Lstm2017) -> Array:
    """A song through the system of 2017: (C, N) at 44.1 kHz → the same shape, every channel the same, nothing above 2.2 kHz."""
    import soxr

    from stylestream.vocoder import griffin_lim

    c = model.config
    S = model.reconstruct(spectrum_2017(y, c)[None])[0]
    low = griffin_lim(S, n_fft=c.n_fft, hop_length=c.hop_length, iterations=c.griffin_lim_iterations)
    full = soxr.resample(low.numpy(), c.sample_rate, FEATURES.sample_rate)
    mono = np.zeros(y.shape[-1], dtype=np.float32)
    mono[: full.size] = full[: mono.size]
    return np.repeat(mono[None], y.shape[0], axis=0)


def load_lstm2017(data: StyleData) -> Lstm2017:
    """The model of a style file that ``train_lstm2017`` wrote."""
    settings = {key: value for key, value in data.model_config.items() if key != "model"}
    if data.model_config.get("model") != "lstm2017":
        raise ValueError("this style file holds no lstm2017 model; train one with `stylestream train --model lstm2017`")
    model = Lstm2017(Lstm2017Config(**settings))
    model.load_state_dict(data.weights)
    return model.eval()


@dataclass(frozen=True)
class Lstm2017Training:
    """How the 2017 system is trained: as many steps as a style, on the same songs."""

    steps: int = 6000
    batch: int = 16
    crop_frames: int = 128  # 7.4 s
    learning_rate: float = 1e-3
    songs: int = 200
    max_seconds: float = 45.0
    seed: int = 0


def fit_lstm2017(
    songs: Sequence[Tensor],
    training: Lstm2017Training = Lstm2017Training(),
    *,
    config: Lstm2017Config = Lstm2017Config(),
    device: str = "cpu",
    progress: Callable[[int, dict[str, float]], None] = lambda step, losses: None,
) -> Lstm2017:
    """Train on spectra of songs.

    Parameters
    ----------
    songs : sequence of Tensor [shape=(513, T), magnitude]
        Those shorter than a crop are padded with silence.
    """
    if not songs:
        raise ValueError("no songs to train on")
    generator = torch.Generator().manual_seed(training.seed)
    torch.manual_seed(training.seed)  # weights and the posterior's noise
    model = Lstm2017(config).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=training.learning_rate)
    padded = [F.pad(S.float(), (0, max(0, training.crop_frames - S.shape[1]))) for S in songs]
    for step in range(training.steps):
        losses = model.loss(_crops(padded, training.batch, training.crop_frames, generator).to(device))
        optimizer.zero_grad(set_to_none=True)
        losses["loss/total"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        progress(step + 1, {key: value.item() for key, value in losses.items()} if step % 50 == 49 else {})
    return model.cpu().eval()


def _crops(songs: Sequence[Tensor], batch: int, frames: int, generator: torch.Generator) -> Tensor:
    chosen = [songs[i] for i in torch.randint(len(songs), (batch,), generator=generator).tolist()]
    starts = [int(torch.randint(S.shape[1] - frames + 1, (), generator=generator)) for S in chosen]
    return torch.stack([S[:, start : start + frames] for S, start in zip(chosen, starts, strict=True)])


def spectra_2017(
    data_root: str | Path, style: str, training: Lstm2017Training = Lstm2017Training(), *, jobs: int | None = None
) -> tuple[list[Piece], list[Tensor]]:
    """The style's training pieces, rendered as the style's own training renders them, as the 2017 system sees them."""
    from stylestream import parallel, recipes

    chosen = recipes.select(recipes.pieces(data_root, style), training.songs)
    work = functools.partial(_render_spectrum, style, training.max_seconds)
    done = list(parallel.over_songs(work, recipes.read_pieces(data_root, chosen), setup=_synthesizer, jobs=jobs))
    good = sorted(((task[0], S) for task, S in done if not isinstance(S, ValueError)), key=lambda pair: pair[0].path)
    return [piece for piece, _ in good], [torch.from_numpy(S) for _, S in good]


def _synthesizer() -> Any:
    from stylestream import midi

    return midi.Synthesizer(midi.find_soundfont("fluidr3"))


def _render_spectrum(style: str, max_seconds: float, synthesizer: Any, task: tuple[Piece, bytes]) -> Array:
    from stylestream import midi, recipes

    score = recipes.target_score(midi.load_score(task[1]), recipes.recipe_of(style))
    rng = np.random.default_rng(list(task[1][:64]))
    start = float(rng.uniform(0, max(0.0, midi.duration_seconds(score) - max_seconds)))
    return spectrum_2017(synthesizer.render(score, start_seconds=start, max_seconds=max_seconds)).half().numpy()


def train_lstm2017(
    data_root: str | Path,
    style: str,
    out: str | Path,
    training: Lstm2017Training = Lstm2017Training(),
    *,
    jobs: int | None = None,
    device: str = "cpu",
    progress: Callable[[int, dict[str, float]], None] = lambda step, losses: None,
) -> Path:
    """Render a style's training pieces, train the 2017 system on them, and write a style file.

    Returns
    -------
    Path
        ``out``; `load_lstm2017` reads it.
    """
    from stylestream.style import Card, save_style

    used, songs = spectra_2017(data_root, style, training, jobs=jobs)
    model = fit_lstm2017(songs, training, device=device, progress=progress)
    card = Card(
        title=f"{style} (lstm2017)",
        description="The system of 2017, a baseline: frame-wise VAE with LSTMs at 4.41 kHz.",
        licence="Apache-2.0",
        sources=tuple(_sources(used)),
        training_steps=training.steps,
        training_device=device,
    )
    config = asdict(model.config)
    return save_style(out, model.state_dict(), model_config={"model": "lstm2017", **config}, feature_config={}, card=card)


def _sources(used: Sequence[Piece]) -> Iterator[Any]:
    from stylestream.style import Source

    for name, licence in sorted({(piece.source, piece.licence) for piece in used}):
        members = [piece for piece in used if (piece.source, piece.licence) == (name, licence)]
        yield Source(name, licence, songs=len(members), hours=sum(piece.seconds for piece in members) / 3600)
