"""What a style has to beat, and what it cannot beat. Each is a function of the song that a reader can call.

- *copy*: the song itself. Whoever is no closer to the truth than this has transferred nothing.
- *random_piece*: another song of the style. All of the style, nothing of the song: what a metric of style alone would praise.
- *equalise*: the song filtered to the mean spectrum of the style's training songs. Cheap, and strong on long-term timbre.
- *musaicing* [1]_: every frame of the song is put together from frames of the style's sound, weighted by a constrained non-negative
  factorisation. Real sound of the style, wherever the style has played such a note.
- *ulyanov* [2]_: the song's frames are changed, by gradient descent, until a random convolution of them has the correlations that it has
  of the style's frames, and still looks like the song. The texture synthesis of images, on a spectrogram.
- *plain*: the autoencoder without views, the same DRAW shown the target itself in training. It learns to copy. It is a style file like
  any other (``train`` with no views) and is run like any other.
- *lstm2017*: the system of 2017, on its own terms: 4.41 kHz, 513 bins, a frame-wise VAE with LSTMs, ten rounds of Griffin–Lim.
- *ceiling*: the truth's own frames, brought back to sound with the song's phase: what the best possible canvas would score.
- *mp3*, *mild_eq*: the song's twins, itself after a lossy codec and after a gentle equaliser. Nobody would say that they lost a note. Where
  estimators of pitch and onsets read them otherwise than the song, the estimators err, and no result can be asked to keep more of a song.

Waveforms are ``(C, N)`` at 44.1 kHz and keep their shape; level is not matched, the metrics do that. ``style_audio`` is a sequence of
waveforms: training songs of the style, some seconds of each. What draws anything is deterministic given its seed.

References
----------
.. [1] J. Driedger, T. Prätzlich and M. Müller, "Let it Bee: Towards NMF-inspired audio mosaicing", ISMIR 2015.
.. [2] D. Ulyanov and V. Lebedev, "Audio texture synthesis and style transfer", 2016; evaluated by O. Cífka et al., "Self-supervised
   VQ-VAE for one-shot music style transfer", ICASSP 2021.
"""

from __future__ import annotations

import hashlib
import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from stylestream.features import FeatureConfig, LogFrequency, stft
from stylestream.sound import read_sound, write_sound

if TYPE_CHECKING:
    from stylestream.style import StyleData

Array = NDArray[np.floating]

FEATURES = FeatureConfig()
MP3_KBPS = 128
MILD_EQ_DB = 3.0  # up in the lows, down in the highs


def levelled(y: Array, config: FeatureConfig = FEATURES) -> Tensor:
    """Mono fold-down at ``config.loudness_lufs``: (C, N) → (N,). Silence stays silence."""
    from stylestream.audio import loudness

    mono = np.asarray(y, dtype=np.float32).mean(0, keepdims=True)
    level = loudness(mono, config.sample_rate)
    gain = 10 ** ((config.loudness_lufs - level) / 20) if math.isfinite(level) else 1.0
    return torch.from_numpy(mono[0] * np.float32(gain))


def _sounding(style_audio: Sequence[Array]) -> list[Array]:
    """The songs that have any sound; ValueError if there is none."""
    songs = [song for song in style_audio if np.size(song)]
    if not songs:
        raise ValueError("no sound of the style was given; pass waveforms of its training songs as style_audio")
    return songs


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
    songs = _sounding(style_audio)
    drawn = songs[int(_digest(y), 16) % len(songs)].mean(0)
    return np.repeat(np.resize(drawn, y.shape[-1])[None], y.shape[0], axis=0).astype(np.float32)


