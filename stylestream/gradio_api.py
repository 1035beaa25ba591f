"""The endpoints ``/styles``, ``/transfer`` and ``/train`` for ``gradio_client``: Gradio's API engine below the application's own routes.

Importing this imports Gradio, which reads its environment then: `serve` sets it first.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastapi
import gradio
from fastapi.concurrency import run_in_threadpool

from stylestream import orders
from stylestream.jobs import Desk
from stylestream.orders import MEDIA_TYPES, Suffix, TrainRequest, TransferRequest
from stylestream.uploads import Refused, Song


@dataclass(frozen=True)
class Door:
    """What ``gradio_client`` may ask for; public methods are its endpoints.

    Parameters
    ----------
    exchange : Path
        The folder in which Gradio keeps what was sent, and finds what it hands out.
    """

    desk: Desk
    exchange: Path

    def styles(self) -> list[dict[str, Any]]:
        """List the styles on offer, with what their cards say."""
        return [style.view() for style in self.desk.styles.offered()]

    async def transfer(
        self,
        request: gradio.Request,
        song: gradio.FileData,
        style: str,
        strength: float = 1.0,
        dream: float = 0.0,
        grain: float = 0.5,
        drums: float = 0.0,
        width: float = 0.0,
        seed: int = 0,
        format: Suffix = "wav",
    ) -> gradio.FileData:
        """Play a song in a style. strength, 0 to 1: from the song to the style; dream, 0 to 8: how much of it the style makes up;
        grain, 0 to 1: how rough its texture is; drums, 0 to 1: how loud the style's drummer is; width, 0 to 1: how wide stereo
        becomes where the style's music is wider; format: wav, flac or mp3.
        """
        with _told():
            if format not in MEDIA_TYPES:
                raise Refused(f"format is {format!r}; it must be wav, flac or mp3")
            wanted = TransferRequest(song="", style=style, strength=strength, dream=dream, grain=grain, drums=drums, width=width, seed=seed)
            self.desk.styles.get(style)  # before anything is decoded
            sent = await self._added(song, _address(request))
            wanted = wanted.model_copy(update={"song": sent.id})
            job = await run_in_threadpool(orders.submit, self.desk, wanted, _address(request))
            return await run_in_threadpool(self._given, await orders.result(job, self.desk, format))

    async def train(
        self, request: gradio.Request, songs: list[gradio.FileData], title: str = "my style", minutes: float = 2.0
    ) -> gradio.FileData:
        """Make a style of songs, in so many minutes. Gives the style file, for `stylestream transfer -s FILE`."""
        with _told():
            wanted = TrainRequest(songs=["" for _ in songs], title=title, minutes=minutes)
            orders.check_training(self.desk.limits, wanted)  # before anything is decoded
            sent = [await self._added(file, _address(request)) for file in songs]
            wanted = wanted.model_copy(update={"songs": [song.id for song in sent]})
            job = await run_in_threadpool(orders.submit_training, self.desk, wanted, _address(request))
            await orders.finished(job, self.desk)
            assert job.style is not None  # it is done
            return await run_in_threadpool(self._given, job.style.path)

    async def _added(self, file: Any, address: str) -> Song:
        """Take what Gradio received; it says itself where it is, which is not to be believed."""
        path = Path(str(file.get("path", "")) if isinstance(file, dict) else "").resolve()
        if not path.is_relative_to(self.exchange) or not path.is_file():
            raise Refused("send the song first: gradio_client's handle_file does")
        upload = self.desk.new_upload(str(file.get("orig_name") or path.name))
        await run_in_threadpool(shutil.copyfile, path, upload)
        return await orders.decoded(self.desk, upload, address)

    def _given(self, path: Path) -> Any:
        """Lay a result where Gradio hands it out."""
        place = self.exchange / secrets.token_urlsafe(16)
        place.mkdir(mode=0o700)
        shutil.copyfile(path, place / path.name)
        return gradio.FileData(path=str(place / path.name), orig_name=path.name)


@contextmanager
def _told() -> Iterator[None]:
    """What is refused is said to the client, in one line."""
    try:
        yield
    except (Refused, ValueError) as error:
        raise gradio.Error(str(error), print_exception=False) from None


def _address(request: Any) -> str:
    """As the gate saw it; Gradio hands the request on inside its own."""
    return str(getattr(getattr(getattr(request, "request", None), "state", None), "address", "gradio_client"))


def mount(app: fastapi.FastAPI, desk: Desk, exchange: Path, *, root_path: str) -> fastapi.FastAPI:
    """Mount Gradio's API engine below the application's own routes; ``root_path`` is where a proxy shows them."""
    door = Door(desk, exchange)
    with gradio.Blocks(analytics_enabled=False, title="StyleStream") as blocks:
        for function in (door.styles, door.transfer, door.train):
            gradio.api(function, api_name=function.__name__, concurrency_limit=None)
    blocks.queue(max_size=desk.limits.queue * 2)
    root = root_path.strip("/")
    return gradio.mount_gradio_app(
        app,
        blocks,
        path="/",
        root_path=f"/{root}" if root else None,
        show_error=False,
        ssr_mode=False,
        max_file_size=int(desk.limits.upload_mb * 1e6),
        pwa=False,
    )
