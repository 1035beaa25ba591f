"""Which songs are the same piece: editions, transpositions and arrangements of one melody get one group, and a group never splits.

A score's melody is a short list of hashes (``recipes.melody_fingerprint``: intervals of the upper line, so key, tempo and instruments do
not count), made so that two lists share as large a part of their hashes as the melodies share of their phrases. A recording has such a
list, too (`sound_fingerprint`: its loudest moments, three at a time [2]_), by which it is known again in another format, trimmed, or at
another level; not in another performance. Songs that share enough are joined, and so are songs that a manifest says belong to one work;
joining is transitive.

References
----------
.. [1] A. Z. Broder, "On the resemblance and containment of documents", Compression and Complexity of Sequences, 1997.
.. [2] A. Wang, "An industrial-strength audio search algorithm", ISMIR 2003; with three peaks for two, and no time beside the hash.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

MIN_SHARED = 8  # hashes; fewer are a cadence or a scale that half of all music has
MIN_RESEMBLANCE = 1 / 3  # of the smallest hashes of both; two editions share most of them, a quotation a few
MIN_PHRASES = 4  # of a melody that can be known again: drums alone, or one bar over and over, have fewer
COMMON = 64  # songs: a phrase that so many have says nothing

# Of fifty recordings, trimmed by three seconds and made an MP3 of 128 kbit/s, each shared 25 hashes or more in step with itself, made one
# of 64 kbit/s 19; of the 1,225 pairs of different recordings none shared more than 2, but for two mixes of one piece (16).
MIN_IN_STEP = 10  # hashes of two recordings, equally far apart in both
STEP_FRAMES = 8  # as far as times may differ: landmarks move by a frame or two
FRAME_BITS = 20  # of a hash of a recording say when it is: three hours


def sound_fingerprint(levels: Array, *, hashes: int = 256) -> list[int]:
    """Hashes by which a recording is known again.

    The loudest moment within 0.19 s and a third of an octave is a landmark; a landmark and two that follow within 1.7 s, by their rows and
    the time between them, are a hash. The smallest ``hashes`` of them are kept [1]_, each with the frame where it is first heard.

    Parameters
    ----------
    levels : ndarray [shape=(T, 324), uint8]
        Frames as a dataset stores them, in decibels above −90.

    Returns
    -------
    list of int [ascending, 0 to 2**63]
        ``hash << 20 | frame``, each hash once. Empty where the sound has no landmarks.
    """
    times, rows = _landmarks(levels)
    found = []
    for second in range(1, LANDMARKS_AHEAD):
        for third in range(second + 1, LANDMARKS_AHEAD + 1):
            a, b, c = (slice(first, max(len(times) - third + first, first)) for first in (0, second, third))
            near, far = times[b] - times[a], times[c] - times[a]
            at_once = (far >= TIME_STEP_FRAMES) & (far < REACH_FRAMES)
            steps = (near // TIME_STEP_FRAMES) << 6 | far // TIME_STEP_FRAMES
            triples = _scattered((((rows[a] << 9 | rows[b]) << 9 | rows[c]) << 12 | steps)[at_once])
            found.append((triples >> np.uint64(FRAME_BITS + 1) << np.uint64(FRAME_BITS)).astype(np.int64) | times[a][at_once])
    return _smallest(np.concatenate(found), hashes).tolist()


def _smallest(found: Array, count: int) -> Array:
    """So many of the smallest hashes, each once where it comes first, in order."""
    few = min(16 * count, len(found))  # to sort them all would take longer than to find them
    for some in (np.partition(found, few - 1)[:few] if few else found, found):
        some = np.sort(some)
        some = some[np.diff(some >> FRAME_BITS, prepend=-1) > 0]
        if len(some) >= count:
            break
    return some[:count]


LANDMARK_ROWS = slice(60, 270)  # 104 Hz to 5.8 kHz: what every format keeps
LANDMARK_LEVEL = 25  # steps above the floor, at least: below −65 dB formats disagree
LANDMARK_REACH = 16, 12  # frames and rows around one, in which nothing is louder: 0.19 s, a third of an octave
LANDMARK_BLOCK = 512  # frames
LANDMARKS_AHEAD = 5  # of which each makes pairs with those that follow
TIME_STEP_FRAMES = 4  # 46 ms: a landmark moves by a frame when the song is cut elsewhere
REACH_FRAMES = 150


def _landmarks(levels: Array) -> tuple[Array, Array]:
    """Frame and row of what is louder than everything near it, in order of time."""
    found = [_landmarks_of(levels, first) for first in range(0, max(len(levels), 1), LANDMARK_BLOCK)]
    return np.concatenate([times for times, _ in found]), np.concatenate([rows for _, rows in found])


def _landmarks_of(levels: Array, first: int) -> tuple[Array, Array]:
    """Those of one block of frames, which stays in the processor's cache."""
    count, (frames, bins) = min(LANDMARK_BLOCK, len(levels) - first), LANDMARK_REACH
    start, stop = first - frames - 2, first + count + frames + 2
    x = np.zeros((stop - start, LANDMARK_ROWS.stop - LANDMARK_ROWS.start), np.uint16)
    inside = levels[max(start, 0) : stop, LANDMARK_ROWS]
    x[max(-start, 0) :][: len(inside)] = inside
    smooth = x[:-4] + x[1:-3] + x[2:-2] + x[3:-1] + x[4:]  # of five frames
    near = _highest_around(smooth, frames)
    smooth, near = smooth[frames : frames + count], _highest_around(near[frames : frames + count].T, bins).T
    times, rows = np.divmod(np.flatnonzero((smooth == near) & (smooth >= 5 * LANDMARK_LEVEL)), smooth.shape[1])
    return times + first, rows