# --- kept on disk ------------------------------------------------------------------------------------------------------------------


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
        What else the result depends on: a hash of the code that makes it, of a model's file.

    Returns
    -------
    array [shape=(C, N), float32]
        24 bits, peak below full scale (a louder one is turned down); the first call returns what the next will read.
    """
    if cache is None:
        return make(*inputs, **settings)
    known = [_digest(value) for value in inputs if isinstance(value, bytes | np.ndarray | list | tuple)]
    path = Path(cache) / name / (_digest(repr((name, key, known, sorted(settings.items()))).encode()) + ".flac")
    if not path.is_file():
        began = time.process_time()
        y = make(*inputs, **settings)
        write_sound(path, y, comment=f"{time.process_time() - began:.3f} s")  # what it cost: see `costs`
    return read_sound(path)


def _digest(value: Any) -> str:
    """Hash of an array's samples, of bytes, or of a sequence of these."""
    if isinstance(value, list | tuple):
        value = "".join(_digest(inner) for inner in value).encode()
    if isinstance(value, np.ndarray):
        value = repr((value.shape, str(value.dtype))).encode() + np.ascontiguousarray(value).tobytes()
    return hashlib.sha256(value).hexdigest()[:32]


def costs(cache: str | Path) -> dict[str, tuple[int, float]]:
    """What the kept results cost when they were made: name → how many, and mean processor seconds of each."""
    import soundfile

    spent: dict[str, list[float]] = {}
    for path in sorted(Path(cache).glob("*/*.flac")):
        with soundfile.SoundFile(path) as file:
            spent.setdefault(path.parent.name, []).append(float(file.comment.removesuffix(" s") or 0))
    return {name: (len(seconds), sum(seconds) / len(seconds)) for name, seconds in spent.items()}


# --- twins -------------------------------------------------------------------------------------------------------------------------


def mp3(y: Array, sample_rate: int = 44100) -> Array:
    """The song through MP3 at 128 kbit/s and back: (C, N) → (C, N); of more than two channels the first stands for all."""
    import soundfile

    file = io.BytesIO()
    peak = max(float(np.abs(y).max(initial=0.0)), 1.0)
    settings: dict[str, Any] = {"bitrate_mode": "CONSTANT", "compression_level": _level(sample_rate)}
    soundfile.write(file, y[:2].T / peak, sample_rate, format="MP3", subtype="MPEG_LAYER_III", **settings)
    file.seek(0)
    back = soundfile.read(file, dtype="float32", always_2d=True)[0].T * np.float32(peak)
    aligned = np.pad(back[:, : y.shape[1]], ((0, 0), (0, max(0, y.shape[1] - back.shape[1]))))
    return aligned if aligned.shape[0] == y.shape[0] else np.repeat(aligned[:1], y.shape[0], axis=0)


def _level(sample_rate: int) -> float:
    """libsndfile's compression level, 0 to 1, of `MP3_KBPS`: it goes down from the highest bit rate of the layer to the lowest."""
    highest, lowest = (320, 32) if sample_rate >= 32000 else (160, 8)
    return (highest - MP3_KBPS) / (highest - lowest)


def mild_eq(y: Array, sample_rate: int = 44100) -> Array:
    """The song with 3 dB more below 200 Hz and 3 dB less above 4 kHz: shelves of first order, (C, N) → (C, N)."""
    from scipy.signal import lfilter

    for hz, gain_db in ((200.0, MILD_EQ_DB), (4000.0, -MILD_EQ_DB)):
        b, a = _shelf(hz, gain_db, sample_rate, low=hz < 1000)
        y = lfilter(b, a, y, axis=-1)
    return y.astype(np.float32)


def _shelf(hz: float, gain_db: float, sample_rate: int, *, low: bool) -> tuple[Array, Array]:
    """First-order shelf by the bilinear transform: of (s + G w) / (s + w) (low), or (G s + w) / (s + w) (high)."""
    gain, w = 10 ** (gain_db / 20), np.tan(np.pi * hz / sample_rate)
    b = np.array([1 + gain * w, gain * w - 1]) if low else np.array([gain + w, w - gain])
    return b / (1 + w), np.array([1.0, (w - 1) / (1 + w)])


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


