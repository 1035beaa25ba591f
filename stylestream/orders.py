"""What may be asked of the page: requests, checked, put into the queue, and what comes of them.

Plain HTTP (`serve`) and ``gradio_client`` (`gradio_api`) ask for the same things; here they are the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Literal

from anyio import to_thread
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field

from stylestream.jobs import Desk, Job, TrainJob, TransferJob
from stylestream.uploads import Limits, Refused, Song

Suffix = Literal["wav", "flac", "mp3"]
MEDIA_TYPES = {"wav": "audio/wav", "flac": "audio/flac", "mp3": "audio/mpeg"}


class TransferRequest(BaseModel):
    """A song that was sent, and how to play it."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    song: Annotated[str, Field(max_length=64, description="the id of a song; `lamplight` is the bundled one")]
    style: Annotated[str, Field(max_length=64, description="the name of a style, see `/styles`")]
    strength: Annotated[float, Field(ge=0, le=1, description="0 gives the song back, 1 is the style")] = 1.0
    dream: Annotated[float, Field(ge=0, le=64, description="how much is the style's own instead of the song's: 0 nothing, 8 all")] = 0.0
    grain: Annotated[float, Field(ge=0, le=1, description="how much fine texture is drawn")] = 0.5
    drums: Annotated[float, Field(ge=0, le=1, description="how loud the style's drummer is: 0 not at all, 0.5 as in its songs")] = 0.0
    width: Annotated[float, Field(ge=0, le=1, description="how wide stereo becomes: 0 as the song, 1 as the style's music")] = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**63, description="equal seeds give equal songs")] = 0


class TrainRequest(BaseModel):
    """Songs that were sent, and how long to train on them."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    songs: Annotated[list[Annotated[str, Field(max_length=64)]], Field(min_length=1, max_length=200, description="ids of songs")]
    title: Annotated[str, Field(max_length=60, description="what the style shall be called")] = "my style"
    minutes: Annotated[float, Field(gt=0, description="how long to train")] = 2.0


def submit(desk: Desk, request: TransferRequest, address: str, *, watched: bool = False) -> TransferJob:
    """Put a song into the queue; ``watched`` work ends when nobody asks for it any more.

    Raises
    ------
    Refused
        If the song or the style is not there, a dial is outside what the style knows, or the queue or the disk is full.
    """
    from stylestream.transfer import Dials

    style, dials = desk.styles.get(request.style), request.model_dump(exclude={"song", "style"})
    try:
        desk.styles.load(style).check(Dials(**dials))
    except ValueError as error:
        raise Refused(str(error), 422) from None
    desk.check_room()
    job = TransferJob(desk.folder, desk.song(request.song), style, desk.styles, dials, address)
    job.watched = watched
    desk.submit(job)
    return job


def submit_training(desk: Desk, request: TrainRequest, address: str, *, watched: bool = False) -> TrainJob:
    """Put a training into the queue; as `submit`."""
    check_training(desk.limits, request)
    desk.check_room()
    songs = [desk.song(id) for id in request.songs]
    job = TrainJob(desk.folder, songs, request.title, request.minutes, desk.styles, address)
    job.watched = watched
    desk.submit(job)
    return job


def check_training(limits: Limits, request: TrainRequest) -> None:
    """Refuse what is more than is trained here."""
    if limits.train_minutes <= 0:
        raise Refused("no styles are trained on this server; use `stylestream train` on your own machine", 403)
    if request.minutes > limits.train_minutes:
        raise Refused(f"at most {limits.train_minutes:g} minutes are trained here", 422)
    if len(request.songs) > limits.train_songs:
        raise Refused(f"at most {limits.train_songs} songs are taken here", 422)


async def decoded(desk: Desk, upload: Path, address: str) -> Song:
    """`Desk.add_song`, with few at a time and nobody else kept waiting."""
    return await to_thread.run_sync(desk.add_song, upload, address, limiter=desk.decoders)


async def finished(job: Job, desk: Desk, *, gone: Callable[[], Awaitable[bool]] | None = None) -> None:
    """Wait for a job; cancel it if whoever waits has gone, or is told to stop waiting.

    Raises
    ------
    Refused
        If nothing came of it.
    """
    try:
        while not job.finished:
            job.used = time.monotonic()
            await asyncio.sleep(0.1)
            if desk.closing:
                raise Refused("the server is closing", 503)
            if gone is not None and await gone():
                break
    finally:
        if not job.finished:
            desk.cancel(job)
    if job.state != "done":
        raise Refused(job.error or "cancelled", 422)


async def result(job: TransferJob, desk: Desk, format: str, *, gone: Callable[[], Awaitable[bool]] | None = None) -> Path:
    """Wait for a song, and give it as a file; as `finished`."""
    await finished(job, desk, gone=gone)
    return await run_in_threadpool(file_of, job, format)


def file_of(job: TransferJob, format: str) -> Path:
    """A finished song as a file; Refused if it cannot be one of this format, or is not finished."""
    try:
        return job.file(format)
    except Refused:
        raise
    except ValueError as error:  # six channels have no MP3
        raise Refused(str(error), 422) from None
