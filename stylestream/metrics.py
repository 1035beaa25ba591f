"""Two songs → numbers: how far a result is from the truth, in timbre, pitch, rhythm and texture.

Conventions: the reference (truth) comes first, the estimate (result) second; both are `Sound`s made by `prepare`: mono, 44.1 kHz,
−20 LUFS, so that no metric is won by level or by panning. Levels are in dB re a full-scale sine; time is the last axis. Equal
sounds score perfectly. Silence where a metric needs sound gives NaN with a warning, and NaN is reported, never averaged away.

=============================  =======  ========  ==================================================================
key                            perfect  unit      what it hears
=============================  =======  ========  ==================================================================
``log_mel_l1``                 0        dB        everything but phase: the headline
``lsd``                        0        dB        everything but phase, bin by bin, outliers weigh more
``mfcc``                       0                  timbre: the long-term spectral envelope
``centroid``                   0        semitone  brightness
``chroma``                     1                  harmony
``note_auc``                   truth's            pitch: do the notes of the score stand out
``flux``                       1                  rhythm: do levels rise at the same moments
``modulation_2_5`` … ``20_43`` 0        dB        texture: below 0 is blur, above 0 is ripple or roughness
``onset_f1``                   truth's            attacks at the onsets of the score
=============================  =======  ========  ==================================================================

librosa and mir_eval come with the extra ``[eval]`` and are imported when a metric first needs them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
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
MODULATION_HZ = ((2.0, 5.0), (5.0, 10.0), (10.0, 20.0), (20.0, 43.0))
C1_HZ = 440.0 * 2 ** ((24 - 69) / 12)
PITCHES = range(24, 109)  # C1 to C8; partials above the analysis count nothing
FRAMES_PER_SECOND = SAMPLE_RATE / HOP_LENGTH


def _librosa() -> ModuleType:
    try:
        import librosa
    except ModuleNotFoundError as error:
        raise ValueError("evaluation needs librosa: pip install 'stylestream[eval]'") from error
    return librosa


def _mir_eval_onset() -> ModuleType:
    try:
        import mir_eval.onset
    except ModuleNotFoundError as error:
        raise ValueError("evaluation needs mir_eval: pip install 'stylestream[eval]'") from error
    return mir_eval.onset


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
        S = _librosa().stft(self._padded(N_FFT), n_fft=N_FFT, hop_length=HOP_LENGTH, window=window, pad_mode="constant")
        return np.abs(S[:, : self.frames]) ** 2

    @cached_property
    def log_mel(self) -> Array:
        """Mel spectrogram (128, T), 30 Hz–16 kHz, dB ≥ −80. Triangles of height 1: a full-scale sine reads −3 to +2 dB."""
        rows = _librosa().filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=N_MELS, fmin=FMIN_HZ, fmax=FMAX_HZ, norm=None)
        return decibels(rows @ self.power)

    @cached_property
    def flux(self) -> Array:
        """Mean rise of the mel bins from frame to frame (T − 1,), dB ≥ 0."""
        return np.maximum(np.diff(self.log_mel, axis=1), 0).mean(0)

    @cached_property
    def constant_q(self) -> Array:
        """Constant-Q magnitude (324, T): nine octaves from C1, three rows a semitone, A4 = 440 Hz."""
        y = self._padded(2**18)  # long enough for the lowest octave's filters, which librosa applies to 1 sample in 256
        C = _librosa().cqt(y, sr=SAMPLE_RATE, hop_length=HOP_LENGTH, fmin=C1_HZ, n_bins=324, bins_per_octave=36, tuning=0.0)
        return np.abs(C[:, : self.frames])

    @cached_property
    def chroma(self) -> Array:
        """Magnitude per pitch class (12, T), from the lower seven octaves."""
        C = self.constant_q[:252]
        return _librosa().feature.chroma_cqt(C=C, bins_per_octave=36, fmin=C1_HZ, norm=None, tuning=0.0)

    @cached_property
    def salience(self) -> Array:
        """Harmonic-sum salience of every semitone in `PITCHES` (len(PITCHES), T), dimensionless ≥ 0."""
        return salience(self.constant_q)

    @property
    def silent(self) -> bool:
        """Nothing above the floor."""
        return self.y.size == 0 or bool(self.log_mel.max() <= FLOOR_DB)


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
    sample_rate : int [Hz]

    Raises
    ------
    ValueError
        If there is no sample, or one is not finite.
    """
    from stylestream.audio import loudness

    mono = np.atleast_2d(np.asarray(y, dtype=np.float64)).mean(0)  # mean, not the sum: a fold-down must not clip
    if mono.size == 0:
        raise ValueError("no samples to measure")
    if not np.isfinite(mono).all():
        raise ValueError("the song has samples that are not finite (NaN or Inf)")
    if sample_rate != SAMPLE_RATE:
        import soxr

        mono = soxr.resample(mono, sample_rate, SAMPLE_RATE)
    level_lufs = loudness(mono[None], SAMPLE_RATE)
    return Sound(mono * 10 ** ((LOUDNESS_LUFS - level_lufs) / 20) if math.isfinite(level_lufs) else mono)


