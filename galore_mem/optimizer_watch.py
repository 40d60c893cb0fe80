"""What a watcher is told of optimizers: which of their tensors are what, and when they refresh projectors."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from torch import Tensor

from galore_mem.witness import HOST


class Kept(NamedTuple):
    """A tensor that an optimizer keeps for a parameter."""

    category: str
    tensor: Tensor
    label: str


def kept_tensors(state: Mapping[str, Any], owner: str, on_host: Callable[[str, Tensor], bool]) -> Iterator[Kept]:
    """What an optimizer keeps for one parameter: torch's, ours, galore_torch's or bitsandbytes'.

    Args:
        state: the parameter's.
        owner: the parameter's name.
        on_host: of a state's key and tensor, whether a run on a GPU keeps it in host memory.
    """
    for key, value in state.items():
        if key == "projector" and not isinstance(value, Tensor):  # galore_torch keeps an object
            matrices = getattr(value, "ortho_matrix", None)
            for matrix in matrices if isinstance(matrices, list) else [matrices]:
                if isinstance(matrix, Tensor):
                    yield Kept("projectors", matrix, owner)
        elif not isinstance(value, Tensor):
            continue
        elif on_host(key, value):
            yield Kept(HOST, value, f"{owner}, {key}")
        elif key.startswith("projector"):
            yield Kept("projectors", value, owner)
        elif key == "accumulated_gradient":
            yield Kept("gradients", value, owner)
        else:
            yield Kept("optimizer_states", value, f"{owner}, {key}")


def is_scalar_on_host(key: str, value: Tensor) -> bool:
    """Whether it is the number of steps that torch keeps beside a GPU, as its device tells."""
    return key == "step" and value.device.type == "cpu" and value.dim() == 0


@contextmanager
def marked_refreshes(witness: Any) -> Iterator[None]:  # noqa: ANN401
    """Tell the witness of refreshes of projectors, ours and galore_torch's, of what is imported."""
    owners = (
        (sys.modules.get("galore_mem.optim"), "GaLore", "refresh"),
        (sys.modules.get("galore_torch.galore_projector"), "GaLoreProjector", "get_orthogonal_matrix"),
    )
    with ExitStack() as stack:
        for module, kind, name in owners:
            if module is not None:
                owner = getattr(module, kind)
                original = getattr(owner, name)
                stack.callback(setattr, owner, name, original)
                setattr(owner, name, _inside_refresh(original, witness))
        yield


def _inside_refresh(original: Callable[..., Any], witness: Any) -> Callable[..., Any]:  # noqa: ANN401
    def refresh(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with witness.during("refresh"):
            return original(*args, **kwargs)

    return refresh
