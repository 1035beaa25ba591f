"""A style in memory → its network: settings checked, weights fitted; several networks as one.

A style file may be a stranger's. Names and types of its settings are checked before anything is made of them, and a network is given its
size before it is given memory, so that a file that asks for a terabyte gets one line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from stylestream.draw import Draw, DrawConfig
from stylestream.features import FeatureConfig
from stylestream.style import StyleData

Config = TypeVar("Config", FeatureConfig, DrawConfig)

MAX_STEPS = 64  # of a network: a hostile style file must not run for ever


def network_of(data: StyleData, where: str) -> Draw:
    """The network of a style, with its weights.

    Parameters
    ----------
    where : str
        What the style is called in messages: a path, or names.

    Raises
    ------
    ValueError
        If it is a baseline's and no style's, its settings are not a network's, or the weights or frames do not fit it.
    """
    if "model" in data.model_config:  # a network of another kind says so; DrawConfig has no such field
        kind = str(data.model_config["model"])[:40]
        raise ValueError(f"{where}: a baseline ({kind}), not a style; `stylestream evaluate --baselines FOLDER` compares styles with it")
    config = _from_table(DrawConfig, data.model_config, where)
    if not 1 <= config.steps <= MAX_STEPS:
        raise ValueError(f"{where}: a network of {config.steps} steps; a style has 1 to {MAX_STEPS}; get the style file again")
    draw = _fitted(config, data, where)
    rows = features_of(data, where).n_bins
    if config.n_bins != rows:
        raise ValueError(f"{where}: a network of {config.n_bins} rows, frames of {rows}; get the style file again")
    return draw


def features_of(data: StyleData, where: str) -> FeatureConfig:
    """What a style's frames are. Raises ValueError as `network_of`."""
    return _from_table(FeatureConfig, data.feature_config, where)


def _fitted(config: DrawConfig, data: StyleData, where: str) -> Draw:
    try:
        with torch.device("meta"):  # sizes only: a config that asks for a terabyte gets none
            draw = Draw(config)
        draw.load_state_dict(data.weights, assign=True)
    except (RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{where}: the weights do not fit the network they are for ({reason}); get the style file again") from None
    return draw


def _from_table(kind: type[Config], table: Mapping[str, Any], where: str) -> Config:
    """A config dataclass from a style file's table; a stranger's file, so names and types are checked."""
    known = {f.name: type(f.default) for f in fields(kind)}
    for name, value in table.items():
        if name not in known:
            raise ValueError(f"{where}: unknown setting {name!r} in {kind.__name__}; upgrade with: pip install --upgrade stylestream")
        fits = isinstance(value, (int, float)) if known[name] is float else isinstance(value, known[name])
        if not fits or isinstance(value, bool):
            raise ValueError(f"{where}: {name} is {value!r}, not a {known[name].__name__}; get the style file again")
    try:
        return kind(**table)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{where}: {error}; get the style file again") from None


class Together(nn.Module):
    """Networks of different families, which cannot share weights, as one: each paints, and the canvases are mixed in dB.

    It has what `transfer.StyleTransfer` asks of a `Draw`. Its cost is that of all of them.

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
