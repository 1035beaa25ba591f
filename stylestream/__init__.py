"""StyleStream: play a song in the style of other music.

::

    song ──audio.load──▶ y ──features──▶ x ──view──▶ v ──DRAW.encode──▶ z₁…z_K ──DRAW.decode──▶ x̂ ──vocoder──▶ ŷ ──audio.save──▶ song
              ▲                                             (style file: weights, feature config, card)
    MIDI ──midi.render

A song becomes frames, frames become latents, latents become frames in another style, frames become a song.

    import stylestream as ss
    rock = ss.load_style("rock")
    y, sample_rate = ss.load("waltz.mp3")
    ss.save("waltz-rock.wav", rock.transfer(y, sample_rate), sample_rate)

The names below are imported when they are first used, so that ``import stylestream`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stylestream.audio import load, save
    from stylestream.midi import render
    from stylestream.style import find_style, list_styles
    from stylestream.transfer import StyleTransfer, load_style, transfer_file

__version__ = "0.1.0"
__all__ = ["StyleTransfer", "__version__", "find_style", "list_styles", "load", "load_style", "render", "save", "transfer_file"]

_home = {  # public name: the module that defines it
    "load": "audio",
    "save": "audio",
    "render": "midi",
    "find_style": "style",
    "list_styles": "style",
    "StyleTransfer": "transfer",
    "load_style": "transfer",
    "transfer_file": "transfer",
}


def __getattr__(name: str) -> Any:
    if name not in _home:
        raise AttributeError(f"module 'stylestream' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"stylestream.{_home[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
