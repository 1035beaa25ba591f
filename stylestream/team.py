"""Several processes that train as one: what they reckon is what one process would with the whole batch.

Every process draws the whole batch and takes every n-th row of it; what is a mean over the batch is averaged over the team, and what is
decided by the clock is decided by the first process. Only the first one writes. `assemble` joins the team that ``accelerate launch``
started, on one machine or on many; alone, everything here does nothing.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Shared = TypeVar("Shared")
PATIENCE = datetime.timedelta(days=7)  # of those that wait while the first process renders: torch's own is half an hour


@dataclass(frozen=True)
class Team:
    """One process's place among the others."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    control: Any = None  # a process group on the CPU: what is agreed on must not wait for a GPU

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def rows(self, x: Any) -> Any:
        """This process's share of a batch: every n-th row, so that the first rows of all are the first of the batch.

        >>> Team(1, 2).rows(torch.arange(6))
        tensor([1, 3, 5])
        """
        if self.size == 1:
            return x
        return tuple(self.rows(part) for part in x) if isinstance(x, tuple) else x[self.rank :: self.size]

    @property
    def noise(self) -> Callable[[Tensor], Tensor]:
        """Standard normal noise like a tensor (B, …), the rows that one process would have drawn for them."""
        return torch.randn_like if self.size == 1 else self._rows_of_noise

    def _rows_of_noise(self, like: Tensor) -> Tensor:
        whole = torch.empty_strided((self.size * like.shape[0], *like.shape[1:]), torch.empty_like(like).stride(), device=like.device)
        return self.rows(whole.normal_()).to(like.dtype)

    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over the team, in one message."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
        torch.distributed.all_reduce(flat)
        for tensor, part in zip(tensors, (flat / self.size).split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view(tensor.shape))

    def total(self, x: Tensor) -> Tensor:
        """Sum over the team."""
        if self.size > 1:
            torch.distributed.all_reduce(x)
        return x

    def agree(self, seconds: float, *flags: bool) -> tuple[float, ...]:
        """The first process's seconds, and for each flag how many processes raise it."""
        if self.size == 1:
            return (seconds, *map(float, flags))
        said = torch.tensor([seconds if self.leads else 0.0, *map(float, flags)], dtype=torch.float64)
        torch.distributed.all_reduce(said, group=self.control)
        return tuple(said.tolist())

    def share(self, value: Shared) -> Shared:
        """What the first process has, given to all."""
        if self.size == 1:
            return value
        box: list[Any] = [value if self.leads else None]
        torch.distributed.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def first(self, function: Callable[[], Shared]) -> Shared:
        """Call a function in the first process; all get its result, or its error.

        Raises
        ------
        ValueError, OSError
            What it raised.
        """
        if self.size == 1:
            return function()
        result: Any = None
        if self.leads:
            try:
                result = function()
            except (ValueError, OSError) as error:
                result = error
        result = self.share(result)
        if isinstance(result, (ValueError, OSError)):
            raise result
        return result


ALONE = Team()


def assemble(device: str = "cpu") -> Team:
    """Join the processes that ``accelerate launch`` started with this one; alone if it did not.

    Parameters
    ----------
    device : str
        ``cuda`` gives each process of a machine a GPU of its own.

    Raises
    ------
    ModuleNotFoundError
        If several were started and accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Team(device=device)
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu")
    own = f"cuda:{state.local_process_index}" if device == "cuda" else device
    control = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
    return Team(state.process_index, state.num_processes, own, control)