def matched(reference: Sound, estimate: Sound) -> tuple[Sound, Sound]:
    """Both cut to the length of the shorter; more than a frame of difference is warned about."""
    n = min(reference.y.size, estimate.y.size)
    if reference.y.size == estimate.y.size:
        return reference, estimate
    if abs(reference.y.size - estimate.y.size) > HOP_LENGTH:
        warnings.warn(f"lengths differ ({reference.y.size} and {estimate.y.size} samples); the first {n} are compared", stacklevel=2)
    return Sound(reference.y[:n]), Sound(estimate.y[:n])


def _nan(metric: str, reason: str) -> float:
    warnings.warn(f"{metric}: {reason}; the value is NaN", stacklevel=3)
    return math.nan


def log_mel_l1(reference: Sound, estimate: Sound) -> float:
    """Mean absolute difference of the log-mel spectrograms, dB.

    Every mel bin of every frame weighs the same, down to −80 dB, so reverberation, noise and gaps between notes count. 0 is
    the same sound; two unrelated songs are about 10 dB apart.

    References
    ----------
    .. [1] J. Engel et al., "DDSP: Differentiable digital signal processing", ICLR 2020, uses the same distance on several STFTs.
    """
    return float(np.abs(reference.log_mel - estimate.log_mel).mean())


def lsd(reference: Sound, estimate: Sound) -> float:
    """Log-spectral distance, dB: mean over frames of the root mean square over STFT bins.

    References
    ----------
    .. [1] A. H. Gray and J. D. Markel, "Distance measures for speech processing", IEEE Trans. ASSP 24(5), 1976.
    """
    difference = decibels(reference.power) - decibels(estimate.power)
    return float(np.sqrt((difference**2).mean(0)).mean())


def mfcc_distance(reference: Sound, estimate: Sound, *, n_mfcc: int = 20) -> float:
    """Euclidean distance of the time means of the mel-frequency cepstra.

    Coefficients 1 to ``n_mfcc − 1`` of the orthonormal cosine transform of the log-mel in dB: the long-term envelope. Coefficient 0
    is level, which is matched already, and is left out.

    References
    ----------
    .. [1] S. B. Davis and P. Mermelstein, "Comparison of parametric representations for monosyllabic word recognition",
       IEEE Trans. ASSP 28(4), 1980.
    """
    return float(np.linalg.norm(_mean_mfcc(reference, n_mfcc) - _mean_mfcc(estimate, n_mfcc)))


def _mean_mfcc(sound: Sound, n_mfcc: int) -> Array:
    from scipy.fft import dct

    return dct(sound.log_mel.mean(1), type=2, norm="ortho")[1:n_mfcc]


def centroid_difference(reference: Sound, estimate: Sound) -> float:
    """Distance of the spectral centroids, semitones ≥ 0: how much brighter or darker.

    The centroid is the mean frequency weighted by magnitude, over the whole song.

    References
    ----------
    .. [1] G. Peeters et al., "The Timbre Toolbox", J. Acoust. Soc. Am. 130(5), 2011.
    """
    if reference.silent or estimate.silent:
        return _nan("centroid", "a song is silent")
    return abs(12 * math.log2(_centroid_hz(estimate) / _centroid_hz(reference)))


