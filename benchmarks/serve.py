"""How the page bears visitors: many at once, each with a song of thirty seconds; and one with a song of four minutes.

    python benchmarks/serve.py --out docs/benchmarks.md

Starts `stylestream serve` on a free port, and writes a table between the marks ``<!-- generated: load -->`` and ``<!-- end -->`` of the
page that ``--out`` names. Times hold for the machine and its load at that moment, which the table says; what holds elsewhere are the
ratios, processor time, and that nothing is lost.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import soundfile

SAMPLE_RATE = 44100


@dataclass
class Visit:
    """What one visitor saw, in seconds from the moment the page was asked to play."""

    upload: float = 0.0
    cpu: float = 0.0  # of the server, from the click to the first sound
    started: float = 0.0
    first_sound: float = 0.0
    done: float = 0.0
    highest_place: int = 0
    right: bool = False
    trouble: list[str] = field(default_factory=list)


def music(seconds: float, seed: int) -> bytes:
    """A tune of its own for every visitor: plucked notes of a scale, stereo, as FLAC."""
    rng, beat = np.random.default_rng(seed), round(0.25 * SAMPLE_RATE)
    t = np.arange(beat) / SAMPLE_RATE
    notes = 55 + np.array([0, 2, 4, 5, 7, 9, 11, 12])[rng.integers(0, 8, round(seconds / 0.25))]
    hz = 440 * 2 ** ((notes - 69) / 12)
    y = np.concatenate([sum(np.sin(2 * np.pi * f * k * t) / k**1.5 for k in range(1, 7)) * np.exp(-6 * t) for f in hz]) * 0.2
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([y, np.roll(y, 300)], 1), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def visit(address: str, song: bytes, style: str, seconds: float, seen: Visit, ready: threading.Barrier, look: bool = False) -> None:
    """Send, look at the song if asked, wait until all have sent, play, follow, hear the first part, download, forget."""
    try:
        with httpx.Client(base_url=address, timeout=600) as client:
            began = time.monotonic()
            sent = client.post("/songs", params={"name": "tune.flac"}, content=song).raise_for_status().json()
            seen.upload = time.monotonic() - began
            if look:  # as the page does while its visitor chooses a style
                client.get(f"/songs/{sent['id']}/picture.png").raise_for_status()
            ready.wait()
            spent = numbers(address)["stylestream_cpu_seconds_total"]
            began = time.monotonic()
            job = client.post("/jobs", json={"song": sent["id"], "style": style}).raise_for_status().json()
            with client.stream("GET", f"/jobs/{job['id']}/events") as events:
                for line in events.iter_lines():
                    if not line.startswith("data: "):
                        continue
                    job = json.loads(line[6:])
                    seen.highest_place = max(seen.highest_place, job["position"])
                    if job["state"] == "running" and not seen.started:
                        seen.started = time.monotonic() - began
                    if job["samples"] and not seen.first_sound:
                        client.get(f"/jobs/{job['id']}/sound/0").raise_for_status()
                        seen.first_sound = time.monotonic() - began
                        seen.cpu = numbers(address)["stylestream_cpu_seconds_total"] - spent
            seen.done = time.monotonic() - began
            y, _ = soundfile.read(io.BytesIO(client.get(f"/jobs/{job['id']}/result.wav").raise_for_status().content))
            seen.right = len(y) == round(seconds * SAMPLE_RATE) and float(np.abs(y).max()) > 0.01
    except Exception as error:  # whatever it is, a visitor was lost
        seen.trouble.append(f"{type(error).__name__}: {error}")
        ready.abort()


def visits(address: str, count: int, seconds: float, style: str, *, look: bool = False) -> list[Visit]:
    """So many visitors at once."""
    songs = [music(seconds, seed) for seed in range(count)]
    seen, ready = [Visit() for _ in songs], threading.Barrier(count)
    threads = [
        threading.Thread(target=visit, args=(address, song, style, seconds, s, ready, look)) for song, s in zip(songs, seen, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def numbers(address: str) -> dict[str, float]:
    """The server's metrics."""
    lines = httpx.get(f"{address}/metrics").text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def settled(address: str, timeout_seconds: float) -> dict[str, float]:
    """Metrics once the server has removed what nobody asks for."""
    ends = time.monotonic() + timeout_seconds
    while True:
        now = numbers(address)
        if now["stylestream_stored_bytes"] == 0 or time.monotonic() > ends:
            time.sleep(7)  # the sweep that removed it also tells the allocator
            return numbers(address)
        time.sleep(2)