def _highest_around(a: Array, reach: int) -> Array:
    """The highest of each row's values and those of so many rows on either side."""
    padded = np.zeros((len(a) + 2 * reach, a.shape[1]), a.dtype, order="C" if a.flags.c_contiguous else "F")
    padded[reach : reach + len(a)] = a
    have = 1
    while have < 2 * reach + 1:
        step = min(have, 2 * reach + 1 - have)
        padded, have = np.maximum(padded[:-step], padded[step:]), have + step
    return padded


def _scattered(numbers: Array) -> Array:
    """Numbers without an order of their own: SplitMix64's last step."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        z = numbers.astype(np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


def resemblance(one: Sequence[int], other: Sequence[int]) -> float:
    """Estimated share of phrases that two melodies have in common, 0 to 1, of two fingerprints in ascending order.

    >>> resemblance([1, 2, 3, 4], [1, 2, 3, 9])
    0.75
    """
    count = min(len(one), len(other))
    if not count:
        return 0.0
    smallest = sorted({*one, *other})[:count]  # a sample of the phrases of either [1]
    return len(set(smallest) & set(one) & set(other)) / count


def group_ids(
    songs: Sequence[str],
    fingerprints: Mapping[str, Sequence[int]],
    works: Mapping[str, str],
    *,
    recordings: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, str]:
    """Group id of every song: the smallest song id of its group.

    Parameters
    ----------
    songs : sequence of str
        Song ids.
    fingerprints, recordings : mapping of str to sequence of int [ascending]
        Of the songs that have one: of their melody, of their sound.
    works : mapping of str to str
        The work a song belongs to, where somebody knows it.
    """
    leader = {song: song for song in songs}
    for members in (*_same_work(songs, works), *_same_melody(songs, fingerprints), *_same_recording(songs, recordings or {})):
        for other in members[1:]:
            _join(leader, members[0], other)
    return {song: _leader(leader, song) for song in songs}


def _leader(leader: dict[str, str], song: str) -> str:
    while leader[song] != song:
        leader[song] = leader[leader[song]]
        song = leader[song]
    return song


def _join(leader: dict[str, str], one: str, other: str) -> None:
    first, second = sorted((_leader(leader, one), _leader(leader, other)))
    leader[second] = first  # the smallest id leads


def _same_work(songs: Sequence[str], works: Mapping[str, str]) -> Iterator[list[str]]:
    by_work: dict[Hashable, list[str]] = defaultdict(list)
    for song in songs:
        if works.get(song):
            by_work[works[song]].append(song)
    yield from by_work.values()


def _same_melody(songs: Sequence[str], fingerprints: Mapping[str, Sequence[int]]) -> Iterator[list[str]]:
    """Pairs of songs whose melodies resemble each other."""
    with_hash: dict[int, list[str]] = defaultdict(list)
    for song in songs:
        if len(fingerprints.get(song, ())) >= MIN_PHRASES:
            for h in fingerprints[song]:
                with_hash[h].append(song)
    for song in songs:
        mine = fingerprints.get(song, ())
        if len(mine) < MIN_PHRASES:
            continue
        shared = Counter(other for h in mine if len(with_hash[h]) <= COMMON for other in with_hash[h] if other > song)
        for other, count in shared.items():
            least = min(MIN_SHARED, len(mine), len(fingerprints[other]))
            if count >= max(least, 1) and resemblance(mine, fingerprints[other]) >= MIN_RESEMBLANCE:
                yield [song, other]


def _same_recording(songs: Sequence[str], fingerprints: Mapping[str, Sequence[int]]) -> Iterator[list[str]]:
    """Pairs of songs that have enough landmarks in step."""
    heard: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for song in songs:
        for h in fingerprints.get(song, ()):
            heard[h >> FRAME_BITS].append((song, h & ((1 << FRAME_BITS) - 1)))
    offsets: dict[tuple[str, str], list[int]] = defaultdict(list)
    for places in heard.values():
        for (song, frame), (other, other_frame) in itertools.combinations(sorted(places) if len(places) <= COMMON else (), 2):
            offsets[song, other].append(frame - other_frame)
    for (song, other), apart in offsets.items():
        if len(apart) >= MIN_IN_STEP and in_step(apart) >= MIN_IN_STEP:
            yield [song, other]


def in_step(offsets: Sequence[int]) -> int:
    """How many of the hashes that two recordings share are equally far apart in both, give or take `STEP_FRAMES`.

    >>> in_step([258, 259, 258, 31, 257, -700])
    4
    """
    ordered = np.sort(offsets)
    return int((np.searchsorted(ordered, ordered + STEP_FRAMES, side="right") - np.arange(len(ordered))).max(initial=0))