# --- musaicing ---------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def musaicing(
    y: Array,
    style_audio: Sequence[Array],
    *,
    iterations: int = 10,
    repetition_frames: int = 3,
    polyphony: int = 10,
    continuity_frames: int = 3,
    style_seconds: float = 48.0,
    n_fft: int = 4096,
    hop_length: int = 1024,
    phase_rounds: int = 8,
    seed: int = 0,
) -> Array:
    """A song put together from frames of a style's sound.

    Parameters
    ----------
    y : array [shape=(C, N), 44.1 kHz]
    style_audio : sequence of array [shape=(C, M), 44.1 kHz]
        Songs of the style; the first ``style_seconds`` of all of them together are used.
    iterations, repetition_frames, polyphony, continuity_frames, seed
        See `activations`.
    phase_rounds : int
        Of fast Griffin–Lim, from the phase that the style's own frames add up to.

    Returns
    -------
    array [shape=(C, N)]

    Raises
    ------
    ValueError
        If there is no sound of the style.
    """
    songs = _sounding(style_audio)
    analysis = {"n_fft": n_fft, "hop_length": hop_length}
    target = stft(levelled(y), **analysis).abs()
    frames = torch.cat([stft(levelled(song), **analysis) for song in songs], dim=1)
    frames = frames[:, : max(1, round(style_seconds * FEATURES.sample_rate / hop_length))]
    limits = {"repetition_frames": repetition_frames, "polyphony": polyphony, "continuity_frames": continuity_frames}
    H = activations(target, frames.abs(), iterations=iterations, seed=seed, **limits)
    S = frames @ H.to(frames.dtype)
    return _sound_of(S, y, phase_rounds, **analysis)


def _sound_of(S: Tensor, y: Array, phase_rounds: int, **analysis: int) -> Array:
    from stylestream.vocoder import fast_griffin_lim

    sound = fast_griffin_lim(S.abs(), iterations=phase_rounds, phase=S.angle(), samples=y.shape[-1], **analysis)
    return np.repeat(sound.numpy()[None], y.shape[0], axis=0)


def activations(
    V: Tensor,
    W: Tensor,
    *,
    iterations: int = 10,
    repetition_frames: int = 3,
    polyphony: int = 10,
    continuity_frames: int = 3,
    seed: int = 0,
) -> Tensor:
    """Weights with which columns of W, kept as they are, add up to V: Kullback–Leibler updates under three restrictions.

    Each restriction weakens what it does not want by ``1 − round / iterations``, so that it is gentle at first and strict at last.

    Parameters
    ----------
    V : Tensor [shape=(F, T), ≥ 0]
        Magnitudes of the song.
    W : Tensor [shape=(F, M), ≥ 0]
        Magnitudes of the style's sound, frame after frame.
    repetition_frames : int
        A column may not sound again within so many frames: no stutter.
    polyphony : int
        Columns at once, before continuity is asked for.
    continuity_frames : int
        A column calls for so many of its neighbours before and after, in step: diagonals in the result, real passages in the sound.

    Returns
    -------
    Tensor [shape=(M, T), ≥ 0]
    """
    tiny = torch.finfo(V.dtype).tiny ** 0.5
    H = torch.rand(W.shape[1], V.shape[1], generator=torch.Generator().manual_seed(seed))
    total = W.sum(0)[:, None] + tiny
    for done in range(1, iterations + 1):
        weaker = 1 - done / iterations
        H = _without_repetition(H, repetition_frames, weaker)
        H = _without_crowds(H, polyphony, weaker)
        H = _with_continuity(H, continuity_frames)
        H = H * (W.mT @ (V / (W @ H + tiny))) / total
    return H


def _without_repetition(H: Tensor, frames: int, weaker: float) -> Tensor:
    largest = F.max_pool1d(H[None], 2 * frames + 1, stride=1, padding=frames)[0]
    return torch.where(largest == H, H, weaker * H)


def _without_crowds(H: Tensor, polyphony: int, weaker: float) -> Tensor:
    least = H.topk(min(polyphony, len(H)), dim=0).values[-1]
    return torch.where(least <= H, H, weaker * H)


def _with_continuity(H: Tensor, frames: int) -> Tensor:
    """Each value becomes the sum along its diagonal, ``frames`` before and after."""
    padded = F.pad(H, (frames, frames, frames, frames))
    rows, columns = H.shape
    return torch.stack([padded[i : i + rows, i : i + columns] for i in range(2 * frames + 1)]).sum(0)


# --- texture optimisation ----------------------------------------------------------------------------------------------------------