def table(count: int, seconds: float, style: str, many: list[Visit], alone: dict[str, Visit], memory: dict[str, float], lost: int) -> str:
    """The report, in Markdown."""

    def row(name: str, values: list[float]) -> str:
        first, middle, last = np.percentile(values, [0, 50, 100])
        return f"| {name} | {first:.1f} | {middle:.1f} | {last:.1f} |"

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    music_seconds = count * seconds
    whole = max(seen.done for seen in many)
    lines = [
        "Written by `python benchmarks/serve.py --out docs/benchmarks.md`. "
        f"{count} visitors at once, each with a song of {seconds:g} s, style {style}; {cores} cores, Python {platform.python_version()}, "
        f"load {memory['load']:.1f} at the start (1 a core is full). {lost} lost; every result has its song's length.",
        "",
        "| seconds from the click | first visitor | median | last |",
        "| --- | --- | --- | --- |",
        row("its turn has come", [seen.started for seen in many]),
        row("first sound", [seen.first_sound for seen in many]),
        row("done", [seen.done for seen in many]),
        row("upload and decoding, before", [seen.upload for seen in many]),
        "",
        f"All {music_seconds:.0f} s of music took {whole:.0f} s: {music_seconds / whole:.1f}× real time.",
        "",
        f"| one visitor alone, a song of four minutes; load {memory['load alone']:.1f} | first sound, s "
        "| server's processor time to it, s | done, s |",
        "| --- | --- | --- | --- |",
        *(f"| {name} | {v.first_sound:.1f} | {v.cpu:.1f} | {v.done:.1f} ({240 / v.done:.1f}×) |" for name, v in alone.items()),
        "",
        "| memory of the server | MiB | × before |",
        "| --- | --- | --- |",
        *(f"| {name} | {memory[key] / 2**20:.0f} | {memory[key] / memory['before']:.2f} |" for name, key in MEMORY),
        "",
        f"Files of the visitors afterwards: {memory['stored']:.0f} bytes.",
    ]
    return "\n".join(lines)


MEMORY = (("before: as many visitors with two seconds each", "before"), ("all results there", "full"), ("when they were removed", "after"))


def fill(path: Path, text: str) -> None:
    """Put the report between its marks."""
    page = path.read_text(encoding="utf-8")
    filled = re.sub(r"(<!-- generated: load -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}\n{text}\n\n{m[2]}", page, flags=re.DOTALL)
    if filled == page and text not in page:
        raise SystemExit(f"{path} has no <!-- generated: load --> … <!-- end -->")
    path.write_text(filled, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--style", default="strings")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    limits = ["--address-jobs", "1000", "--address-requests", "100000", "--queue", "1000", "--keep-minutes", "1"]
    command = [sys.executable, "-m", "stylestream", "serve", "--port", "0", *limits]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[-1]
            visits(address, options.visitors, 2.0, options.style)  # the style is loaded, every thread has its buffers
            warm = [f"{address}/styles/{style['name']}/sample.flac" for style in httpx.get(f"{address}/styles").json()]
            for sample in warm:  # made once, at the start
                httpx.get(sample, timeout=600).raise_for_status()
            load_alone = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
            alone = {
                "asked for at once": visits(address, 1, 240.0, options.style)[0],
                "asked for when its spectrogram was shown": visits(address, 1, 240.0, options.style, look=True)[0],
            }
            before = settled(address, 120)["stylestream_resident_memory_bytes"]
            many = visits(address, options.visitors, options.seconds, options.style)
            full = numbers(address)["stylestream_resident_memory_bytes"]
            after = settled(address, 120)
        finally:
            server.terminate()
    everyone = [*many, *alone.values()]
    lost = sum(not seen.right for seen in everyone)
    for seen in everyone:
        for trouble in seen.trouble:
            print(trouble, file=sys.stderr)
    memory: dict[str, float] = {"load": load, "before": before, "full": full, "after": after["stylestream_resident_memory_bytes"]}
    memory |= {"load alone": load_alone}
    memory["stored"] = after["stylestream_stored_bytes"]
    text = table(options.visitors, options.seconds, options.style, many, alone, memory, lost)
    print(text)
    if options.out:
        fill(options.out, text)
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