def _centroid_hz(sound: Sound) -> float:
    magnitude = np.sqrt(sound.power).sum(1)
    return float((np.arange(magnitude.size) * SAMPLE_RATE / N_FFT) @ magnitude / magnitude.sum())


def chroma_cosine(reference: Sound, estimate: Sound) -> float:
    """Mean over frames of the cosine between the chroma vectors, 0 to 1, over the frames where the reference sounds.

    References
    ----------
    .. [1] M. Müller, "Fundamentals of Music Processing", Springer 2015, §3.1.
    """
    sounding = _sounding(reference)
    if not sounding.any() or estimate.silent:
        return _nan("chroma", "a song is silent")
    a, b = reference.chroma[:, : sounding.size][:, sounding], estimate.chroma[:, : sounding.size][:, sounding]
    product = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    return float(((a * b).sum(0) / np.maximum(product, 1e-12)).mean())


def _sounding(sound: Sound) -> NDArray[np.bool_]:
    level = sound.log_mel.max(0)
    return (level > FLOOR_DB) & (level > level.max() - ACTIVE_DB)


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
    from scipy.ndimage import maximum_filter1d

    C = np.sqrt(constant_q)
    peaks = np.where(maximum_filter1d(C, 3, axis=0, mode="constant") == C, C, 0)
    semitone = maximum_filter1d(peaks, 3, axis=0, mode="constant")  # a third of a semitone out of tune is still the note
    total = np.zeros((len(PITCHES), C.shape[1]))
    for harmonic in harmonics:
        rows = 3 * np.arange(len(PITCHES)) + round(36 * math.log2(harmonic))
        there = rows < len(semitone)
        total[there] += 0.8 ** (harmonic - 1) * semitone[rows[there]]
    return total


def piano_roll(notes: NDArray[np.void], frames: int) -> NDArray[np.bool_]:
    """Sounding notes at every frame's centre, shape (len(PITCHES), frames).

    Parameters
    ----------
    notes : structured array
        ``onset_seconds``, ``offset_seconds``, ``pitch``, ``drum`` (see ``midi.notes``), relative to the first sample. Drums are left out.
    """
    roll = np.zeros((len(PITCHES), frames), dtype=bool)
    for note in notes:
        row = int(note["pitch"]) - PITCHES.start
        if note["drum"] or not 0 <= row < len(PITCHES):
            continue
        start, stop = (math.ceil(note[key] * FRAMES_PER_SECOND) for key in ("onset_seconds", "offset_seconds"))
        roll[row, max(0, start) : max(0, stop)] = True
    return roll


def note_auc(sound: Sound, notes: NDArray[np.void]) -> float:
    """Area under the ROC curve of salience for "this semitone is sounding", mean over frames, 0 to 1; 0.5 is chance.

    In each frame: the probability that a note of the score is more salient than a semitone that is not in the score. Read it
    against the same estimator's value on the truth.

    References
    ----------
    .. [1] J. Salamon and E. Gómez, "Melody extraction from polyphonic music signals using pitch contour characteristics",
       IEEE TASLP 20(6), 2012.
    .. [2] T. Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27, 2006.
    """
    from scipy.stats import rankdata

    S = sound.salience
    roll = piano_roll(notes, S.shape[1])
    some = roll.any(0) & ~roll.all(0)
    if not some.any():
        return _nan("note_auc", "no note is sounding")
    S, roll = S[:, some], roll[:, some]
    positive = roll.sum(0)
    ranks = rankdata(S, axis=0)  # Mann–Whitney: the rank sum of the notes counts the pairs they win
    wins = (ranks * roll).sum(0) - positive * (positive + 1) / 2
    return float((wins / (positive * (len(PITCHES) - positive))).mean())


def flux_correlation(reference: Sound, estimate: Sound) -> float:
    """Pearson correlation of the two curves of spectral flux, −1 to 1: do levels rise at the same moments.

    References
    ----------
    .. [1] S. Böck and G. Widmer, "Maximum filter vibrato suppression for onset detection", DAFx 2013 (log-mel flux).
    """
    a, b = reference.flux, estimate.flux
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return _nan("flux", "nothing ever rises in one of the songs")
    return float(np.corrcoef(a, b)[0, 1])


