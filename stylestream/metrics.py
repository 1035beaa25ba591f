"""Two songs → numbers: how far a result is from the truth, in timbre, pitch, rhythm and texture; and two sets of songs → numbers.

Conventions: the reference (truth) comes first, the estimate (result) second; both are `Sound`s made by `prepare`: mono, 44.1 kHz,
−20 LUFS, so that no metric is won by level or by panning. The few that are about level and samples take waveforms (C, N) instead.
Levels are in dB re a full-scale sine; time is the last axis.

Equal sounds score perfectly. A song without a sample counts as silence of the other's length. Silence is warned about, and scores 0 where
higher is better; a distance from it is to the floor of the metric, or, where that is not defined, NaN (0 would be perfect), and 0 between
two silences. NaN is reported, never averaged away.

===================================  =======  ========  ==================================================================
key                                  perfect  unit      what it hears
===================================  =======  ========  ==================================================================
``log_mel_l1``                       0        dB        everything but phase: the headline
``lsd``                              0        dB        everything but phase, bin by bin, outliers weigh more
``lsd_16k``                          0        dB        the same below 8 kHz, as published for ss-vq-vae
``mr_stft``                          0                  everything but phase, on three windows: attacks and pitch alike
``mfcc``                             0                  timbre: the long-term spectral envelope
``centroid``                         0        semitone  brightness
``chroma``                           1                  harmony
``cqt_pcc``                          1                  which notes, and how loud, over all bins and frames at once
``note_auc``                         truth's            pitch: do the notes of the score stand out
``frame_f1``, ``frame_jaccard``      truth's            pitch: are the notes heard those of the score
``flux``                             1                  rhythm: do levels rise at the same moments
``onset_f1``                         truth's            attacks at the onsets of the score
``tempo``, ``beat_f1``               1                  the same tempo; the same beats
``modulation_2_5`` … ``20_43``       0        dB        texture: below 0 is blur, above 0 is ripple or roughness
``roughness_time``, ``_frequency``   0        dB        texture: fine structure from frame to frame, from band to band
``judge_auc``                        0.5                of two sets: does anything give all results away
``frechet_distance``                 0                  of two sets: where their embeddings lie (`timbre.embeddings`), as Gaussians
``kernel_distance``                  0                  of two sets: the same, of any shape; two sets of the style need no truth
===================================  =======  ========  ==================================================================

What single pairs cannot show, sets can: a result may be near its truth and still have something that gives every result away. Sets come
as sequences, truths first; embeddings as rows (n, d).

librosa, mir_eval and scikit-learn come with the extra ``[eval]`` and are imported when a metric first needs them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylestream.sound import (
    ACTIVE_DB,
    FLOOR_DB,
    FRAMES_PER_SECOND,
    HOP_LENGTH,
    PITCHES,
    SAMPLE_RATE,
    Array,
    Sound,
    decibels,
    matched,
    prepare,
    require_librosa,
)

__all__ = [
    "ACTIVE_DB",
    "FLOOR_DB",
    "FRAMES_PER_SECOND",
    "HOP_LENGTH",
    "PITCHES",
    "SAMPLE_RATE",
    "Sound",
    "beat_agreement",
    "centroid_difference",
    "chroma_cosine",
    "compare",
    "cqt_pcc",
    "decibels",
    "flux_correlation",
    "frame_f1",
    "frame_jaccard",
    "frechet_distance",
    "judge_auc",
    "kernel_distance",
    "log_mel_l1",
    "loudness_error",
    "lsd",
    "lsd_16k",
    "matched",
    "mfcc_distance",
    "modulation_difference",
    "mr_stft",
    "note_auc",
    "onset_agreement",
    "onset_f1",
    "patch_numbers",
    "patches_auc",
    "piano_roll",
    "pitch_agreement",
    "pitch_scores",
    "prepare",
    "roughness_difference",
    "seam_difference",
    "seam_energy",
    "true_peak_error",
]

MODULATION_HZ = ((2.0, 5.0), (5.0, 10.0), (10.0, 20.0), (20.0, 43.0))
PATCH_FRAMES = 43  # what the judge hears at once, half a second: long enough for a texture, short enough for many of them
RESOLUTIONS = ((2048, 551, 1102), (4096, 1102, 2205), (1024, 220, 441))  # of mr_stft: n_fft, hop_length, win_length: 25, 50 and 10 ms


def _mir_eval() -> ModuleType:
    try:
        import mir_eval
    except ModuleNotFoundError as error:
        raise ValueError("evaluation needs mir_eval: pip install 'stylestream[eval]'") from error
    return mir_eval


def _zero(metric: str, reason: str) -> float:
    """The score of an agreement that there is nothing to agree on."""
    warnings.warn(f"{metric}: {reason}; it scores 0", stacklevel=3)
    return 0.0


def _from_silence(metric: str, reference: Sound, estimate: Sound) -> float:
    """A distance to or from silence where that has no value: NaN, since 0 would be perfect; 0 between two silences."""
    both = reference.silent and estimate.silent
    what = "both songs are silent; it is 0" if both else f"the {'reference' if reference.silent else 'estimate'} is silent; it is NaN"
    warnings.warn(f"{metric}: {what}", stacklevel=3)
    return 0.0 if both else math.nan


def _say_silence(metric: str, reference: Sound, estimate: Sound) -> None:
    """A distance that is a number from silence too: how far from the floor the other one is."""
    silent = [name for name, sound in (("reference", reference), ("estimate", estimate)) if sound.silent]
    if silent:
        what = "both songs are silent; it is 0" if len(silent) > 1 else f"the {silent[0]} is silent; it is the distance to silence"
        warnings.warn(f"{metric}: {what}", stacklevel=3)


# --- spectra -----------------------------------------------------------------------------------------------------------------------


def log_mel_l1(reference: Sound, estimate: Sound) -> float:
    """Mean absolute difference of the log-mel spectrograms, dB ≥ 0.

    Every mel bin of every frame weighs the same, down to −80 dB, so reverberation, noise and gaps between notes count. 0 is
    the same sound; two unrelated songs are about 10 dB apart.

    References
    ----------
    .. [1] J. Engel et al., "DDSP: Differentiable digital signal processing", ICLR 2020, uses the same distance on several STFTs.
    """
    _say_silence("log_mel_l1", reference, estimate)
    return float(np.abs(reference.log_mel - estimate.log_mel).mean())


def lsd(reference: Sound, estimate: Sound) -> float:
    """Log-spectral distance, dB ≥ 0: mean over frames of the root mean square over STFT bins.

    References
    ----------
    .. [1] A. H. Gray and J. D. Markel, "Distance measures for speech processing", IEEE Trans. ASSP 24(5), 1976.
    """
    _say_silence("lsd", reference, estimate)
    difference = decibels(reference.power) - decibels(estimate.power)
    return float(np.sqrt((difference**2).mean(0)).mean())


def lsd_16k(reference: Sound, estimate: Sound) -> float:
    """Log-spectral distance as published for one-shot timbre transfer, dB ≥ 0, for comparison with that literature.

    At 16 kHz and unit power: 128 mel bands in dB, at most 80 dB below the loudest; root mean square over time in each band, then the
    mean over bands. Silence is 0 dB below itself, so it is only near to silence.

    References
    ----------
    .. [1] O. Cífka, A. Ozerov, U. Şimşekli and G. Richard, "Self-supervised VQ-VAE for one-shot music style transfer", ICASSP 2021:
       12.16 dB there for the system, 14.62 dB for copying the song.
    """
    _say_silence("lsd_16k", reference, estimate)
    difference = _mel_16k(reference) - _mel_16k(estimate)
    return float(np.sqrt((difference**2).mean(1)).mean())


def _mel_16k(sound: Sound) -> Array:
    import soxr

    y = soxr.resample(np.pad(sound.y, (0, max(0, 4096 - sound.y.size))), SAMPLE_RATE, 16000)
    unit = y / (np.sqrt((y**2).mean()) + np.finfo(np.float32).eps)
    librosa = require_librosa()
    return librosa.power_to_db(librosa.feature.melspectrogram(y=unit, sr=16000, n_mels=128), top_db=80.0)


def mr_stft(reference: Sound, estimate: Sound, *, floor: float = 1e-7) -> float:
    """Multi-resolution STFT distance, ≥ 0: spectral convergence + mean absolute difference of log magnitudes (nepers), mean of three.

    The windows are as long in seconds as those of the literature, whose vocoders ran at 24 kHz, and overlap by half. Long windows hear
    pitch, short ones hear attacks.

    Parameters
    ----------
    floor : float > 0 [re a full-scale sine's power]
        A bin below it counts as this.

    References
    ----------
    .. [1] R. Yamamoto, E. Song and J.-M. Kim, "Parallel WaveGAN", ICASSP 2020.
    """
    _say_silence("mr_stft", reference, estimate)
    return float(np.mean([_stft_distance(reference, estimate, floor, *sizes) for sizes in RESOLUTIONS]))


def _stft_distance(reference: Sound, estimate: Sound, floor: float, *sizes: int) -> float:
    a, b = (np.maximum(_magnitude(sound, *sizes), floor**0.5) for sound in (reference, estimate))
    return float(np.linalg.norm(a - b) / np.linalg.norm(a) + np.abs(np.log(a / b)).mean())


def _magnitude(sound: Sound, n_fft: int, hop_length: int, win_length: int) -> Array:
    y = np.pad(sound.y, (0, max(0, n_fft - sound.y.size))).astype(np.float32)
    S = require_librosa().stft(y, n_fft=n_fft, hop_length=hop_length, win_length=win_length, pad_mode="constant")
    return np.abs(S) * np.float32(4.0 / win_length)


# --- timbre ------------------------------------------------------------------------------------------------------------------------


def mfcc_distance(reference: Sound, estimate: Sound, *, n_mfcc: int = 20) -> float:
    """Euclidean distance of the time means of the mel-frequency cepstra.

    Coefficients 1 to ``n_mfcc − 1`` of the orthonormal cosine transform of the log-mel in dB: the long-term envelope. Coefficient 0
    is level, which is matched already, and is left out.

    References
    ----------
    .. [1] S. B. Davis and P. Mermelstein, "Comparison of parametric representations for monosyllabic word recognition",
       IEEE Trans. ASSP 28(4), 1980.
    """
    _say_silence("mfcc", reference, estimate)
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
        return _from_silence("centroid", reference, estimate)
    return abs(12 * math.log2(_centroid_hz(estimate) / _centroid_hz(reference)))


def _centroid_hz(sound: Sound) -> float:
    magnitude = np.sqrt(sound.power).sum(1)
    return float((np.arange(magnitude.size) * SAMPLE_RATE / (2 * (magnitude.size - 1))) @ magnitude / magnitude.sum())


# --- pitch -------------------------------------------------------------------------------------------------------------------------


def chroma_cosine(reference: Sound, estimate: Sound) -> float:
    """Mean over frames of the cosine between the chroma vectors, 0 to 1, over the frames where the reference sounds.

    References
    ----------
    .. [1] M. Müller, "Fundamentals of Music Processing", Springer 2015, §3.1.
    """
    if reference.silent or estimate.silent:
        return _zero("chroma", "a song is silent")
    a, b = reference.chroma[:, reference.sounding], estimate.chroma[:, reference.sounding]
    product = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    return float(((a * b).sum(0) / np.maximum(product, 1e-12)).mean())


def cqt_pcc(reference: Sound, estimate: Sound) -> float:
    """Pearson correlation of the two constant-Q magnitude spectrograms, −1 to 1, over all bins and frames at once.

    Magnitude, not decibels: loud partials decide. So it hears notes and envelope together, and forgives gaps between the notes.

    References
    ----------
    .. [1] J. C. Brown, "Calculation of a constant Q spectral transform", J. Acoust. Soc. Am. 89(1), 1991.
    .. [2] S. Huang et al., "TimbreTron", ICLR 2019, on the constant-Q transform as the picture in which timbre transfer is judged.
    """
    if reference.silent or estimate.silent:
        return _zero("cqt_pcc", "a song is silent")
    return float(np.corrcoef(reference.constant_q.ravel(), estimate.constant_q.ravel())[0, 1])


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

    roll = piano_roll(notes, sound.frames)
    some = roll.any(0) & ~roll.all(0)
    if not some.any():
        return _zero("note_auc", "no note is sounding")
    if sound.silent:
        return _zero("note_auc", "the song is silent")
    S, roll = sound.salience[:, some], roll[:, some]
    positive = roll.sum(0)
    ranks = rankdata(S, axis=0)  # Mann–Whitney: the rank sum of the notes counts the pairs they win
    wins = (ranks * roll).sum(0) - positive * (positive + 1) / 2
    return float((wins / (positive * (len(PITCHES) - positive))).mean())


def frame_f1(reference: NDArray[np.bool_], estimate: NDArray[np.bool_]) -> float:
    """F-measure of the notes of all frames together, 0 to 1.

    Parameters
    ----------
    reference, estimate : array [shape=(pitches, T), bool]
        Piano rolls: `piano_roll` of a score, or ``Sound.pitches``.

    References
    ----------
    .. [1] M. Bay, A. F. Ehmann and J. S. Downie, "Evaluation of multiple-F0 estimation and tracking systems", ISMIR 2009.
    """
    if not reference.any() or not estimate.any():
        return _zero("frame_f1", "there is no note in one of the rolls")
    return float(2 * (reference & estimate).sum() / (reference.sum() + estimate.sum()))


def frame_jaccard(reference: NDArray[np.bool_], estimate: NDArray[np.bool_]) -> float:
    """Mean over frames of common notes re all notes, 0 to 1; a frame that is empty in both is right.

    One minus the pitch distance published for ss-vq-vae, whose notes come from another estimator.

    Parameters
    ----------
    reference, estimate : array [shape=(pitches, T), bool]

    References
    ----------
    .. [1] O. Cífka, A. Ozerov, U. Şimşekli and G. Richard, "Self-supervised VQ-VAE for one-shot music style transfer", ICASSP 2021.
    """
    if not reference.any() or not estimate.any():
        return _zero("frame_jaccard", "there is no note in one of the rolls")
    either = (reference | estimate).sum(0)
    return float(np.where(either > 0, (reference & estimate).sum(0) / np.maximum(either, 1), 1.0).mean())


def pitch_scores(sound: Sound, notes: NDArray[np.void]) -> dict[str, float]:
    """``frame_f1`` and ``frame_jaccard`` of the notes heard in a song against the known notes; read them against the truth's own."""
    known, heard = piano_roll(notes, sound.frames), sound.pitches
    return {"frame_f1": frame_f1(known, heard), "frame_jaccard": frame_jaccard(known, heard)}


def pitch_agreement(reference: Sound, estimate: Sound) -> dict[str, float]:
    """``frame_f1`` and ``frame_jaccard`` of the notes heard in a result against the notes heard in the song: no score is needed.

    References
    ----------
    .. [1] M. Bay, A. F. Ehmann and J. S. Downie, "Evaluation of multiple-F0 estimation and tracking systems", ISMIR 2009.
    """
    return {"frame_f1": frame_f1(reference.pitches, estimate.pitches), "frame_jaccard": frame_jaccard(reference.pitches, estimate.pitches)}


# --- rhythm ------------------------------------------------------------------------------------------------------------------------


def flux_correlation(reference: Sound, estimate: Sound) -> float:
    """Pearson correlation of the two curves of spectral flux, −1 to 1: do levels rise at the same moments.

    References
    ----------
    .. [1] S. Böck and G. Widmer, "Maximum filter vibrato suppression for onset detection", DAFx 2013 (log-mel flux).
    """
    a, b = reference.flux, estimate.flux
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return _zero("flux", "nothing ever rises in one of the songs")
    return float(np.corrcoef(a, b)[0, 1])


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
    return _onset_f1(onsets[onsets < sound.y.size / SAMPLE_RATE], sound.onset_seconds, window_seconds, "the score has no onset")


def onset_agreement(reference: Sound, estimate: Sound, *, window_seconds: float = 0.05) -> float:
    """F-measure of the onsets detected in a result against those detected in the song, 0 to 1: no score is needed.

    References
    ----------
    .. [1] C. Raffel et al., "mir_eval: A transparent implementation of common MIR metrics", ISMIR 2014.
    """
    return _onset_f1(reference.onset_seconds, estimate.onset_seconds, window_seconds, "the reference has no onset")


def _onset_f1(known: Array, found: Array, window_seconds: float, nothing: str) -> float:
    if not known.size or not found.size:
        return _zero("onset_f1", nothing if not known.size else "no onset is heard")
    return float(_mir_eval().onset.f_measure(known, found, window=window_seconds)[0])


def _distinct(onsets: Array, gap_seconds: float) -> Array:
    kept: list[float] = []
    for onset in onsets:
        if not kept or onset - kept[-1] > gap_seconds:
            kept.append(float(onset))
    return np.array(kept)


def beat_agreement(reference: Sound, estimate: Sound, *, tolerance: float = 0.04, window_seconds: float = 0.07) -> dict[str, float]:
    """Do the two songs have the same tempo and beats, each as the same tracker hears it.

    Returns
    -------
    dict
        ``tempo``: 1 if the tempi differ by at most ``tolerance`` (half or double is another tempo), otherwise 0. ``beat_f1``: F-measure
        of the beats within ``window_seconds``, 0 to 1.

    References
    ----------
    .. [1] F. Gouyon et al., "An experimental comparison of audio tempo induction algorithms", IEEE TASLP 14(5), 2006 (accuracy 1).
    .. [2] M. E. P. Davies, N. Degara and M. D. Plumbley, "Evaluation methods for musical audio beat tracking algorithms", 2009.
    .. [3] D. P. W. Ellis, "Beat tracking by dynamic programming", J. New Music Research 36(1), 2007: the tracker.
    """
    (known_tempo, known), (tempo, beats) = reference.beats, estimate.beats
    if not known.size or not beats.size:
        return dict.fromkeys(("tempo", "beat_f1"), _zero("tempo and beats", "one of the songs has no beat"))
    same = abs(tempo / known_tempo - 1) <= tolerance
    return {"tempo": float(same), "beat_f1": float(_mir_eval().beat.f_measure(known, beats, f_measure_threshold=window_seconds))}


# --- texture -----------------------------------------------------------------------------------------------------------------------


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
    if reference.silent or estimate.silent:
        return dict.fromkeys(keys, _from_silence("modulation", reference, estimate))
    active = reference.log_mel > reference.log_mel.max() - ACTIVE_DB
    ours, theirs = _modulation(estimate.log_mel, active), _modulation(reference.log_mel, active)
    return {key: 10 * math.log10((a + 1e-9) / (b + 1e-9)) for key, a, b in zip(keys, ours, theirs, strict=True)}


def _modulation(level: Array, active: NDArray[np.bool_]) -> list[float]:
    spectrum = np.fft.rfft(level - level.mean(1, keepdims=True), axis=1)
    hz = np.fft.rfftfreq(level.shape[1], 1 / FRAMES_PER_SECOND)
    bands = ((low <= hz) & (hz < high) for low, high in MODULATION_HZ)
    return [float((np.fft.irfft(spectrum * band, n=level.shape[1], axis=1)[active] ** 2).mean()) for band in bands]


def roughness_difference(reference: Sound, estimate: Sound) -> dict[str, float]:
    """Power of the fine structure of the reference's active bins, estimate re reference, dB: over time, and over frequency.

    Fine structure is what is left of a mel bin's level, in dB, after the mean of its two neighbours is taken off: the frames before and
    after, or the bands below and above. Below 0 the estimate is smeared. A ripple fills it as well as true texture does: read it
    beside ``modulation_difference``, which says where the fluctuation is.

    Returns
    -------
    dict
        ``roughness_time``, ``roughness_frequency``.

    References
    ----------
    .. [1] P. N. Vassilakis and K. Fitz, "SRA: A web-based research tool for spectral and roughness analysis of sound signals", SMC 2007,
       on level fluctuation as what is heard as roughness; the measure is our own.
    """
    keys = ("roughness_time", "roughness_frequency")
    if reference.silent or estimate.silent:
        return dict.fromkeys(keys, _from_silence("roughness", reference, estimate))
    active = reference.log_mel > reference.log_mel.max() - ACTIVE_DB
    powers = ([_fine_power(sound.log_mel, active, axis) for sound in (estimate, reference)] for axis in (1, 0))
    return {key: 10 * math.log10((ours + 1e-9) / (theirs + 1e-9)) for key, (ours, theirs) in zip(keys, powers, strict=True)}


def _fine_power(level: Array, active: NDArray[np.bool_], axis: int) -> float:
    from scipy.ndimage import correlate1d

    fine = correlate1d(level, [-0.5, 1.0, -0.5], axis=axis, mode="nearest")
    return float((fine[active] ** 2).mean())


# --- level and seams: of waveforms (C, N), not of `Sound`s --------------------------------------------------------------------------


def loudness_error(reference: Array, estimate: Array, sample_rate: int) -> float:
    """Difference of integrated loudness, LU ≥ 0: a result is as loud as its song.

    Parameters
    ----------
    reference, estimate : array [shape=(C, N), in [−1, 1]]

    References
    ----------
    .. [1] ITU-R BS.1770-4, "Algorithms to measure audio programme loudness and true-peak audio level", 2015.
    """
    from stylestream.audio import loudness

    a, b = (loudness(np.atleast_2d(y), sample_rate) if np.size(y) else -math.inf for y in (reference, estimate))
    if math.isinf(a) or math.isinf(b):
        warnings.warn(f"loudness: {'both songs are' if a == b else 'one song is'} silent", stacklevel=2)
        return 0.0 if a == b else math.nan
    return abs(a - b)


def true_peak_error(y: Array, sample_rate: int, *, ceiling_db: float = -1.0) -> float:
    """How far the true peak is above the ceiling, dB ≥ 0; 0 where it is kept.

    Parameters
    ----------
    y : array [shape=(C, N), in [−1, 1]]
    ceiling_db : float [dBTP]

    References
    ----------
    .. [1] ITU-R BS.1770-4, annex 2.
    """
    from stylestream.audio import true_peak_db

    if not np.size(y):
        return _zero("true peak", "there is no sample")
    return max(0.0, true_peak_db(np.atleast_2d(np.asarray(y, dtype=np.float32)), sample_rate) - ceiling_db)


def seam_energy(y: Array, border_samples: Sequence[int], sample_rate: int, *, window_seconds: float = 0.003) -> float:
    """Energy of clicks at chunk borders, dB re the music around them; about 0 where no border can be heard.

    The waveform's fourth difference, which leaves little of music and all of a step, in a window around each border, re the median of
    the windows within a tenth of a second; the mean over the borders of these decibels.

    Parameters
    ----------
    y : array [shape=(C, N)]
    border_samples : sequence of int
        Where chunks meet; those within a tenth of a second of an end are left out.

    References
    ----------
    .. [1] S. V. Vaseghi and P. J. W. Rayner, "Detection and suppression of impulsive noise in speech communication systems",
       IEE Proc. I 137(1), 1990: clicks stand out in what prediction leaves of a signal.
    """
    window, reach = max(8, round(window_seconds * sample_rate)), round(0.1 * sample_rate)
    fine = np.square(np.diff(np.atleast_2d(y), n=4, axis=-1)).sum(0)
    inside = [border for border in border_samples if reach <= border < fine.size - reach]
    if not inside:
        return _zero("seam", "no chunk border is inside the song")
    return float(np.mean([_stands_out_db(fine[border - 2 - reach : border - 2 + reach], window) for border in inside]))


def _stands_out_db(fine: Array, window: int) -> float:
    half = window // 2
    middle = fine.size // 2
    count = (fine.size - window) // 2 // window  # windows on either side of the middle one
    grid = fine[middle - half - count * window : middle - half + (count + 1) * window].reshape(-1, window).sum(1)
    around = float(np.median(np.delete(grid, count)))
    return 10 * math.log10((float(grid[count]) + 1e-18) / (around + 1e-18))


def seam_difference(
    whole: Array, chunked: Array, border_samples: Sequence[int], sample_rate: int, *, window_seconds: float = 0.1, floor_db: float = -150.0
) -> float:
    """How much a song made in chunks differs, at their borders, from the song made whole: energy of the difference, dB re the whole's.

    Parameters
    ----------
    whole, chunked : array [shape=(C, N)]
    border_samples : sequence of int
    floor_db : float [dB]
        The value of no difference.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if np.shape(whole) != np.shape(chunked):
        raise ValueError(f"the songs differ in shape: {np.shape(whole)} and {np.shape(chunked)}")
    near = np.zeros(np.shape(whole)[-1], dtype=bool)
    half = round(window_seconds * sample_rate / 2)
    for border in border_samples:
        near[max(0, border - half) : border + half] = True
    if not near.any():
        return _zero("seam", "no chunk border is inside the song")
    a, b = np.atleast_2d(whole)[:, near].astype(np.float64), np.atleast_2d(chunked)[:, near]
    return 10 * math.log10(max(float(((b - a) ** 2).sum()) / max(float((a**2).sum()), 1e-30), 10 ** (floor_db / 10)))


# --- all of them -------------------------------------------------------------------------------------------------------------------


def compare(reference: Sound, estimate: Sound, notes: NDArray[np.void] | None = None) -> dict[str, float]:
    """All metrics of one result against the truth.

    Parameters
    ----------
    reference, estimate : Sound
        From `prepare`.
    notes : structured array, optional
        The known notes (``midi.notes``), in seconds from the first sample; without them there is no ``note_auc``, ``frame_f1``,
        ``frame_jaccard`` or ``onset_f1``.
    """
    reference, estimate = matched(reference, estimate)
    scores = {
        "log_mel_l1": log_mel_l1(reference, estimate),
        "lsd": lsd(reference, estimate),
        "lsd_16k": lsd_16k(reference, estimate),
        "mr_stft": mr_stft(reference, estimate),
        "mfcc": mfcc_distance(reference, estimate),
        "centroid": centroid_difference(reference, estimate),
        "chroma": chroma_cosine(reference, estimate),
        "cqt_pcc": cqt_pcc(reference, estimate),
        "flux": flux_correlation(reference, estimate),
        **beat_agreement(reference, estimate),
        **modulation_difference(reference, estimate),
        **roughness_difference(reference, estimate),
    }
    if notes is not None:
        scores |= {"note_auc": note_auc(estimate, notes), "onset_f1": onset_f1(estimate, notes), **pitch_scores(estimate, notes)}
    return scores


def _nan(metric: str, reason: str) -> float:
    warnings.warn(f"{metric}: {reason}; it is NaN", stacklevel=3)
    return math.nan


# --- two sets of songs: a judge ----------------------------------------------------------------------------------------------------


def judge_auc(truths: Sequence[Sound], results: Sequence[Sound], *, folds: int = 5, groups: Sequence[str] | None = None) -> float:
    """How well a freshly trained judge tells results from truths, 0 to 1: 0.5 is not at all, which is perfect; 1 is always.

    The judge hears half a second at a time: level, spread, steps and modulation of 32 bands. It is a regularised logistic regression on
    these numbers, trained on some songs and asked about others, so that it cannot know a song, only what all results have in common.
    The value is the mean over the folds of the area under the ROC curve over patches. No chance is involved: equal sets, equal value.

    Parameters
    ----------
    truths, results : sequence of Sound
        ``results[i]`` belongs to ``truths[i]``.
    folds : int ≥ 2
        At most; never more than there are groups.
    groups : sequence of str, optional
        Songs of a group (the same music) are always in the same fold; every song for itself when not given.

    Returns
    -------
    float
        NaN, with a warning, for fewer than two groups.

    Raises
    ------
    ValueError
        If there are not as many results as truths.

    References
    ----------
    .. [1] D. Lopez-Paz and M. Oquab, "Revisiting classifier two-sample tests", ICLR 2017.
    """
    if len(truths) != len(results):
        raise ValueError(f"{len(truths)} truths and {len(results)} results; every result needs its truth")
    names = list(groups) if groups is not None else [str(i) for i in range(len(truths))]
    return patches_auc([patch_numbers(sound) for sound in truths], [patch_numbers(sound) for sound in results], groups=names, folds=folds)


def patches_auc(truths: Sequence[Array], results: Sequence[Array], *, groups: Sequence[str], folds: int = 5) -> float:
    """`judge_auc` of songs of which only `patch_numbers` are at hand."""
    names = list(groups)
    if len(set(names)) < 2:
        return _nan("judge_auc", "a judge needs two songs at least")
    patches = [*truths, *results]
    X = np.concatenate(patches)
    false = np.repeat([0] * len(truths) + [1] * len(results), [len(p) for p in patches])
    return _cross_validated_auc(X, false, np.repeat(names * 2, [len(p) for p in patches]), min(folds, len(set(names))))


def _cross_validated_auc(X: Array, y: NDArray[np.int64], groups: NDArray[Any], folds: int) -> float:
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import roc_auc_score
        from sklearn.model_selection import GroupKFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ModuleNotFoundError as error:
        raise ValueError("the judge needs scikit-learn: pip install 'stylestream[eval]'") from error
    values = []
    for fit, ask in GroupKFold(folds).split(X, y, groups):
        judge = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=2000)).fit(X[fit], y[fit])
        values.append(float(roc_auc_score(y[ask], judge.decision_function(X[ask]).round(9))))
    return float(np.mean(values))


def patch_numbers(sound: Sound) -> Array:
    """What the judge hears: (patches, 224), of every half second that sounds (of silence, one patch).

    Of each of 32 bands of four mels: level re the patch's mean, spread over time, steps from frame to frame and from mel to mel, and
    power of the modulation in three bands, all in dB.

    References
    ----------
    .. [1] J. H. McDermott and E. P. Simoncelli, "Sound texture perception via statistics of the auditory periphery", Neuron 71(5), 2011,
       on such statistics as what textures are told apart by; the choice is our own.
    """
    level = sound.log_mel
    count = max(1, level.shape[1] // PATCH_FRAMES)
    filled = np.pad(level, ((0, 0), (0, max(0, PATCH_FRAMES - level.shape[1]))), mode="edge")[:, : count * PATCH_FRAMES]
    patches = filled.reshape(128, count, PATCH_FRAMES).transpose(1, 0, 2)  # (patches, mels, frames)
    heard = patches[patches.max(axis=(1, 2)) > FLOOR_DB + 20]
    return _numbers(heard if len(heard) else patches[:1])


def _numbers(patches: Array) -> Array:
    spectrum = np.abs(np.fft.rfft(patches - patches.mean(2, keepdims=True), axis=2)) ** 2 / PATCH_FRAMES  # 2 Hz a line
    kinds = [
        patches.mean(2) - patches.mean(axis=(1, 2))[:, None],
        patches.std(2),
        np.abs(np.diff(patches, axis=2)).mean(2),
        np.abs(np.diff(patches, axis=1, append=patches[:, -1:])).mean(2),
        *(10 * np.log10(spectrum[:, :, band].mean(2) + 1e-2) for band in (slice(1, 5), slice(5, 11), slice(11, 22))),
    ]
    return np.concatenate([kind.reshape(len(patches), 32, 4).mean(2) for kind in kinds], axis=1)


# --- two sets of songs: clouds of embeddings ---------------------------------------------------------------------------------------


def frechet_distance(reference: Array, estimate: Array) -> float:
    """Fréchet distance between two clouds of embeddings, each taken for a Gaussian, ≥ 0: |Δμ|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½).

    Parameters
    ----------
    reference, estimate : array [shape=(n, d) and (m, d)]
        Rows of `timbre.embeddings` of all songs of a set. Biased upwards where rows are few: read it against that of two sets of truths.

    Returns
    -------
    float
        NaN, with a warning, where a set has fewer than two rows.

    References
    ----------
    .. [1] K. Kilgour et al., "Fréchet audio distance: A reference-free metric for evaluating music enhancement algorithms",
       Interspeech 2019.
    """
    if min(len(reference), len(estimate)) < 2:
        return _nan("frechet_distance", "a set has fewer than two embeddings")
    a, b = np.cov(reference, rowvar=False), np.cov(estimate, rowvar=False)
    shift = float(np.square(reference.mean(0) - estimate.mean(0)).sum())
    root = _root(a)
    common = np.sqrt(np.clip(np.linalg.eigvalsh(root @ b @ root), 0, None)).sum()  # tr (Σ₁ Σ₂)^½, by a symmetric twin of the product
    return max(0.0, shift + float(np.trace(a) + np.trace(b) - 2 * common))


def _root(covariance: Array) -> Array:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def kernel_distance(reference: Array, estimate: Array) -> float:
    """Kernel audio distance between two clouds of embeddings: 100 × the squared maximum mean discrepancy; about 0 if they are one.

    The kernel is a Gaussian as wide as the median distance within the reference. No shape is assumed, and few rows do not bias it; it
    can come out a little below 0. Equally many rows count as pairs, whose own distances are left out: a set is at exactly 0 from itself.

    Parameters
    ----------
    reference, estimate : array [shape=(n, d) and (m, d)]

    Returns
    -------
    float
        NaN, with a warning, where a set has fewer than two rows.

    References
    ----------
    .. [1] Y. Chung et al., "KAD: No more FAD! An effective and efficient evaluation metric for audio generation", 2025.
    .. [2] A. Gretton et al., "A kernel two-sample test", J. Machine Learning Research 13, 2012 (lemma 6).
    """
    from scipy.spatial.distance import cdist, pdist

    if min(len(reference), len(estimate)) < 2:
        return _nan("kernel_distance", "a set has fewer than two embeddings")
    width = float(np.median(pdist(reference))) or 1.0
    aa, bb, ab = (
        np.exp(-cdist(x, y, "sqeuclidean") / (2 * width**2)) for x, y in ((reference,) * 2, (estimate,) * 2, (reference, estimate))
    )
    between = _mean_off_diagonal(ab) if len(reference) == len(estimate) else float(ab.mean())
    return 100 * (_mean_off_diagonal(aa) + _mean_off_diagonal(bb) - 2 * between)


def _mean_off_diagonal(K: Array) -> float:
    n = len(K)
    return float((K.sum() - np.trace(K)) / (n * (n - 1)))