def ulyanov(
    y: Array,
    style_audio: Sequence[Array],
    *,
    style_weight: float = 3.0,  # more moves timbre no further and loses notes
    iterations: int = 30,
    filters: int = 512,
    kernel_frames: int = 11,
    seed: int = 0,
    config: FeatureConfig = FEATURES,
) -> Array:
    """A song whose spectrogram has the texture of a style's.

    The published method, on our frames and with our vocoder, so that only the method differs from the other rows; it starts from the
    song instead of noise, which a bounded number of rounds needs.

    Parameters
    ----------
    y : array [shape=(C, N), 44.1 kHz]
    style_audio : sequence of array [shape=(C, M), 44.1 kHz]
    style_weight : float ≥ 0
        Of the texture's relative error beside the content's.
    iterations : int
        Rounds of L-BFGS.
    filters, kernel_frames : int
        Of the random convolution over time; the rows of the frames are its channels.

    Returns
    -------
    array [shape=(C, N)]

    Raises
    ------
    ValueError
        If there is no sound of the style.
    """
    from stylestream.vocoder import Vocoder

    songs = _sounding(style_audio)
    features = LogFrequency(config)
    vocoder = Vocoder(features)
    song = vocoder.analyse(levelled(y, config)[None])
    kernel = random_kernel(config.n_bins, filters, kernel_frames, seed=seed)
    texture = torch.stack([gram(responses(features(levelled(style, config)), kernel)) for style in songs]).mean(0)
    x = textured(vocoder.frames(song), texture, kernel, style_weight=style_weight, iterations=iterations)
    return np.repeat(vocoder.synthesise(x, song).numpy(), y.shape[0], axis=0)


def random_kernel(n_bins: int, filters: int, kernel_frames: int, *, seed: int = 0) -> Tensor:
    """Weights (filters, n_bins, kernel_frames) of a convolution that nobody trained."""
    draw = torch.randn(filters, n_bins, kernel_frames, generator=torch.Generator().manual_seed(seed))
    return draw * 2 / math.sqrt((n_bins + filters) * kernel_frames)


def responses(x: Tensor, kernel: Tensor) -> Tensor:
    """Rectified convolution over time: (F, T) → (filters, T)."""
    return F.relu(F.conv1d(x[None], kernel, padding=kernel.shape[-1] // 2)[0])


def gram(f: Tensor) -> Tensor:
    """Which filters respond together, whenever that is: (filters, T) → (filters, filters), mean over time."""
    return f @ f.mT / f.shape[1]


def textured(x: Tensor, texture: Tensor, kernel: Tensor, *, style_weight: float, iterations: int) -> Tensor:
    """Frames near to ``x`` in their responses, and near to ``texture`` in which respond together: (F, T) → (F, T).

    Minimises |f − f_song|² / |f_song|² + style_weight · |G − texture|² / |texture|² by L-BFGS.
    """
    content = responses(x, kernel)
    sizes = content.square().sum() + 1e-12, texture.square().sum() + 1e-12
    found = x.clone(memory_format=torch.contiguous_format).requires_grad_()  # L-BFGS asks for it
    optimizer = torch.optim.LBFGS(
        [found], max_iter=iterations, max_eval=iterations + iterations // 4, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        f = responses(found, kernel)
        total = (f - content).square().sum() / sizes[0] + style_weight * (gram(f) - texture).square().sum() / sizes[1]
        total.backward()
        return total

    optimizer.step(loss)
    return found.detach().clamp(0, 1.1)


OF_STYLE_AUDIO: dict[str, Callable[[Array, Sequence[Array]], Array]] = {  # rows that are made of the song and sound of the style
    "random_piece": random_piece,
    "musaicing": musaicing,
    "ulyanov": ulyanov,
}


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
    """The model of a style file that ``stylestream train --model lstm2017`` wrote.

    Raises
    ------
    ValueError
        If it holds another model, or is damaged.
    """
    from stylestream.style import network_of_kind

    remedy = "train one with `stylestream train --model lstm2017`"
    return network_of_kind(data, "lstm2017", lambda **settings: Lstm2017(Lstm2017Config(**settings)), "this style file", remedy=remedy)


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
