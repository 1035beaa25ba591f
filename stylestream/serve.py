"""The web page and its API: `jobs` behind HTTP.

One FastAPI application. ``/`` is the page (``web/``, plain HTML, CSS and JavaScript: nothing is built, nothing comes from elsewhere);
beside it are plain HTTP endpoints, which the page itself uses, and Gradio's API engine with the endpoints ``/styles``, ``/transfer`` and
``/train`` for ``gradio_client``. All of them stand in the same queue. Gradio's own widgets are not used: none plays two sounds under one
play head, or a sound that is still being made.

`Gate` stands before everything: who may ask, what, how often, how much; and no path of this machine leaves through it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import fastapi
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from stylestream import __version__, orders
from stylestream.files import whole_file
from stylestream.jobs import Desk, Job, Styles, TrainJob, TransferJob, songs_of
from stylestream.orders import MEDIA_TYPES, Suffix, TrainRequest, TransferRequest
from stylestream.uploads import Limits, Refused, Song, Sound, clean_name, in_words, png, spectrogram

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

WEB = Path(__file__).parent / "web"
EXCHANGE = "/exchange"  # what strangers see instead of the folder that Gradio keeps files in
JSON_BYTES = 256 * 1024  # of a request that is no upload
GRADIO = re.compile(r"/(config|gradio_api/(info|startup-events|upload|cancel|reset|queue/(join|data)|heartbeat/\w+|call/.+|file=.+))/?")
OWN = re.compile(r"/|/(web/[\w.-]+|health|metrics|openapi\.json|favicon\.ico|(styles|songs|jobs|transfer|train)(/.*)?)")
# The page's own files, sounds and pictures, and nothing else: the browser itself keeps everything on this machine.
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; style-src 'self' 'unsafe-inline'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'"
)


@dataclass(frozen=True)
class Settings:
    """How the page is offered."""

    host: str = "127.0.0.1"
    port: int = 7860
    auth: tuple[str, str] | None = None  # user, password
    trust_proxy: bool = False  # the visitor's address is the last of X-Forwarded-For
    device: str = "cpu"
    slots: int = 1
    root_path: str = ""  # below which a proxy shows it, as "/music"; the proxy may take it off, or not
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def of_environment(cls, **otherwise: Any) -> Settings:
        """What a host of Gradio applications says: GRADIO_SERVER_NAME, GRADIO_SERVER_PORT, GRADIO_ROOT_PATH; and STYLESTREAM_AUTH.

        Raises
        ------
        ValueError
            If the port is no number.
        """
        port, auth = os.environ.get("GRADIO_SERVER_PORT", ""), os.environ.get("STYLESTREAM_AUTH", "")
        if port and not port.isdecimal():
            raise ValueError(f"GRADIO_SERVER_PORT is {port!r}; it must be a number")
        said: dict[str, Any] = {"host": os.environ.get("GRADIO_SERVER_NAME"), "root_path": os.environ.get("GRADIO_ROOT_PATH")}
        said |= {"port": int(port) if port else None, "auth": auth_of(auth) if auth else None}
        return cls(**otherwise | {name: value for name, value in said.items() if value})


def auth_of(text: str) -> tuple[str, str]:
    """User and password of ``USER:PASSWORD``; ValueError if one is missing."""
    user, _, password = text.partition(":")
    if not (user and password):
        raise ValueError("it takes USER:PASSWORD, both at least one character")
    return user, password


# ---------------------------------------------------------------------------------------------------------------- the gate


class Gate:
    """ASGI middleware: host, password, known paths, requests a minute, sizes, and answers without paths or open doors.

    Parameters
    ----------
    exchange : Path
        Gradio's folder; its path becomes `EXCHANGE` in what goes out, and back again in what comes in.
    check_room : function
        Raises `Refused` where nothing more can be stored.
    answers : Counter
        What was answered, by status; counted here.
    """

    def __init__(self, app: Any, *, settings: Settings, exchange: Path, check_room: Callable[[], None], answers: Counter[int]) -> None:
        self.app, self.settings, self.exchange, self.check_room = app, settings, str(exchange).encode(), check_room
        self.answers = answers
        self._asked: dict[str, deque[float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        scope = self._below_root(scope)
        scope["state"] = {**scope.get("state", {}), "address": self._address(scope, headers)}
        refused, send = self._refusal(scope, headers), self._guarded(scope, send)
        if scope["method"] == "HEAD":  # as GET, without what it gives
            scope["method"], send = "GET", _without_body(send)
        refused = refused or self._unknown(scope) or await self._full(scope)
        if refused is not None:
            await refused(scope, receive, send)
            return
        gradio = GRADIO.fullmatch(scope["path"]) is not None
        limited = self._limited(scope, receive, send)
        try:
            if gradio:
                await self._veiled(scope, limited, send)
            else:
                await self.app(scope, limited, send)
        except _TooLarge:  # where no handler of the application's own has answered
            with suppress(RuntimeError):
                await _too_large()(scope, receive, send)

    # -- who, what, how often ---------------------------------------------------------------------------------------

    def _address(self, scope: Scope, headers: dict[str, str]) -> str:
        if self.settings.trust_proxy and headers.get("x-forwarded-for"):
            return headers["x-forwarded-for"].split(",")[-1].strip()[:64]
        return str((scope.get("client") or ("unknown",))[0])

    def _below_root(self, scope: Scope) -> Scope:
        """The path as the application knows it, where the proxy has left its own part on."""
        root, path = "/" + self.settings.root_path.strip("/"), scope["path"]
        if root == "/" or not (path == root or path.startswith(root + "/")):
            return {**scope}
        path = path[len(root) :]
        return {**scope, "path": path, "raw_path": path.encode()}

    @property
    def _alone(self) -> bool:
        """Whether only this machine is answered."""
        return self.settings.host in ("127.0.0.1", "localhost", "::1") and not self.settings.trust_proxy

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        path, host = scope["path"], headers.get("host", "")
        if self._alone and _name(host) not in ("127.0.0.1", "localhost", "[::1]", "testserver"):
            return _error(421, "this page answers only to its own machine's name")  # another site's name that points here (DNS rebinding)
        if not self._known(headers.get("authorization", ""), path):
            if "authorization" in headers and not self._may_ask(scope["state"]["address"]):  # who guesses gets as few tries as requests
                return _error(429, "too many requests from your address; wait a minute", {"Retry-After": "60"})
            return _error(401, "user and password, please", {"WWW-Authenticate": 'Basic realm="StyleStream", charset="UTF-8"'})
        if not path:  # what the page asks for is named from below its own folder
            return RedirectResponse(f"/{self.settings.root_path.strip('/')}/")
        if not (OWN.fullmatch(path) or GRADIO.fullmatch(path)):
            return _error(404, "there is nothing here")
        if scope["method"] not in ("GET", "HEAD"):
            origin = headers.get("origin")
            own = {host, headers.get("x-forwarded-host") if self.settings.trust_proxy else host}
            if origin and _authority(origin) not in own:
                return _error(403, "another site's page may not ask for this")
            if scope["method"] == "POST" and not self._may_ask(scope["state"]["address"]):
                return _error(429, "too many requests from your address; wait a minute", {"Retry-After": "60"})
        return None

    def _known(self, authorization: str, path: str) -> bool:
        if self.settings.auth is None or path == "/health":
            return True
        kind, _, value = authorization.partition(" ")
        with suppress(binascii.Error, ValueError):
            given = base64.b64decode(value, validate=True)
            return kind.lower() == "basic" and hmac.compare_digest(given, ":".join(self.settings.auth).encode())
        return False

    def _may_ask(self, address: str) -> bool:
        now = time.monotonic()
        if len(self._asked) > 10_000:  # what has not asked for a minute is forgotten
            self._asked = {who: times for who, times in self._asked.items() if times and now - times[-1] < 60}
        times = self._asked.setdefault(address, deque())
        while times and now - times[0] >= 60:
            times.popleft()
        if len(times) >= self.settings.limits.address_requests:
            return False
        times.append(now)
        return True

    def _unknown(self, scope: Scope) -> Response | None:
        """Of the page's own paths, those that are none, or not to be asked so: Gradio's application must not answer for them."""
        if not OWN.fullmatch(scope["path"]):
            return None
        found = [(route.matches(scope)[0], route) for route in self.app.router.routes if isinstance(route, Route)]
        if any(match is Match.FULL for match, _ in found):
            return None
        allowed = sorted({method for match, route in found if match is Match.PARTIAL for method in route.methods or ()})
        if not allowed:
            return _error(404, "there is nothing here")
        return _error(405, f"ask for this by {' or '.join(allowed)}", {"Allow": ", ".join(allowed)})

    # -- how much ---------------------------------------------------------------------------------------------------

    async def _full(self, scope: Scope) -> Response | None:
        if scope["method"] == "POST" and scope["path"].startswith("/gradio_api/upload"):
            try:
                await run_in_threadpool(self.check_room)
            except Refused as error:
                return _error(error.status, str(error))
        return None

    def _limited(self, scope: Scope, receive: Receive, send: Send) -> Receive:
        upload = scope["path"].rstrip("/") in ("/songs", "/transfer", "/gradio_api/upload")
        left = [int(self.settings.limits.upload_mb * 1e6) + 100_000 if upload else JSON_BYTES]

        async def limited() -> MutableMapping[str, Any]:
            message = await receive()
            left[0] -= len(message.get("body", b""))
            if left[0] < 0:
                raise _TooLarge
            return message

        return limited

    def _guarded(self, scope: Scope, send: Send) -> Send:
        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.answers[message["status"]] += 1
                drop = (b"access-control-allow-origin", b"access-control-allow-credentials", b"server")
                headers = [(name, value) for name, value in message.get("headers", []) if name.lower() not in drop]
                headers += [(b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff")]
                headers += [(b"referrer-policy", b"no-referrer")]
                if self._alone:  # a page of another site may not frame this one; one that shows it to all may be shown anywhere
                    headers += [(b"x-frame-options", b"SAMEORIGIN")]
                message = {**message, "headers": headers}
            await send(message)

        return guarded

    # -- no path leaves ---------------------------------------------------------------------------------------------

    async def _veiled(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Exchange Gradio's folder for `EXCHANGE` in its answers, and back in what it is asked."""
        path = scope["path"].replace(EXCHANGE, self.exchange.decode(), 1) if "/file=" in scope["path"] else scope["path"]
        headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"accept-encoding"]  # packed answers hide paths
        scope = {**scope, "path": path, "raw_path": path.encode(), "headers": headers}
        if not scope["path"].startswith("/gradio_api/upload") and scope["method"] == "POST":
            try:
                asked = json.loads(await _whole(receive) or b"null")
                body = json.dumps(_own_files(asked, self.exchange.decode())).encode()
            except (ValueError, RecursionError) as error:
                await _error(422, str(error) if isinstance(error, Refused) else "that is not JSON")(scope, receive, send)
                return
            scope["headers"] = [(name, value) for name, value in headers if name.lower() != b"content-length"]
            scope["headers"].append((b"content-length", str(len(body)).encode()))
            receive = _replay(body, receive)
        held: list[MutableMapping[str, Any]] = []

        async def veiled(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                kind = dict(message.get("headers", [])).get(b"content-type", b"")
                if b"json" in kind or b"event-stream" in kind or b"text/plain" in kind:
                    # the length changes; without one the answer goes out in chunks
                    message["headers"] = [(name, value) for name, value in message["headers"] if name.lower() != b"content-length"]
                    held.append(message)
                await send(message)
            else:
                await send({**message, "body": message.get("body", b"").replace(self.exchange, EXCHANGE.encode())} if held else message)

        await self.app(scope, receive, veiled)


def _without_body(send: Send) -> Send:
    async def bare(message: MutableMapping[str, Any]) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return bare


class _TooLarge(Exception):
    """A body is larger than may be."""


def _own_files(value: Any, exchange: str) -> Any:
    """Let only files pass that were sent to Gradio: of any other it would read what this machine, or another, has at that place."""
    if isinstance(value, list):
        return [_own_files(item, exchange) for item in value]
    if not isinstance(value, dict):
        return value
    if "path" not in value and "url" not in value:
        return {key: _own_files(item, exchange) for key, item in value.items()}
    path = value.get("path")
    if not isinstance(path, str) or not re.fullmatch(EXCHANGE + r"/[\w-]+/[^/\\]+", path) or path.endswith("/.."):
        raise Refused("send the song first: gradio_client's handle_file does", 422)
    name = value.get("orig_name")
    return {
        "path": exchange + path[len(EXCHANGE) :],
        "orig_name": name if isinstance(name, str) else None,
        "meta": {"_type": "gradio.FileData"},
    }


async def _whole(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message["type"] == "http.request" and message.get("more_body", False)
    return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    bodies = [body]

    async def replay() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": bodies.pop(), "more_body": False} if bodies else await receive()

    return replay


def _name(authority: str) -> str:
    return re.sub(r":\d+$", "", authority)


def _authority(origin: str) -> str:
    return origin.partition("://")[2]


def _too_large() -> JSONResponse:
    return _error(413, "that is larger than may be sent here", {"Connection": "close"})


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": message}, status, headers)


# ---------------------------------------------------------------------------------------------------------------- what is asked


class Error(BaseModel):
    """What went wrong, in one line."""

    error: str


Name = Annotated[str, fastapi.Query(max_length=200, description="the song's file name")]


def _answers(*codes: int, kinds: Iterable[str] = ()) -> dict[int | str, dict[str, Any]]:
    """What an endpoint may answer, for its description: errors by code, and kinds of content that are not JSON."""
    words = {404: "it is not here", 409: "not yet", 413: "too large", 422: "it cannot be used", 429: "too many", 503: "the queue is full"}
    words |= {400: "it cannot be read", 403: "not allowed here", 507: "this machine is full"}
    good: dict[int | str, dict[str, Any]] = {200: {"content": {kind: {} for kind in kinds}}} if kinds else {}
    return good | {code: {"model": Error, "description": words[code]} for code in codes}


# ---------------------------------------------------------------------------------------------------------------- the application


def create_app(settings: Settings = Settings(), *, folder: Path | None = None, gradio: bool = True) -> Any:
    """Make the application: page, API, metrics; with its own private folder, removed when it shuts down.

    Parameters
    ----------
    folder : Path, optional
        Where songs and results lie; a new private folder in the system's temporary one when not given.
    gradio : bool
        With the endpoints for ``gradio_client``.

    Returns
    -------
    An ASGI application; ``app.state.desk`` is its `Desk`.
    """
    root = Path(tempfile.mkdtemp(prefix="stylestream-")) if folder is None else folder
    exchange = (root / "exchange").resolve()
    for place in (root / "desk", exchange):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    desk = Desk(root / "desk", Styles(settings.device), settings.limits, slots=settings.slots, exchange=exchange)

    @asynccontextmanager
    async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(desk.close)
        shutil.rmtree(root, ignore_errors=True)

    app = fastapi.FastAPI(
        title="StyleStream",
        version=__version__,
        description="Play a song in the style of other music. `docs/page.md` has examples.",
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.desk, app.state.root = desk, root
    _add_errors(app)
    _add_page(app, desk)
    _add_songs(app, desk)
    _add_jobs(app, desk)
    _add_results(app, desk)
    answers: Counter[int] = Counter()  # by status
    _add_metrics(app, desk, answers)
    if gradio:  # its application takes every path that is left
        app = _with_gradio(app, desk, settings, exchange)
    gate = Gate(app, settings=settings, exchange=exchange, check_room=desk.check_room, answers=answers)
    gate.state = app.state  # type: ignore[attr-defined]
    return gate


def _add_errors(app: fastapi.FastAPI) -> None:
    """Every error is ``{"error": one line}``."""

    @app.exception_handler(Refused)
    async def refused(request: fastapi.Request, error: Refused) -> Response:
        return _error(error.status, str(error), {"Retry-After": "60"} if error.status in (429, 503) else None)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: fastapi.Request, error: RequestValidationError) -> Response:
        lines = [f"{'.'.join(str(part) for part in e['loc'][1:]) or 'the request'}: {e['msg']}" for e in error.errors()[:3]]
        return _error(422, "; ".join(lines))

    @app.exception_handler(HTTPException)
    async def http(request: fastapi.Request, error: HTTPException) -> Response:
        return _error(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(_TooLarge)
    async def large(request: fastapi.Request, error: _TooLarge) -> Response:
        return _too_large()

    @app.exception_handler(Exception)
    async def unexpected(request: fastapi.Request, error: Exception) -> Response:
        return _error(500, in_words(error))


def _add_page(app: fastapi.FastAPI, desk: Desk) -> None:
    version = secrets.token_hex(4)  # of this start: a browser asks anew after an update

    @app.get("/", include_in_schema=False)
    def page() -> Response:
        limits = desk.limits
        told = {
            "version": __version__,
            "upload_mb": limits.upload_mb,
            "song_seconds": limits.song_seconds,
            "train_minutes": limits.train_minutes,
            "train_songs": limits.train_songs,
            "keep_minutes": limits.keep_minutes,
        }
        html = (WEB / "index.html").read_text(encoding="utf-8").replace("{{version}}", version)
        html = html.replace("{{settings}}", json.dumps(told).replace("<", "\\u003c"))
        return Response(html, media_type="text/html; charset=utf-8", headers={"Cache-Control": "no-cache"})

    @app.get("/web/{name}", include_in_schema=False)
    def web(name: str) -> Response:
        kinds = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
        path = WEB / clean_name(name)
        if path.suffix not in kinds or not path.is_file():
            raise Refused("there is nothing here", 404)
        return Response(path.read_bytes(), media_type=kinds[path.suffix], headers={"Cache-Control": "no-cache"})

    @app.get("/favicon.ico", include_in_schema=False)
    def favicon() -> Response:
        return Response((WEB / "icon.svg").read_bytes(), media_type="image/svg+xml")

    @app.get("/health")
    async def health() -> dict[str, str]:  # not in the pool of threads, which may be busy
        """Whether the server is alive."""
        return {"status": "ok", "version": __version__}

    @app.get("/styles")
    def styles() -> list[dict[str, Any]]:
        """The styles on offer, with what their cards say."""
        return [style.view() for style in desk.styles.offered()]

    @app.get("/styles/{name}", responses=_answers(404, 422))
    def style(name: str) -> dict[str, Any]:
        """One style; also one's own, by its name."""
        return desk.styles.get(name).view()

    @app.get("/styles/{name}/sample.flac", response_class=Response, responses=_answers(404, 422, kinds=["audio/flac"]))
    def sample(name: str) -> Response:
        """Some seconds of the bundled song in the style."""
        found = desk.styles.get(name)
        path = _kept(desk.folder / "samples" / f"{clean_name(found.name)}.flac", desk.styles.sample(found)[0])
        return FileResponse(path, media_type="audio/flac", headers={"Cache-Control": "max-age=3600"})

    @app.get("/styles/{name}/picture.png", response_class=Response, responses=_answers(404, 422, kinds=["image/png"]))
    def picture(name: str) -> Response:
        """Their spectrogram: grey, a row for each third of a semitone, C1 at the bottom."""
        data = desk.styles.sample(desk.styles.get(name))[1]
        return Response(data, media_type="image/png", headers={"Cache-Control": "max-age=3600"})


async def _received(request: fastapi.Request, desk: Desk, name: str) -> Song:
    """Write a request's body to a private file, and decode it."""
    size = request.headers.get("content-length", "")
    if size.isdecimal() and int(size) > desk.limits.upload_mb * 1e6:
        raise Refused(f"that is {int(size) / 1e6:.0f} MB; at most {desk.limits.upload_mb:g} MB are taken here", 413)
    await run_in_threadpool(desk.check_room)
    upload = desk.new_upload(name)
    received = 0
    try:
        with open(upload, "wb") as file:
            async for part in request.stream():
                received += len(part)
                if received > desk.limits.upload_mb * 1e6:
                    raise Refused(f"that is more than {desk.limits.upload_mb:g} MB, which is all that is taken here", 413)
                file.write(part)
    except BaseException:
        shutil.rmtree(upload.parent, ignore_errors=True)
        raise
    return await orders.decoded(desk, upload, request.state.address)


def _sounding(sound: Sound, number: int) -> Response:
    data = sound.part(number)
    if data is None:
        raise Refused("there is no such part, or not yet", 404)
    return Response(data, media_type="audio/flac", headers={"Cache-Control": "no-store"})


BODY = {"requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}}
Part = Annotated[int, fastapi.Path(ge=0, le=1_000_000)]


def _add_songs(app: fastapi.FastAPI, desk: Desk) -> None:
    @app.post("/songs", status_code=201, openapi_extra=BODY, responses=_answers(413, 422, 429, 507))
    async def send_song(request: fastapi.Request, name: Name = "song") -> dict[str, Any]:
        """Send a song: the file's bytes are the body. Any audio, the sound of a video, or MIDI."""
        return (await _received(request, desk, name)).view()

    @app.get("/songs/{song}", responses=_answers(404, 422))
    def song_view(song: str) -> dict[str, Any]:
        """What is known of a song."""
        return desk.song(song).view()

    @app.get("/songs/{song}/sound/{number}", response_class=Response, responses=_answers(404, 422, kinds=["audio/flac"]))
    def song_sound(song: str, number: Part) -> Response:
        """A part of the song, some seconds, as FLAC."""
        return _sounding(desk.song(song).sound, number)

    @app.get("/songs/{song}/peaks", responses=_answers(404, 422))
    def song_peaks(song: str) -> list[int]:
        """The song's waveform: the highest level in each of at most 800 columns, 0 to 255."""
        return desk.song(song).sound.peaks()

    @app.get("/songs/{song}/picture.png", response_class=Response, responses=_answers(404, 422, kinds=["image/png"]))
    def song_picture(song: str) -> Response:
        """The song's spectrogram: grey, a row for each third of a semitone, C1 at the bottom."""
        return Response(desk.picture(desk.song(song)), media_type="image/png")

    @app.delete("/songs/{song}", responses=_answers(404, 409, 422))
    def forget_song(song: str) -> dict[str, bool]:
        """Remove a song from this machine now."""
        found = desk.song(song)
        if song == "lamplight" or any(found in songs_of(job) for job in desk.jobs.values() if not job.finished):
            raise Refused("the song is in use", 409)
        desk.remove_song(found)
        return {"removed": True}


def _kept(path: Path, data: bytes) -> Path:
    """A file of this, for parts of it to be asked for, as a player does that seeks."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_bytes(data)
    return path


def _picture(sound: Sound) -> bytes:
    """The picture of a finished sound, made once."""
    path = sound.path.with_name(sound.path.name + ".png")
    with sound.making:
        if not path.exists():
            with whole_file(path) as temporary:
                temporary.write_bytes(png(spectrogram(sound)))
        return path.read_bytes()


def _add_jobs(app: fastapi.FastAPI, desk: Desk) -> None:
    """What is asked for, and how far it is."""

    @app.post("/jobs", status_code=201, responses=_answers(404, 422, 429, 503))
    def start(request: fastapi.Request, body: TransferRequest, watched: bool = False) -> dict[str, Any]:
        """Play a song that was sent. `watched`: end the work if nobody asks for it for a minute and a half."""
        return orders.submit(desk, body, request.state.address, watched=watched).view()

    @app.post("/train", status_code=201, responses=_answers(403, 404, 422, 429, 503))
    def start_training(request: fastapi.Request, body: TrainRequest, watched: bool = False) -> dict[str, Any]:
        """Make a style of songs that were sent. `/jobs/{job}` tells how far it is, `/jobs/{job}/style.safetensors` is the style."""
        return orders.submit_training(desk, body, request.state.address, watched=watched).view()

    @app.post(
        "/transfer",
        response_class=FileResponse,
        openapi_extra=BODY,
        responses=_answers(404, 413, 422, 429, 503, 507, kinds=MEDIA_TYPES.values()),
    )
    async def transfer(
        request: fastapi.Request,
        style: Annotated[str, fastapi.Query(max_length=64)],
        name: Name = "song",
        format: Suffix = "wav",
        strength: Annotated[float, fastapi.Query(ge=0, le=1, allow_inf_nan=False)] = 1.0,
        dream: Annotated[float, fastapi.Query(ge=0, le=64, allow_inf_nan=False)] = 0.0,
        grain: Annotated[float, fastapi.Query(ge=0, le=1, allow_inf_nan=False)] = 0.5,
        drums: Annotated[float, fastapi.Query(ge=0, le=1, allow_inf_nan=False)] = 0.0,
        width: Annotated[float, fastapi.Query(ge=0, le=1, allow_inf_nan=False)] = 0.0,
        seed: Annotated[int, fastapi.Query(ge=0, lt=2**63)] = 0,
    ) -> Response:
        """Send a song, get it in a style: both are the bodies. Waits in the queue like everyone."""
        if unknown := set(request.query_params) - ({*TransferRequest.model_fields, "name", "format"} - {"song"}):
            raise Refused(f"unknown: {', '.join(sorted(unknown))}; see /openapi.json", 422)
        desk.styles.get(style)  # before the upload
        song = await _received(request, desk, name)
        dials = {"strength": strength, "dream": dream, "grain": grain, "drums": drums, "width": width}
        asked = TransferRequest(song=song.id, style=style, **dials, seed=seed)
        job = await run_in_threadpool(orders.submit, desk, asked, request.state.address)
        path = await orders.result(job, desk, format, gone=request.is_disconnected)
        return FileResponse(path, media_type=MEDIA_TYPES[format], filename=path.name)

    @app.get("/jobs/{job}", responses=_answers(404, 422))
    def job_view(job: str) -> dict[str, Any]:
        """How far a job is."""
        return desk.job(job).view()

    @app.delete("/jobs/{job}", responses=_answers(404, 409, 422))
    def cancel(job: str, forget: bool = False) -> dict[str, Any]:
        """Cancel a job. `forget`: if it is finished, remove all that was made."""
        found = desk.job(job)
        if forget and desk.style_in_use(found):
            raise Refused("a song in this style is in work", 409)
        desk.cancel(found)
        if forget and found.finished:
            desk.remove_job(found)
        return found.view()

    @app.get(
        "/jobs/{job}/events",
        response_class=StreamingResponse,
        responses=_answers(404, 422, kinds=["text/event-stream"]),
    )
    def events(job: str) -> Response:
        """What `/jobs/{job}` tells, again whenever it changes, as server-sent events, until the job is finished."""
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_events(desk.job(job), desk), media_type="text/event-stream", headers=headers)


def _add_results(app: fastapi.FastAPI, desk: Desk) -> None:
    """What comes of it: sound, pictures, files."""

    @app.get("/jobs/{job}/sound/{number}", response_class=Response, responses=_answers(404, 422, kinds=["audio/flac"]))
    def job_sound(job: str, number: Part) -> Response:
        """A part of the result, some seconds, as FLAC; also while the rest is being made."""
        return _sounding(_transferred(desk, job).sound, number)

    @app.get("/jobs/{job}/peaks", responses=_answers(404, 422))
    def job_peaks(job: str) -> list[int]:
        """The result's waveform, as that of a song."""
        return _transferred(desk, job).sound.peaks()

    @app.get("/jobs/{job}/picture.png", response_class=Response, responses=_answers(404, 409, 422, kinds=["image/png"]))
    def job_picture(job: str) -> Response:
        """The result's spectrogram, as that of a song."""
        found = _transferred(desk, job)
        if found.state != "done":
            raise Refused("the result is not finished yet; wait until it is", 409)
        return Response(_picture(found.made), media_type="image/png")

    @app.get("/jobs/{job}/canvases.png", response_class=Response, responses=_answers(404, 422, kinds=["image/png"]))
    def canvases(job: str) -> Response:
        """Eight seconds of the song, the canvas after each step of the network, and the last with its texture, one below the other."""
        painted = _transferred(desk, job).canvases
        if painted is None:
            raise Refused("nothing is painted yet", 404)
        return Response(painted[1], media_type="image/png", headers={"X-Canvases": str(painted[0])})

    @app.get(
        "/jobs/{job}/result.{format}",
        response_class=FileResponse,
        responses=_answers(404, 409, 422, kinds=MEDIA_TYPES.values()),
    )
    def result(job: str, format: Suffix) -> Response:
        """The finished result as a file."""
        path = orders.file_of(_transferred(desk, job), format)
        return FileResponse(path, media_type=MEDIA_TYPES[format], filename=path.name)

    @app.get("/jobs/{job}/style.safetensors", response_class=FileResponse, responses=_answers(404, 409, 422))
    def style_file(job: str) -> Response:
        """The style that a training made."""
        style = _trained(desk, job).style
        if style is None:
            raise Refused("the style is not finished yet; wait until it is", 409)
        return FileResponse(style.path, media_type="application/octet-stream", filename=style.path.name)

    @app.get("/jobs/{job}/excerpts/{number}", response_class=Response, responses=_answers(404, 422, kinds=["audio/flac"]))
    def excerpt(job: str, number: Part) -> Response:
        """Some seconds in the style that a training made."""
        excerpts = _trained(desk, job).excerpts
        if number >= len(excerpts):
            raise Refused("there is no such excerpt, or not yet", 404)
        return FileResponse(_kept(desk.job(job).folder / f"excerpt-{number}.flac", excerpts[number][1]), media_type="audio/flac")


def _transferred(desk: Desk, id: str) -> TransferJob:
    job = desk.job(id)
    if not isinstance(job, TransferJob):
        raise Refused("that is a training, not a song", 404)
    return job


def _trained(desk: Desk, id: str) -> TrainJob:
    job = desk.job(id)
    if not isinstance(job, TrainJob):
        raise Refused("that is a song, not a training", 404)
    return job


async def _events(job: Job, desk: Desk) -> AsyncIterator[str]:
    seen, told = -1, 0.0
    while True:
        job.used = time.monotonic()
        finished = job.finished  # before the view: nothing may come between them
        if job.version != seen:
            seen, told = job.version, time.monotonic()
            yield f"data: {json.dumps(job.view())}\n\n"
        elif time.monotonic() - told > 10:
            told = time.monotonic()
            yield ": still here\n\n"
        if finished or desk.closing:
            return
        await asyncio.sleep(0.1)


# ---------------------------------------------------------------------------------------------------------------- gradio


def _with_gradio(app: fastapi.FastAPI, desk: Desk, settings: Settings, exchange: Path) -> fastapi.FastAPI:
    """The endpoints for ``gradio_client``; Gradio reads its environment when it is imported or mounted, and has no other way to be told."""
    os.environ["GRADIO_TEMP_DIR"] = str(exchange)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = os.environ["HF_HUB_OFFLINE"] = "1"
    from stylestream import gradio_api

    return gradio_api.mount(app, desk, exchange, root_path=settings.root_path)


# ---------------------------------------------------------------------------------------------------------------- metrics


def _add_metrics(app: fastapi.FastAPI, desk: Desk, answers: Counter[int]) -> None:
    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> Response:
        """Numbers for Prometheus."""
        return PlainTextResponse("\n".join(metric_lines(desk, answers)) + "\n", media_type="text/plain; version=0.0.4; charset=utf-8")


def metric_lines(desk: Desk, answered: Counter[int]) -> Iterator[str]:
    """Yield what Prometheus reads: jobs, queue, seconds, failures, requests, memory."""

    def metric(name: str, kind: str, help: str, values: dict[str, float]) -> Iterator[str]:
        yield f"# HELP stylestream_{name} {help}"
        yield f"# TYPE stylestream_{name} {kind}"
        for labels, value in values.items():
            yield f"stylestream_{name}{{{labels}}} {value:.10g}" if labels else f"stylestream_{name} {value:.10g}"

    ended = {f'kind="{kind}",state="{state}"': 0.0 for kind in ("transfer", "train") for state in ("done", "failed", "cancelled")}
    ended |= {f'kind="{kind}",state="{state}"': float(count) for (kind, state), count in sorted(desk.counts.items())}
    yield from metric("jobs_total", "counter", "Jobs that ended, by kind and how; decode: uploads.", ended)
    for name, help, values in (
        ("jobs_waiting", "Jobs in the queue.", desk.queue_lengths()),
        ("jobs_running", "Jobs in work.", desk.running()),
    ):
        yield from metric(name, "gauge", help, {f'kind="{kind}"': float(count) for kind, count in values.items()})
    spent = {f'kind="{kind}"': float(desk.work_seconds[kind]) for kind in ("transfer", "train")}
    yield from metric("work_seconds_total", "counter", "Seconds spent on jobs.", spent)
    yield from metric("music_seconds_total", "counter", "Seconds of music that were transferred.", {"": desk.music_seconds})
    yield from metric("speed_ratio", "gauge", "Seconds of music a second, lately.", {"": desk.speed})
    yield from metric("stored_bytes", "gauge", "Bytes of songs and results.", {"": float(desk.stored_bytes())})
    answers = {f'status="{status}"': float(count) for status, count in sorted(answered.items())}
    yield from metric("answers_total", "counter", "HTTP answers by status.", answers)
    yield from metric(
        "cpu_seconds_total", "counter", "Processor time of the server process; its children are not in it.", {"": time.process_time()}
    )
    memory = _memory_bytes()
    if memory:
        yield from metric("resident_memory_bytes", "gauge", "Memory of the server process.", {"": memory})


def _memory_bytes() -> float:
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * float(os.sysconf("SC_PAGE_SIZE"))
    return 0.0


# ---------------------------------------------------------------------------------------------------------------- running


def run(settings: Settings, *, ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve until interrupted.

    Parameters
    ----------
    ready : callable
        Gets the page's address once it can be opened.

    Raises
    ------
    ValueError
        If a setting is wrong.
    OSError
        If the address cannot be bound.
    """
    import uvicorn

    settings.limits.check()
    bound = _bind(settings.host, settings.port)
    port = bound.getsockname()[1]
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=3))
    started, ending = server.startup, server.handle_exit

    def handle_exit(number: int, frame: Any) -> None:
        app.state.desk.closing = True  # who waits for a job goes
        ending(number, frame)

    async def startup(sockets: list[socket.socket] | None = None) -> None:
        await started(sockets)
        host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
        ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    threading.Thread(target=app.state.desk.styles.sample_all, daemon=True).start()
    server.startup, server.handle_exit = startup, handle_exit  # type: ignore[method-assign, assignment]
    try:
        server.run([bound])
    finally:
        app.state.desk.close()
        shutil.rmtree(app.state.root, ignore_errors=True)


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with ExitStack() as stack:
            bound = stack.enter_context(socket.socket(family, kind, protocol))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            stack.pop_all()  # it stays open
            return bound
    except OSError as error:
        raise OSError(f"cannot serve at {host}:{port} ({error.strerror}); choose another with --port, or --host") from None
