"""How often two scores of different names have the same melody: what chose the threshold by which an evaluation refuses songs.

    python benchmarks/melodies.py DATA

DATA is a collection with midi.csv. For every pair of scores that share a phrase and are of different groups (by their names), how much
their melodies resemble each other; with --show, some pairs of each bin, to be looked at.
"""

from __future__ import annotations

import argparse
import itertools
from collections import Counter, defaultdict
from pathlib import Path

from stylestream import midi, passages, recipes
from stylestream.groups import resemblance

Melodies = dict[str, tuple[str, list[int]]]  # path → group and fingerprint


def melodies(data: Path) -> Melodies:
    found: Melodies = {}
    for piece, content in recipes.read_pieces(data, recipes.pieces(data)):
        try:
            found[piece.path] = piece.group, recipes.melody_fingerprint(midi.load_score(content))
        except ValueError:  # not every file of a collection is a score
            continue
    return found


def alike(found: Melodies) -> dict[tuple[str, str], float]:
    """Resemblance of the pairs of different groups that share enough phrases."""
    holders: dict[int, list[str]] = defaultdict(list)
    for path, (_, runs) in found.items():
        for run in runs:
            holders[run].append(path)
    shared = Counter(pair for paths in holders.values() for pair in itertools.combinations(sorted(paths), 2))
    wanted = [pair for pair, count in shared.items() if count >= passages.LEAST_RUNS and found[pair[0]][0] != found[pair[1]][0]]
    return {pair: resemblance(found[pair[0]][1], found[pair[1]][1]) for pair in wanted}


def page(found: Melodies, pairs: dict[tuple[str, str], float], show: int) -> str:
    bins = Counter(int(20 * share) / 20 for share in pairs.values())
    same = sum(share >= passages.SAME_MELODY for share in pairs.values())
    lines = [f"{len(found)} scores, {len(found) * (len(found) - 1) // 2} pairs; the same melody under another name: {same} pairs"]
    for edge in sorted(bins):
        lines.append(f"{edge:.2f}: {bins[edge]}")
        lines += [f"    {a} | {b}" for (a, b), share in sorted(pairs.items()) if int(20 * share) / 20 == edge][:show]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--show", type=int, default=0)
    options = parser.parse_args()
    found = melodies(options.data)
    print(page(found, alike(found), options.show))


if __name__ == "__main__":
    main()
