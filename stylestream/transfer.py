"""Song + style → song, chunked exactly.

:class:`StyleTransfer` is the whole chain as one object; its ``__call__`` is the line that the package exists for. The rest of the module
makes that line work on songs of any length, rate and number of channels, in memory that does not grow with the song:

- two passes over the song before anything is made: its loudness, and its beats at that loudness. Both are handed in, so that nothing
  in the chain depends on more of the song than it sees;
- *chunks* of about twenty seconds, with as much of the song on each side as the chain can see (``overlap_frames``), on a grid of the
  network's cells. Chunks are the whole, to rounding;
- a last pass over the result, once its loudness and true peak are known.

Conventions: waveforms are float32 (C, N); inside, 44.1 kHz and the style's working loudness; a *pass* is a function that gives the
song's blocks from the start, so that a song is read as often as it is needed and never held.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from stylestream import audio
from stylestream.blend import load_blend
from stylestream.chunks import THREADS, Chunk, Queue, cut_into_chunks, in_order
from stylestream.cymbals import REACH_FRAMES, without_cymbals
from stylestream.draw import Draw
from stylestream.drums import NO_HITS, USUAL_DRUMS, DrumLayer, Hits, layer_of, plan_hits, play
from stylestream.features import FeatureConfig, LogFrequency
from stylestream.rhythm import NO_PULSE, Beats, BeatTracker, Pulse, phase
from stylestream.style import Card, features_of, network_of
from stylestream.tags import MADE
from stylestream.vocoder import Analysis, Vocoder
from stylestream.width import Widener, WidthMeter, Widths, side_filter

Array = np.ndarray[Any, Any]
Pass = Callable[[], Iterable[Array]]
T = TypeVar("T")

CHUNK_SECONDS = 24.0  # longer is a little faster, the overlap being less of it, and takes more memory: 14 MB a second
STREAM_SECONDS = 8.0  # where one listens while it is made: the first sound comes after a third of the time, the last a tenth later
FIRST_SECONDS = 4.5  # and its first chunk: what a player fetches at once, four seconds, with something to spare
LISTEN_SECONDS = 6.0  # of the first passes, which have hardly any overlap
SECONDS_IN_WORK = 48.0  # of all chunks together: on many cores they are shorter
BLOCK_SAMPLES = 65_536
MAX_TRUE_PEAK_DB = -1.0
LOSSY = ("VORBIS", "OPUS", "MPEG_LAYER_III", "AAC")
LOSSY_MARGIN_DB = 0.2  # what these codecs add to a true peak at −1 dBTP was measured as up to 0.1
MP3_MARGIN_DB = 0.5  # and up to 0.45
MAX_GAIN_DB = 60.0  # near-silence is not blown up beyond this
CANCELLED_DB = 20.0  # the sum of left and right so far under both: one of them has the wrong polarity
SHORTEST_SECONDS = 8.0  # below, a chunk would be mostly overlap
MAX_WORKERS = 4  # chunks in work at once
PEAK_RAMP = 0.1  # of strength, see `final_gain`
# Share of the latents that are the style's own at nine even positions of the dream dial. The first step of the network says nearly all
# there is to say, the last ones next to nothing: counted in latents, nine tenths of the way lay in the last eighth of the dial. The curve
# is the mean over the bundled styles of where equal distances (log-mel L1 from the song in the style) lie
# (`benchmarks/dials.py --dream-curve`; docs/sweeps.md).
DREAM_CURVE = (0.0, 0.617, 0.791, 0.86, 0.897, 0.922, 0.943, 0.964, 1.0)


@dataclass(frozen=True)
class Dials:
    """What the user may turn; see `StyleTransfer.transfer`."""

    strength: float = 1.0
    dream: float = 0.0
    grain: float = 0.5
    drums: float = 0.0
    width: float = 0.0
    seed: int = 0

    def check(self, steps: int, *, has_drums: bool = True, has_widths: bool = True) -> None:
        """Raise ValueError with the range if a dial is outside it; ``steps`` is the style's K."""
        for name, highest in (("strength", 1), ("dream", steps), ("grain", 1), ("drums", 1), ("width", 1)):
            value = getattr(self, name)
            if not isinstance(value, Real) or not 0 <= float(value) <= highest:  # NaN is in no range
                raise ValueError(f"{name} is {value!r}; it must be from 0 to {highest}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, (int, np.integer)):
            raise ValueError(f"seed is {self.seed!r}; it must be a whole number")
        if self.drums and not has_drums:
            raise ValueError(f"drums is {self.drums!r}, but this style has no drums; leave it out, or 0")
        if self.width and not has_widths:
            why = "this style's music is all in the middle, or nothing is known of its width"
            raise ValueError(f"width is {self.width!r}, but {why}; leave it out, or 0")


def latents_of(dream: float, steps: int) -> float:
    """How many of the K latents, from the last, are the style's own at a position of the dream dial: 0 … K → 0 … K.

    >>> latents_of(0, 8), round(latents_of(4, 8), 2), latents_of(8, 8)
    (0.0, 7.18, 8.0)
    """
    return steps * float(np.interp(dream / steps, np.linspace(0, 1, len(DREAM_CURVE)), DREAM_CURVE))


class Together(nn.Module):
    """Networks of different families, which cannot share weights, as one: each paints, and the canvases are mixed in dB.

    It has what `StyleTransfer` asks of a `Draw`. Its cost is that of all of them.

    Parameters
    ----------
    networks : sequence of Draw
        Of frames of one kind.
    shares : sequence of float
        Sum to 1.
    """

    def __init__(self, networks: Sequence[Draw], shares: Sequence[float]) -> None:
        super().__init__()
        self.networks, self.shares = nn.ModuleList(networks), tuple(shares)
        self.context_frames = max(network.context_frames for network in networks)
        # chunks begin where a cell of every network does
        grid = math.lcm(*(network.config.grid_frames for network in networks))
        rounds = math.fsum(share * network.config.phase_iterations for network, share in zip(networks, shares, strict=True))
        most = max(network.config.steps for network in networks)
        self.config = replace(networks[0].config, steps=most, attention="conv", patch_frames=grid, phase_iterations=rounds)

    def transfer(self, view: Tensor, *, dream: float = 0.0, canvases: bool = False, **rest: Any) -> Tensor:
        """As `Draw.transfer`. The dream goes over all steps of each network, however many those are."""
        painted = torch.zeros(())
        for network, share in zip(self.networks, self.shares, strict=True):
            assert isinstance(network, Draw)
            own = network.transfer(view, dream=dream * network.config.steps / self.config.steps, canvases=canvases, **rest)
            painted = painted.to(own) + share * (self._aligned(own, network.config.steps) if canvases else own)
        return painted

    def _aligned(self, canvases: Tensor, steps: int) -> Tensor:
        """The canvases of a network of fewer steps, some of them shown twice; the textured one is the last, where there is one."""
        shown = [min(k * steps // self.config.steps, steps - 1) for k in range(self.config.steps)]
        return torch.cat([canvases[shown], canvases[-1:]])


@dataclass(frozen=True)
class Transferred:
    """What became of a song: where it is, how loud, and what was odd about it."""

    path: Path
    seconds: float
    loudness_lufs: float
    true_peak_db: float
    beats: Beats
    warnings: list[str] = field(default_factory=list)


class StyleTransfer:
    """A style, ready to be played in.

    Parameters
    ----------
    draw : Draw or Together
        The network, with its weights; or several.
    features : LogFrequency, optional
        The front end it was trained with.
    vocoder : Vocoder, optional
        By default with as many iterations as the style asks for.
    card : Card, optional
    layer : DrumLayer, optional
        The style's drums.
    widths : Widths
        How wide the style's music is; empty: not known.
    style : int
        Row of the network's style embedding.
    device : str
        "cpu", "cuda", "mps".
    half : bool, optional
        Run the network in bfloat16. Default: on CPUs that multiply in it, and on CUDA. What it rounds lies some 40 dB below the music.

    Examples
    --------
    >>> from stylestream.draw import DrawConfig
    >>> style = StyleTransfer(Draw(DrawConfig(steps=1, view_blocks=1, texture_channels=0)))
    >>> style.transfer(np.zeros((2, 1000), np.float32), 48000).shape
    (2, 1000)
    """

    def __init__(
        self,
        draw: Draw | Together,
        *,
        features: LogFrequency | None = None,
        vocoder: Vocoder | None = None,
        card: Card | None = None,
        layer: DrumLayer | None = None,
        widths: Widths = (),
        style: int = 0,
        device: str = "cpu",
        half: bool | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.draw = draw.to(self.device).eval().requires_grad_(False)
        self.vocoder = (vocoder or Vocoder(features, iterations=draw.config.phase_iterations)).to(self.device)
        self.config: FeatureConfig = self.vocoder.features.config
        self.card, self.layer, self.widths, self.style = card, layer, widths, style
        self.half = _multiplies_in_bfloat16(self.device) if half is None else half

    def __call__(
        self,
        y: Tensor,
        *,
        phase: Tensor | None = None,
        hits: Hits = NO_HITS,
        cymbals: float = 0.0,
        strength: float = 1.0,
        dream: float = 0.0,
        grain: float = 0.5,
        drums: float = 0.0,
        seed: int = 0,
        first_frame: int = 0,
        inner: slice = slice(None),
    ) -> Tensor:
        """A song becomes frames, frames become latents, latents become frames in another style, frames become a song.

        Parameters
        ----------
        y : Tensor [shape=(C, N)]
            A song, or a part of one, at ``config.sample_rate`` and ``config.loudness_lufs``.
        phase : Tensor [shape=(4, 1 + N // hop_length)], optional
            Beat and bar phase (`rhythm.phase`).
        hits : Hits
            What the style's drummer plays in the whole song (`drums.plan_hits`).
        cymbals : float in [0, 1]
            How much of the song's own cymbals is taken out before it is looked at (`rhythm.Pulse.cymbals`).
        first_frame : int
            Where in the song the part starts; a multiple of the network's grid.
        inner : slice of frames
            What to turn back into sound, where the part's margins are there for the network alone.

        Returns
        -------
        Tensor [shape=(C, n)]
            The samples of the inner frames.
        """
        # strength 0 is the song, cymbals and all
        song = without_cymbals(self.vocoder.analyse(y, first_frame=first_frame), cymbals * strength, sample_rate=self.config.sample_rate)
        x = self.vocoder.frames(song)  # (F, T)
        latents = latents_of(dream, self.draw.config.steps)
        x_hat = self._paint(x, phase, dream=latents, grain=grain, seed=seed, first_frame=first_frame)
        styled = self.vocoder.synthesise(x_hat[:, inner], _cut(song, inner, self.config), strength=strength)
        return self._with_drums(styled, hits, strength * self.drum_gain(drums), first_frame + inner.indices(x.shape[-1])[0])

    def drum_gain(self, drums: float) -> float:
        """What the dial does to the drum layer: 1 in the middle, as loud as in the style's own songs; 12 dB more at the end."""
        if self.layer is None:
            return 0.0
        return float((drums / USUAL_DRUMS) ** 2)

    def _with_drums(self, y: Tensor, hits: Hits, gain: float, first_frame: int) -> Tensor:
        if self.layer is None or not gain or not len(hits):
            return y  # to the bit
        first_sample = first_frame * self.config.hop_length
        return y + gain * torch.from_numpy(play(self.layer, hits, y.shape[1], first_sample=first_sample, channels=y.shape[0])).to(y)

    def _paint(self, x: Tensor, phase: Tensor | None, **dials: Any) -> Tensor:
        batch_phase = None if phase is None else phase[None]
        with torch.autocast(self.device.type, dtype=torch.bfloat16) if self.half else nullcontext():
            return self.draw.transfer(x[None], style=self.style, phase=batch_phase, **dials)[0].float()

    # -- sizes ------------------------------------------------------------------------------------------------------

    @property
    def grid_frames(self) -> int:
        """Chunks start on a multiple of this."""
        return self.draw.config.grid_frames

    @property
    def vocoder_frames(self) -> int:
        """Frames each side that the inversion sees, rounded up to the grid."""
        return self._on_grid(self.vocoder.context_samples)

    @property
    def overlap_frames(self) -> int:
        """Frames each side that a sample of the result depends on: front end, network and inversion, rounded up to the grid."""
        window = self.config.n_fft_low // 2 + len(self.vocoder.features.decimate_taps)
        seen = self.draw.context_frames + REACH_FRAMES
        return self._on_grid(window + seen * self.config.hop_length) + self.vocoder_frames

    def _on_grid(self, samples: int) -> int:
        return -(-samples // (self.config.hop_length * self.grid_frames)) * self.grid_frames

    # -- whole songs ------------------------------------------------------------------------------------------------

    def transfer(
        self,
        y: Array,
        sample_rate: int,
        *,
        strength: float = 1.0,
        dream: float = 0.0,
        grain: float = 0.5,
        drums: float = 0.0,
        width: float = 0.0,
        seed: int = 0,
        chunk_seconds: float | None = None,
    ) -> Array:
        """Play a song in the style.

        Parameters
        ----------
        y : array [shape=(C, N), full scale 1]
        sample_rate : int [Hz]
        strength : float in [0, 1]
            0 gives the song back, 1 the song in the style.
        dream : float in [0, K]
            How far the song's detail gives way to the style's own habits: at K all of the network's K latents are the style's. Equal
            turns are roughly equal distances (`latents_of`).
        grain : float in [0, 1]
            How much texture is drawn: 0 is smooth.
        drums : float in [0, 1]
            How loud the style's drummer plays along, where it has one: 0 is not at all, 0.5 as in the style's own songs, 1 is 12 dB more.
            Where the song has no clear beat nobody drums.
        width : float in [0, 1]
            Of two channels, how wide they become where the style's music is wider than the song: 0 keeps the song's own image, 1 is as
            wide as the style. The mean of the channels stays what it is; other numbers of channels do, whatever the dial says.
        seed : int
            Of whatever is drawn.
        chunk_seconds : float, optional
            Larger is a little faster and takes more memory; the result is the same.

        Returns
        -------
        array [shape=(C, N), float32]
            Sample-aligned with the song, as loud, true peak at most −1 dBTP (below a strength of 0.1 it moves to the song's own
            peak, so that the song comes back as it was).

        Raises
        ------
        ValueError
            If y is not (C, N) of finite numbers, or a dial is outside its range.
        """
        y = _checked(y, sample_rate)
        dials = Dials(strength, dream, grain, drums, width, seed)
        self.check(dials)
        if not y.shape[1]:
            return y
        song = self.listen(lambda: _blocks(y), sample_rate, y.shape[0], peak=strength < PEAK_RAMP)
        out = np.concatenate([*self.render(lambda: _blocks(y), song, dials, chunk_seconds=chunk_seconds)], axis=1)
        return out * np.float32(final_gain(song, audio.loudness(out, sample_rate), audio.true_peak_db(out, sample_rate), strength))

    def check(self, dials: Dials) -> None:
        """Raise ValueError if a dial is outside its range for this style."""
        dials.check(self.draw.config.steps, has_drums=self.layer is not None, has_widths=any(self.widths))

    def listen(
        self,
        blocks: Pass,
        sample_rate: int,
        channels: int,
        *,
        peak: bool = True,
        progress: Callable[[int], None] = lambda samples: None,
        seen: Callable[[Array], None] = lambda x: None,
    ) -> Hearing:
        """First passes: loudness and peak (the true one, if asked), then beats; ``seen`` gets the frames (F, any) they are found in."""
        hearing = _measure(blocks, sample_rate, channels, self.config, peak=peak, progress=progress)
        tracker = BeatTracker(frames_per_second=self.config.frames_per_second, bins_per_octave=self.config.bins_per_octave)
        mids = (b.mean(0, keepdims=True) * np.float32(hearing.gain) for b in _working(blocks, hearing, self.config, channels=1))
        margin = self._on_grid(self.config.n_fft_low)
        chunks = cut_into_chunks(mids, self._chunk_frames(LISTEN_SECONDS), margin, 0, self.config.hop_length)
        for x in in_order(self._frames_of, chunks, workers=self._workers()):
            tracker.push(x)
            seen(x)
        return replace(hearing, pulse=tracker.pulse(drummer_bpm=self.layer.usual_bpm if self.layer is not None else None))

    def _frames_of(self, chunk: Chunk) -> Array:
        with torch.inference_mode():
            x = self.vocoder.features(torch.from_numpy(chunk.y[0]).to(self.device))
        # a chunk that is not the last has its last inner frame again as the first of the next
        return x[:, chunk.inner].cpu().numpy()[:, : None if chunk.last else -1]

    def render(
        self,
        blocks: Pass,
        song: Hearing,
        dials: Dials,
        *,
        chunk_seconds: float | None = None,
        first_seconds: float | None = None,
        progress: Callable[[int], None] = lambda samples: None,
    ) -> Generator[Array, None, None]:
        """Second pass: blocks of the song in the style, at the song's rate, as many samples as the song; not yet levelled.

        What lies above the working rate's band is the song's, and goes with it: at strength 0 the song is all there.
        ``first_seconds``: a shorter first chunk, made before any other is begun.
        """
        own = 1 - np.float32(dials.strength)
        back = audio.Resampler(self.config.sample_rate, song.sample_rate, song.channels)
        queue, widened = Queue(song.channels), self._widened(song, dials)

        def remembered() -> Iterator[Array]:
            for y in blocks():
                queue.push(y)
                yield y

        def mixed(difference: Array) -> Array:
            y = queue.pull(difference.shape[1])
            progress(queue.pulled)
            return difference[:, : y.shape[1]] + own * y

        for styled, y in self._chunks(remembered, song, dials, chunk_seconds, first_seconds):
            yield mixed(back.push((widened(styled) - own * y) / np.float32(song.gain)))
        yield mixed(back.flush())

    def _widened(self, song: Hearing, dials: Dials) -> Callable[[Array], Array]:
        """What makes the styled chunks, taken in order, as wide as the dial asks; the drums among them too, above the basses."""
        if song.channels != 2 or not dials.width:
            return lambda y: y  # to the bit
        taps = side_filter(self.widths, song.widths, dials.width * dials.strength, self.config.sample_rate)
        return (lambda y: y) if taps is None else Widener(taps).push

    def stream(
        self,
        blocks: Pass,
        song: Hearing,
        dials: Dials,
        *,
        chunk_seconds: float = STREAM_SECONDS,
        first_seconds: float = FIRST_SECONDS,
        keep: Callable[[Array], None] = lambda y: None,
    ) -> Generator[Array, None, None]:
        """As `render`, to be heard while it is made: levelled by what has been heard so far of song and result.

        Closing the generator ends the work within a chunk.

        Parameters
        ----------
        keep : callable, optional
            Gets each block before it is levelled; with `final_gain`, all of them make the file that `transfer_file` writes.

        Yields
        ------
        array [shape=(C, n), float32, in −1 … 1]
            In order, as many samples in all as the song.
        """
        gain, queue = RunningGain(song.sample_rate, song.channels), Queue(song.channels)

        def remembered() -> Iterator[Array]:
            for y in blocks():
                queue.push(y)
                yield y

        with closing(self.render(remembered, song, dials, chunk_seconds=chunk_seconds, first_seconds=first_seconds)) as made:
            for y in made:
                keep(y)
                yield gain.push(queue.pull(y.shape[1]), y)

    @torch.inference_mode()
    def canvases(self, y: Tensor, *, dream: float = 0.0, grain: float = 0.5, seed: int = 0) -> Tensor:
        """What `Draw` paints, step by step: the song's frames, the K canvases, and the last of them with its texture.

        Parameters
        ----------
        y : Tensor [shape=(C, N)]
            An excerpt, at ``config.sample_rate`` and ``config.loudness_lufs``.

        Returns
        -------
        Tensor [shape=(K + 2, F, T), 0 is the floor, 1 is 0 dB]
        """
        x, latents = self.vocoder.frames(self.vocoder.analyse(y.to(self.device), first_frame=0)), latents_of(dream, self.draw.config.steps)
        with torch.autocast(self.device.type, dtype=torch.bfloat16) if self.half else nullcontext():
            painted = self.draw.transfer(x[None], style=self.style, dream=latents, grain=grain, seed=seed, canvases=True)
        return torch.cat([x[None], painted[:, 0].float()]).clamp(0, 1)

    def _chunks(
        self, blocks: Pass, song: Hearing, dials: Dials, chunk_seconds: float | None, first_seconds: float | None
    ) -> Iterator[tuple[Array, Array]]:
        """Pairs (styled, song) of equally many samples, at the working rate and loudness, in order."""
        working = (y * np.float32(song.gain) for y in _working(blocks, song, self.config, channels=song.channels))
        chunks = cut_into_chunks(
            working,
            self._chunk_frames(chunk_seconds, song),
            self.overlap_frames,
            self.vocoder_frames,
            self.config.hop_length,
            first_frames=self._chunk_frames(first_seconds) if first_seconds else None,
        )
        hits = plan_hits(self.layer, song.pulse, seed=dials.seed) if self.layer is not None and self.drum_gain(dials.drums) else NO_HITS

        def transferred(chunk: Chunk) -> tuple[Array, Array]:
            return self._transfer_chunk(chunk, song.pulse, hits, dials)

        return in_order(transferred, chunks, workers=self._workers(), first_alone=first_seconds is not None)

    @torch.inference_mode()
    def _transfer_chunk(self, chunk: Chunk, pulse: Pulse, hits: Hits, dials: Dials) -> tuple[Array, Array]:
        hop = self.config.hop_length
        frames = 1 + chunk.y.shape[1] // hop
        beats = pulse.beats
        where = phase(beats.beat_seconds, beats.downbeat_seconds, frames, self.config.frames_per_second, first_frame=chunk.first_frame)
        styled = self(
            torch.from_numpy(chunk.y).to(self.device),
            phase=torch.from_numpy(where).to(self.device),
            hits=hits,
            cymbals=pulse.cymbals,
            first_frame=chunk.first_frame,
            inner=chunk.inner,
            **{name: value for name, value in vars(dials).items() if name != "width"},
        )
        kept = styled[:, chunk.keep].cpu().numpy()
        first = chunk.inner.start * hop + chunk.keep.start
        return kept, chunk.y[:, first : first + kept.shape[1]]

    def _chunk_frames(self, seconds: float | None, song: Hearing | None = None) -> int:
        if seconds is None:
            seconds = min(CHUNK_SECONDS, SECONDS_IN_WORK / self._workers())
            if song is not None:  # as many chunks as keep all workers at work to the end
                whole = song.samples / song.sample_rate
                rounds = math.ceil(whole / seconds / self._workers())
                seconds = max(whole / rounds / self._workers() + 0.1, SHORTEST_SECONDS)
        cells = seconds * self.config.frames_per_second / self.grid_frames
        return max(round(cells), 1) * self.grid_frames

    def _workers(self) -> int:
        # one thread each: two chunks on two cores are done sooner than two cores on one chunk
        return min(THREADS.count(), MAX_WORKERS) if self.device.type == "cpu" else 1


def _multiplies_in_bfloat16(device: torch.device) -> bool:
    if device.type == "cpu":
        known = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
        return any(ask is not None and ask() for ask in known)
    return device.type == "cuda"


def _cut(song: Analysis, inner: slice, config: FeatureConfig) -> Analysis:
    """The part of an analysis that belongs to some of its frames."""
    start, stop, _ = inner.indices(song.high.shape[-1])
    end = None if stop == song.high.shape[-1] else (stop - 1) * config.hop_length
    return Analysis(
        song.y[:, start * config.hop_length : end],
        song.low[..., start:stop],
        song.high[..., start:stop],
        tuple((low[..., start:stop], high[..., start:stop]) for low, high in song.differences),
        song.first_frame + start,
    )


# ------------------------------------------------------------------------------------------------------- passes and levels


@dataclass(frozen=True)
class Hearing:
    """What is known of a song before it is played.

    ``gain`` brings its mid (``mid_lufs``) to the working loudness; ``loudness_lufs`` (−inf: silence) and ``peak_db`` (the true peak if it
    was asked for, else that of the samples) are those of all its channels. ``widths`` are those of two channels; of other songs empty.
    """

    sample_rate: int
    channels: int
    samples: int
    loudness_lufs: float
    peak_db: float
    gain: float
    mid_lufs: float = -math.inf
    widths: Widths = ()
    pulse: Pulse = NO_PULSE

    @property
    def beats(self) -> Beats:
        """None where they are not reliable."""
        return self.pulse.beats


def _measure(
    blocks: Pass, sample_rate: int, channels: int, config: FeatureConfig, *, peak: bool, progress: Callable[[int], None]
) -> Hearing:
    whole, mid = audio.LoudnessMeter(sample_rate, channels), audio.LoudnessMeter(sample_rate, 1)
    true_peak, highest, samples = audio.TruePeakMeter(sample_rate, channels), 0.0, 0
    wide = WidthMeter(sample_rate) if channels == 2 else None
    for y in blocks():
        whole.push(y)
        if channels > 1:
            mid.push(y.mean(0, keepdims=True))
        if wide is not None:
            wide.push(y)
        if peak:
            true_peak.push(y)
        highest = max(highest, float(y.max()), -float(y.min()))
        samples += y.shape[1]
        progress(samples)
    # the mid, as one channel: that is what the frames are made of, here as in training
    mid_lufs = (mid if channels > 1 else whole).integrated_lufs
    gain_db = min(config.loudness_lufs - mid_lufs, MAX_GAIN_DB) if math.isfinite(mid_lufs) else 0.0
    peak_db, widths = max(true_peak.true_peak_db, _db(highest)), wide.widths if wide is not None else ()
    return Hearing(sample_rate, channels, samples, whole.integrated_lufs, peak_db, 10 ** (gain_db / 20), mid_lufs, widths)


def _working(blocks: Pass, song: Hearing, config: FeatureConfig, *, channels: int) -> Iterator[Array]:
    """Blocks at the working rate; ``channels`` 1 is the mid."""
    resampler = audio.Resampler(song.sample_rate, config.sample_rate, channels)
    for y in blocks():
        yield resampler.push(y.mean(0, keepdims=True) if channels == 1 else y)
    yield resampler.flush()


def _checked(y: Array, sample_rate: int) -> Array:
    y = np.asarray(y)
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, (int, np.integer)):
        raise ValueError(f"sample_rate is {sample_rate!r}; it must be a whole number of Hz")
    if y.ndim != 2 or not 1 <= y.shape[0] <= audio.MAX_CHANNELS:
        raise ValueError(f"y has shape {y.shape}; a waveform is (channels, samples) with 1 to {audio.MAX_CHANNELS} channels")
    if not np.issubdtype(y.dtype, np.floating):
        raise ValueError(f"y holds {y.dtype}; a waveform is floating point with full scale at 1.0")
    with np.errstate(over="ignore"):  # of a larger type; then it is infinite
        y = y.astype(np.float32)
    if not np.isfinite(y).all():
        raise ValueError("y holds samples that are not numbers (NaN or infinite); replace them first, for example by np.nan_to_num(y)")
    if y.size and np.abs(y).max() > audio.LARGEST:
        raise ValueError(f"y holds samples up to {np.abs(y).max():.0e}; full scale is 1.0, and beyond {audio.LARGEST:.0e} is no sound")
    if not audio.MIN_SAMPLE_RATE <= sample_rate <= audio.MAX_SAMPLE_RATE:
        raise ValueError(f"sample_rate is {sample_rate!r} Hz; it must be from {audio.MIN_SAMPLE_RATE} to {audio.MAX_SAMPLE_RATE}")
    return y


def _blocks(y: Array) -> Iterator[Array]:
    for start in range(0, y.shape[1], BLOCK_SAMPLES):
        yield y[:, start : start + BLOCK_SAMPLES]


def codec_margin_db(subtype: str) -> float:
    """How far under the ceiling a true peak must be before a codec moves it.

    >>> codec_margin_db("PCM_16"), codec_margin_db("VORBIS"), codec_margin_db("MPEG_LAYER_III")
    (0.0, 0.2, 0.5)
    """
    if subtype == "MPEG_LAYER_III":
        return MP3_MARGIN_DB
    return LOSSY_MARGIN_DB if subtype in LOSSY else 0.0


def final_gain(song: Hearing, loudness_lufs: float, true_peak_db: float, strength: float, *, margin_db: float = 0.0) -> float:
    """Factor that makes the result as loud as the song, and keeps its true peak under the ceiling.

    The ceiling is −1 dBTP. A song above it could then not come back at strength 0, so over the first tenth of the dial the
    ceiling comes down from the song's own peak. What is too soft to have a loudness does not get louder. ``margin_db`` lowers the
    ceiling, for a codec that moves peaks.
    """
    own = max(1 - strength / PEAK_RAMP, 0.0)
    ceiling_db = MAX_TRUE_PEAK_DB - (1 - own) * margin_db + (own * max(song.peak_db - MAX_TRUE_PEAK_DB, 0.0) if own > 0 else 0.0)
    if not math.isfinite(song.loudness_lufs):
        ceiling_db = min(ceiling_db, song.peak_db)
    gain_db = song.loudness_lufs - loudness_lufs if math.isfinite(song.loudness_lufs) and math.isfinite(loudness_lufs) else 0.0
    if math.isfinite(true_peak_db):
        gain_db = min(gain_db, ceiling_db - true_peak_db)
    return 10 ** (gain_db / 20)


class RunningGain:
    """Makes a result as loud as the song while both are still being heard: what streams have instead of `final_gain`.

    The gain of a block is the difference of the loudnesses from the start to the block's end; it is reached within half a second, so that
    nothing jumps. The first blocks carry most of what it still has to learn.

    >>> gain = RunningGain(44100, 1)
    >>> y = np.sin(np.arange(4 * 44100, dtype=np.float32))[None] / 10
    >>> for _ in range(2):
    ...     levelled = gain.push(y, y / 2)
    >>> round(float(levelled[:, -1000:].max() / y.max()), 2)
    1.0
    """

    RAMP_SECONDS = 0.5

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._song, self._made = audio.LoudnessMeter(sample_rate, channels), audio.LoudnessMeter(sample_rate, channels)
        self._ramp = round(self.RAMP_SECONDS * sample_rate)
        self.gain = 0.0  # none yet: the first block starts with its own

    def push(self, song: Array, made: Array) -> Array:
        """Level a block (C, n) with the same part of the song."""
        self._song.push(song)
        self._made.push(made)
        difference_db = self._song.integrated_lufs - self._made.integrated_lufs
        highest_db = MAX_TRUE_PEAK_DB - _db(float(np.abs(made).max(initial=0.0)))
        wanted = 10 ** (min(difference_db, highest_db, MAX_GAIN_DB) / 20) if math.isfinite(difference_db) else self.gain or 1.0
        start, self.gain = self.gain or wanted, wanted
        ramp = np.full(made.shape[1], wanted, np.float32)
        count = min(self._ramp, made.shape[1])
        ramp[:count] = np.linspace(start, wanted, count, endpoint=False)
        return np.clip(made * ramp, -1, 1)  # only the half second in which a gain comes down could go beyond


def _db(factor: float) -> float:
    return 20 * math.log10(factor) if factor > 0 else -math.inf


# ---------------------------------------------------------------------------------------------------------------- files


class _Spool:
    """Blocks of float32 in a file without a name: gone when closed, however the program ends."""

    def __init__(self, folder: Path, channels: int) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, prefix=".stylestream-", suffix=".part")  # noqa: SIM115
        self.channels = channels

    def write(self, y: Array) -> None:
        self._file.write(np.ascontiguousarray(y.T, dtype=np.float32).data)

    def blocks(self) -> Iterator[Array]:
        self._file.seek(0)
        while data := self._file.read(BLOCK_SAMPLES * self.channels * 4):
            yield np.frombuffer(data, dtype=np.float32).reshape(-1, self.channels).T

    def __enter__(self) -> _Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class _SongFile:
    """A song file, read from the start as often as asked. A score is played once and kept: playing costs more than the disk."""

    def __init__(self, path: str | Path, folder: Path, stack: ExitStack) -> None:
        self.path, self.info = Path(path), audio.info(path)
        self.warnings: list[str] = []
        self._spool = stack.enter_context(_Spool(folder, self.info.channels)) if self.info.format == "MIDI" else None
        self._read_once = False

    def blocks(self) -> Iterator[Array]:
        if self._spool is not None and self._read_once:
            yield from self._spool.blocks()
            return
        with audio.Reader(self.path) as reader:
            for y in reader.blocks(BLOCK_SAMPLES):
                if self._spool is not None:
                    self._spool.write(y)
                yield y
            self.warnings, self._read_once = reader.warnings, True


class _Progress:
    """Fraction done, from the samples that each stage has done; the shares of the stages are rough."""

    def __init__(self, tell: Callable[[float], None] | None, samples: int) -> None:
        self._tell = tell or (lambda fraction: None)
        self.samples = max(samples, 1)  # an estimate, until the song has been read once

    def listening(self, samples: int) -> None:
        self._tell(0.1 * min(samples / self.samples, 1.0))

    def rendering(self, samples: int) -> None:
        self._tell(0.1 + 0.85 * min(samples / self.samples, 1.0))

    def done(self) -> None:
        self._tell(1.0)


def transfer_file(
    style: StyleTransfer | str | Path,
    song_path: str | Path,
    out_path: str | Path,
    *,
    strength: float = 1.0,
    dream: float = 0.0,
    grain: float = 0.5,
    drums: float = 0.0,
    width: float = 0.0,
    seed: int = 0,
    subtype: str | None = None,
    chunk_seconds: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> Transferred:
    """Play a song file in a style and write the result, in memory that does not depend on the song's length.

    Parameters
    ----------
    style : StyleTransfer, str or Path
        A loaded style, or what `load_style` takes.
    song_path : str or Path
        Any audio file, the sound of a video, or MIDI.
    out_path : str or Path
        Its suffix chooses the container; an existing file is replaced. The file appears whole or not at all.
    strength, dream, grain, drums, width, seed
        As in `StyleTransfer.transfer`.
    subtype : str, optional
        Sample format, as in `audio.output_format`.
    progress : callable, optional
        Called with the fraction done, 0 to 1.

    Raises
    ------
    ValueError, OSError
        If the song cannot be read, the result cannot be written, or a dial is outside its range.
    """
    style = style if isinstance(style, StyleTransfer) else load_style(style)
    dials, folder = Dials(strength, dream, grain, drums, width, seed), Path(out_path).parent
    style.check(dials)
    output = audio.output_format(audio.info(song_path), out_path, subtype)
    # the writer first: a result that cannot be written is known before it is made
    comment = how_it_was_made(style.card, dials)
    with audio.Writer(out_path, **vars(output), tags_from=song_path, comment=comment) as out, ExitStack() as stack:
        file, spool = _SongFile(song_path, folder, stack), stack.enter_context(_Spool(folder, output.channels))
        report = _Progress(progress, round((file.info.seconds or 0) * file.info.sample_rate))
        song = style.listen(file.blocks, file.info.sample_rate, file.info.channels, peak=strength < PEAK_RAMP, progress=report.listening)
        report.samples = song.samples
        with closing(style.render(file.blocks, song, dials, chunk_seconds=chunk_seconds, progress=report.rendering)) as made:
            loudness_lufs, true_peak_db = _spooled(spool, made, song, output.sample_rate)
        gain = final_gain(song, loudness_lufs, true_peak_db, strength, margin_db=codec_margin_db(output.subtype))
        for y in spool.blocks():
            out.write(y * np.float32(gain))
    report.done()
    gain_db, seconds = _db(gain), song.samples / song.sample_rate
    warnings = file.warnings + out.warnings
    if width and song.channels != 2:
        warnings.append(f"width does nothing: the song has {song.channels} channel{'s' * (song.channels > 1)}, not two")
    if drums and not song.beats.reliable:
        warnings.append("drums do nothing: the song has no clear beat")
    if song.channels == 2 and song.loudness_lufs - song.mid_lufs > CANCELLED_DB:
        warnings.append("left and right cancel each other, and the style hears their sum; turn the polarity of one of them")
    return Transferred(Path(out_path), seconds, loudness_lufs + gain_db, true_peak_db + gain_db, song.beats, warnings)


def how_it_was_made(card: Card | None, dials: Dials) -> str:
    """What a result says of itself among its tags: the style, and how the dials stood.

    >>> how_it_was_made(Card("Rock Band"), Dials(strength=0.9))
    'StyleStream: as Rock Band (strength 0.9, dream 0, grain 0.5, seed 0)'
    """
    turned = {name: value for name, value in vars(dials).items() if value or name not in ("drums", "width")}
    said = ", ".join(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in turned.items())
    return f"{MADE}{card.title if card else 'a style'} ({said})"


def _spooled(spool: _Spool, made: Iterable[Array], song: Hearing, sample_rate: int) -> tuple[float, float]:
    """Bring a rendering to the rate of the output and onto the disk; its loudness and true peak there."""
    resampler = audio.Resampler(song.sample_rate, sample_rate, song.channels)
    loudness, peak = audio.LoudnessMeter(sample_rate, song.channels), audio.TruePeakMeter(sample_rate, song.channels)
    for y in _then(map(resampler.push, made), resampler.flush):
        loudness.push(y)
        peak.push(y)
        spool.write(y)
    return loudness.integrated_lufs, peak.true_peak_db


def _then(blocks: Iterable[Array], last: Callable[[], Array]) -> Iterator[Array]:
    yield from blocks
    yield last()


# --------------------------------------------------------------------------------------------------------------- loading


def load_style(style: str | Path, *, device: str = "cpu", half: bool | None = None) -> StyleTransfer:
    """Load a style, or a blend of styles.

    Parameters
    ----------
    style : str or Path
        A bundled or installed style's name; a style file; a recording (`blend.clip_style`); or a blend of any of these,
        ``"rock:0.6,strings:0.4"`` (`blend.parse`).
    device : str
        "cpu", "cuda", "cuda:1", "mps".
    half : bool, optional
        As in `StyleTransfer`.

    Raises
    ------
    ValueError
        If there is no such style, its file is not one, a recording is too short or silent, styles have frames of different kind, or
        the device is not there.
    OSError
        If a file cannot be read.
    """
    found = load_blend(style)
    check_device(device)
    networks = [network_of(data, str(style)) for data in found.styles]
    draw = networks[0] if len(networks) == 1 else Together(networks, found.shares)
    features, layer = LogFrequency(features_of(found.styles[0], str(style))), layer_of(found.drums, str(style))
    return StyleTransfer(draw, features=features, card=found.card, layer=layer, widths=found.widths, device=device, half=half)


def check_device(device: str) -> None:
    """Raise ValueError if torch cannot compute there."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split("\n")[0].split(". ")[0]
        raise ValueError(f"device {device!r} cannot be used ({reason}); use cpu") from None