def modulation_difference(reference: Sound, estimate: Sound) -> dict[str, float]:
    """Power of the level fluctuations of the reference's active bins, estimate re reference, dB, by modulation rate.

    Every mel bin's level in dB is a curve over time; it is split into the bands of `MODULATION_HZ`, and the power of each is taken
    over the bins within 45 dB of the reference's loudest. Below 0 the estimate is blurred, above 0 it ripples.

    Returns
    -------
    dict
        ``modulation_2_5``, ``modulation_5_10``, ``modulation_10_20``, ``modulation_20_43``.

    References
    ----------
    .. [1] S. Greenberg and B. Kingsbury, "The modulation spectrogram", ICASSP 1997.
    """
    keys = [f"modulation_{low:.0f}_{high:.0f}" for low, high in MODULATION_HZ]
    if reference.silent:
        return dict.fromkeys(keys, _nan("modulation", "the reference is silent"))
    active = reference.log_mel > reference.log_mel.max() - ACTIVE_DB
    ours, theirs = _modulation(estimate.log_mel, active), _modulation(reference.log_mel, active)
    return {key: 10 * math.log10((a + 1e-9) / (b + 1e-9)) for key, a, b in zip(keys, ours, theirs, strict=True)}


def _modulation(level: Array, active: NDArray[np.bool_]) -> list[float]:
    spectrum = np.fft.rfft(level - level.mean(1, keepdims=True), axis=1)
    hz = np.fft.rfftfreq(level.shape[1], 1 / FRAMES_PER_SECOND)
    bands = ((low <= hz) & (hz < high) for low, high in MODULATION_HZ)
    return [float((np.fft.irfft(spectrum * band, n=level.shape[1], axis=1)[active] ** 2).mean()) for band in bands]


def onset_f1(sound: Sound, notes: NDArray[np.void], *, window_seconds: float = 0.05) -> float:
    """F-measure of detected onsets against the onsets of the score, 0 to 1.

    Notes of a chord are one onset. The detector cannot hear slow attacks (true strings score 0.3 to 0.4): read it against the
    truth's own value.

    References
    ----------
    .. [1] C. Raffel et al., "mir_eval: A transparent implementation of common MIR metrics", ISMIR 2014.
    .. [2] S. Böck, F. Krebs and M. Schedl, "Evaluating the online capabilities of onset detection methods", ISMIR 2012 (peak picking).
    """
    onsets = _distinct(np.sort(notes["onset_seconds"][notes["onset_seconds"] >= 0]), window_seconds / 2)
    onsets = onsets[onsets < sound.y.size / SAMPLE_RATE]
    if not onsets.size:
        return _nan("onset_f1", "the score has no onset")
    envelope = np.concatenate([[0.0], sound.flux])
    found = _librosa().onset.onset_detect(onset_envelope=envelope, sr=SAMPLE_RATE, hop_length=HOP_LENGTH, units="time")
    if not found.size:
        return 0.0
    return float(_mir_eval_onset().f_measure(onsets, found, window=window_seconds)[0])


def _distinct(onsets: Array, gap_seconds: float) -> Array:
    kept: list[float] = []
    for onset in onsets:
        if not kept or onset - kept[-1] > gap_seconds:
            kept.append(float(onset))
    return np.array(kept)


def compare(reference: Sound, estimate: Sound, notes: NDArray[np.void] | None = None) -> dict[str, float]:
    """All metrics of one result against the truth.

    Parameters
    ----------
    reference, estimate : Sound
        From `prepare`.
    notes : structured array, optional
        The known notes (``midi.notes``), in seconds from the first sample; without them there is no ``note_auc`` and no ``onset_f1``.
    """
    reference, estimate = matched(reference, estimate)
    scores = {
        "log_mel_l1": log_mel_l1(reference, estimate),
        "lsd": lsd(reference, estimate),
        "mfcc": mfcc_distance(reference, estimate),
        "centroid": centroid_difference(reference, estimate),
        "chroma": chroma_cosine(reference, estimate),
        "flux": flux_correlation(reference, estimate),
        **modulation_difference(reference, estimate),
    }
    if notes is not None:
        scores["note_auc"] = note_auc(estimate, notes)
        scores["onset_f1"] = onset_f1(estimate, notes)
    return scores
