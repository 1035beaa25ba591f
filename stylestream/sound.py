"""A song as the metrics hear it: mono, 44.1 kHz, −20 LUFS, with every spectrum computed once, when first asked for.

Conventions: levels are in dB re a full-scale sine; frame t of every spectrum is centred on sample 512 t; time is the last axis; outside
the song there are zeros. A song without a sample is a song: it has one frame of silence, and the metrics say so.

librosa comes with the extra ``[eval]`` and is imported when a spectrum first needs it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

SAMPLE_RATE = 44100
N_FFT = 2048
HOP_LENGTH = 512
N_MELS = 128
FMIN_HZ = 30.0
FMAX_HZ = 16000.0
FLOOR_DB = -80.0  # re a full-scale sine
LOUDNESS_LUFS = -20.0
ACTIVE_DB = 45.0  # a bin within this of the loudest one counts as sounding
C1_HZ = 440.0 * 2 ** ((24 - 69) / 12)
PITCHES = range(24, 109)  # C1 to C8; partials above the analysis count nothing
FRAMES_PER_SECOND = SAMPLE_RATE / HOP_LENGTH


def require_librosa() -> ModuleType:
    """The library librosa, or a ValueError that says how to get it."""
    try:
        import librosa
    except ModuleNotFoundError as error:
        raise ValueError("evaluation needs librosa: pip install 'stylestream[eval]'") from error
    return librosa


@dataclass(frozen=True, eq=False)
class Sound:
    """A song as the metrics hear it, with its spectra computed once, when first asked for.

    ``y`` is mono at 44.1 kHz, shape (N,).
    """

    y: Array

    @property
    def frames(self) -> int:
        """Frames of every spectrum: frame t is centred on sample 512 t."""
        return 1 + self.y.size // HOP_LENGTH

    def _padded(self, samples: int) -> Array:
        return np.pad(self.y, (0, max(0, samples - self.y.size)))

    @cached_property
    def power(self) -> Array:
        """STFT power (1025, T): a full-scale sine peaks at 1."""
        window = np.hanning(N_FFT + 1)[:-1] * (4.0 / N_FFT)  # Σ hann = n_fft / 2, and half the sine's energy is at −f
        S = require_librosa().stft(self._padded(N_FFT), n_fft=N_FFT, hop_length=HOP_LENGTH, window=window, pad_mode="constant")
        return np.abs(S[:, : self.frames]) ** 2

    @cached_property
    def log_mel(self) -> Array:
        """Mel spectrogram (128, T), 30 Hz–16 kHz, dB ≥ −80. Triangles of height 1: a full-scale sine reads −3 to +2 dB."""
        rows = require_librosa().filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=N_MELS, fmin=FMIN_HZ, fmax=FMAX_HZ, norm=None)
        return decibels(rows @ self.power)

    @cached_property
    def flux(self) -> Array:
        """Mean rise of the mel bins from frame to frame (T − 1,), dB ≥ 0."""
        return np.maximum(np.diff(self.log_mel, axis=1), 0).mean(0)

    @cached_property
    def onset_curve(self) -> Array:
        """The flux, one value a frame (T,): the rise up to that frame."""
        return np.concatenate([[0.0], self.flux])

    @cached_property
    def onset_seconds(self) -> Array:
        """Detected onsets (librosa's peak picking on the flux), seconds."""
        return require_librosa().onset.onset_detect(onset_envelope=self.onset_curve, sr=SAMPLE_RATE, hop_length=HOP_LENGTH, units="time")

    @cached_property
    def beats(self) -> tuple[float, Array]:
        """Tempo in beats a minute (0: none found) and the beats, seconds; librosa's dynamic programming on the flux."""
        if not self.onset_curve.any():
            return 0.0, np.zeros(0)
        curve = self.onset_curve
        tempo, beats = require_librosa().beat.beat_track(onset_envelope=curve, sr=SAMPLE_RATE, hop_length=HOP_LENGTH, units="time")
        return float(np.atleast_1d(tempo)[0]), beats

    @cached_property
    def constant_q(self) -> Array:
        """Constant-Q magnitude (324, T): nine octaves from C1, three rows a semitone, A4 = 440 Hz."""
        y = self._padded(2**18)  # long enough for the lowest octave's filters, which librosa applies to 1 sample in 256
        C = require_librosa().cqt(y, sr=SAMPLE_RATE, hop_length=HOP_LENGTH, fmin=C1_HZ, n_bins=324, bins_per_octave=36, tuning=0.0)
        return np.abs(C[:, : self.frames])

    @cached_property
    def chroma(self) -> Array:
        """Magnitude per pitch class (12, T), from the lower seven octaves."""
        C = self.constant_q[:252]
        return require_librosa().feature.chroma_cqt(C=C, bins_per_octave=36, fmin=C1_HZ, norm=None, tuning=0.0)

    @cached_property
    def salience(self) -> Array:
        """Harmonic-sum salience of every semitone in `PITCHES` (len(PITCHES), T), dimensionless ≥ 0."""
        return salience(self.constant_q)

    @cached_property
    def pitches(self) -> NDArray[np.bool_]:
        """Notes heard at every frame, (len(PITCHES), T), by `multipitch`."""
        return multipitch(self.constant_q)

    @property
    def silent(self) -> bool:
        """Nothing above the floor."""
        return self.y.size == 0 or bool(self.log_mel.max() <= FLOOR_DB)

    @property
    def sounding(self) -> NDArray[np.bool_]:
        """Frames (T,) within 45 dB of the loudest."""
        level = self.log_mel.max(0)
        return (level > FLOOR_DB) & (level > level.max() - ACTIVE_DB)


def decibels(power: Array, *, floor_db: float = FLOOR_DB) -> Array:
    """Power → dB, not below the floor.

    >>> decibels(np.array([1.0, 0.01, 0.0]))
    array([  0., -20., -80.])
    """
    return 10 * np.log10(np.maximum(power, 10 ** (floor_db / 10)))


def prepare(y: Array, sample_rate: int = SAMPLE_RATE) -> Sound:
    """A song as the metrics hear it: folded down to mono, 44.1 kHz, loudness −20 LUFS after ITU-R BS.1770-4 (silence stays silence).

    Parameters
    ----------
    y : array [shape=(C, N) or (N,), in [−1, 1]]
        Without a sample it is a silent song, with a warning.
    sample_rate : int [Hz]

    Raises
    ------
    ValueError
        If a sample is not finite.
    """
    from stylestream.audio import loudness

    mono = np.atleast_2d(np.asarray(y, dtype=np.float64)).mean(0)  # mean, not the sum: a fold-down must not clip
    if mono.size == 0:
        warnings.warn("a song without a sample: it is measured as silence", stacklevel=2)
        return Sound(mono)
    if not np.isfinite(mono).all():
        raise ValueError("the song has samples that are not finite (NaN or Inf)")
    if sample_rate != SAMPLE_RATE:
        import soxr

        mono = soxr.resample(mono, sample_rate, SAMPLE_RATE)
    level_lufs = loudness(mono[None], SAMPLE_RATE)
    return Sound(mono * 10 ** ((LOUDNESS_LUFS - level_lufs) / 20) if math.isfinite(level_lufs) else mono)


def matched(reference: Sound, estimate: Sound) -> tuple[Sound, Sound]:
    """Both cut to the length of the shorter; more than a frame of difference is warned about. No sample at all counts as silence."""
    if reference.y.size == estimate.y.size:
        return reference, estimate
    if not reference.y.size or not estimate.y.size:
        return _as_long(reference, estimate), _as_long(estimate, reference)
    n = min(reference.y.size, estimate.y.size)
    if abs(reference.y.size - estimate.y.size) > HOP_LENGTH:
        warnings.warn(f"lengths differ ({reference.y.size} and {estimate.y.size} samples); the first {n} are compared", stacklevel=2)
    return Sound(reference.y[:n]), Sound(estimate.y[:n])


def _as_long(empty: Sound, other: Sound) -> Sound:
    return empty if empty.y.size else Sound(np.zeros_like(other.y))


# --- pitch -------------------------------------------------------------------------------------------------------------------------


def _semitones(constant_q: Array) -> Array:
    """Spectral peaks by semitone from C1 (108, T), compressed by a square root, so that soft notes under loud ones count."""
    from scipy.ndimage import maximum_filter1d

    C = np.sqrt(constant_q)
    peaks = np.where(maximum_filter1d(C, 3, axis=0, mode="constant") == C, C, 0)
    return maximum_filter1d(peaks, 3, axis=0, mode="constant")[::3]  # a third of a semitone out of tune is still the note


def _partial_rows(harmonic: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """For every pitch the semitone of its partial, and whether the analysis reaches it."""
    rows = np.arange(len(PITCHES)) + round(12 * math.log2(harmonic))
    return rows, rows < 108


def _harmonic_sum(semitones: Array, harmonics: Sequence[int]) -> Array:
    total = np.zeros((len(PITCHES), semitones.shape[1]))
    for harmonic in harmonics:
        rows, there = _partial_rows(harmonic)
        total[there] += 0.8 ** (harmonic - 1) * semitones[rows[there]]
    return total


def salience(constant_q: Array, *, harmonics: Sequence[int] = (1, 2, 3, 4, 5)) -> Array:
    """How much each semitone of `PITCHES` stands out, frame by frame: a weighted sum over its partials.

    The spectrum is compressed by a square root, so that soft notes under loud ones count, and only its local maxima are kept;
    partial h weighs 0.8^(h − 1).

    Parameters
    ----------
    constant_q : array [shape=(324, T), ≥ 0]
        Three rows a semitone from C1.

    Returns
    -------
    array [shape=(len(PITCHES), T), ≥ 0]

    References
    ----------
    .. [1] A. Klapuri, "Multiple fundamental frequency estimation by summing harmonic amplitudes", ISMIR 2006.
    """
    return _harmonic_sum(_semitones(constant_q), harmonics)


def multipitch(constant_q: Array, *, voices: int = 8, relative: float = 0.4, active_db: float = ACTIVE_DB) -> NDArray[np.bool_]:
    """Which notes sound, frame by frame: the most salient pitch is taken, its partials are taken out, and so on.

    Parameters
    ----------
    constant_q : array [shape=(324, T), ≥ 0]
        Three rows a semitone from C1.
    voices : int
        Notes a frame at most.
    relative : float in (0, 1]
        A note's salience re that of the first note of its frame, at least.
    active_db : float [dB]
        A note whose fundamental is further below the loudest bin of the song does not count.

    Returns
    -------
    array [shape=(len(PITCHES), T), bool]

    References
    ----------
    .. [1] A. Klapuri, "Multiple fundamental frequency estimation by summing harmonic amplitudes", ISMIR 2006 (the iterative variant).
    """
    from scipy.ndimage import median_filter

    left = _semitones(constant_q)
    heard = np.zeros((len(PITCHES), left.shape[1]), dtype=bool)
    quiet = left.max(initial=0.0) * 10 ** (-active_db / 40)  # half the decibels: the square root
    least: Array | float = 0.0
    for _ in range(voices):
        found, value = _most_salient(left, quiet)
        least = relative * value if not heard.any() else least
        found &= (value > 0) & (value >= least)
        heard |= found
        left = _without(left, found)
    return median_filter(heard.astype(np.uint8), size=(1, 5), mode="nearest").astype(bool)  # 58 ms: shorter is no note


def _most_salient(semitones: Array, quiet: float) -> tuple[NDArray[np.bool_], Array]:
    """The first pitch of every frame, one-hot (pitches, T), and its salience (T,); its fundamental must be there."""
    S = np.where(semitones[: len(PITCHES)] > quiet, _harmonic_sum(semitones, range(1, 9)), 0.0)
    value = S.max(0)
    return np.arange(len(PITCHES))[:, None] == S.argmax(0), value


def _without(semitones: Array, found: NDArray[np.bool_]) -> Array:
    """The spectrum less the found notes: the fundamental whole, partial h as far as 0.5^(h − 1) of it, for it may be another's."""
    left = semitones.copy()
    first = np.where(found, semitones[: len(PITCHES)], 0.0)
    for harmonic in range(1, 9):
        rows, there = _partial_rows(harmonic)
        left[rows[there]] -= first[there] * 0.5 ** (harmonic - 1)
    return np.maximum(left, 0.0)


def write_sound(path: Path, y: Array, *, comment: str = "") -> None:
    """Keep a waveform (C, N) at 44.1 kHz: 24 bits under full scale, which a metric's floor of −80 dB cannot hear."""
    import soundfile

    from stylestream.files import whole_file

    path.parent.mkdir(parents=True, exist_ok=True)
    quieter = min(1.0, 0.99 / max(float(np.abs(y).max(initial=0.0)), 1e-9))
    with whole_file(path) as temporary, soundfile.SoundFile(temporary, "w", SAMPLE_RATE, len(y), "PCM_24", format="FLAC") as file:
        if comment:
            file.comment = comment
        file.write((y * quieter).T)


def read_sound(path: Path) -> Array:
    """A waveform (C, N) that `write_sound` wrote."""
    import soundfile

    return soundfile.read(path, dtype="float32", always_2d=True)[0].T
