"""Which songs are the same piece: editions, transpositions and arrangements of one melody get one group, and a group never splits.

A song's melody is a short list of hashes (``recipes.melody_fingerprint``: intervals of the upper line, so key, tempo and instruments do not
count), made so that two lists share as large a part of their hashes as the melodies share of their phrases. Songs that share enough are
joined, and so are songs that a manifest says belong to one work; joining is transitive.

References
----------
.. [1] A. Z. Broder, "On the resemblance and containment of documents", Compression and Complexity of Sequences, 1997.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence

MIN_SHARED = 8  # hashes; fewer are a cadence or a scale that half of all music has
MIN_RESEMBLANCE = 1 / 3  # of the smallest hashes of both; two editions share most of them, a quotation a few
MIN_PHRASES = 4  # of a melody that can be known again: drums alone, or one bar over and over, have fewer
COMMON = 64  # songs: a phrase that so many have says nothing


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


def group_ids(songs: Sequence[str], fingerprints: Mapping[str, Sequence[int]], works: Mapping[str, str]) -> dict[str, str]:
    """Group id of every song: the smallest song id of its group.

    Parameters
    ----------
    songs : sequence of str
        Song ids.
    fingerprints : mapping of str to sequence of int [ascending]
        Of the songs that have one.
    works : mapping of str to str
        The work a song belongs to, where somebody knows it.
    """
    leader = {song: song for song in songs}
    for members in (*_same_work(songs, works), *_same_melody(songs, fingerprints)):
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
        shared = Counter(other for h in mine if len(with_hash[h]) <= COMMON for other in with_hash[h] if other > song)
        for other, count in shared.items():
            least = min(MIN_SHARED, len(mine), len(fingerprints[other]))
            if count >= max(least, 1) and resemblance(mine, fingerprints[other]) >= MIN_RESEMBLANCE:
                yield [song, other]
