"""Which attention kernels a search looks at."""

from contextlib import suppress
from dataclasses import replace

from estimators.analytic.attention import attention_kernel
from estimators.analytic.estimate import reach
from estimators.workload import Attention, Workload
from profiles.errors import InputError
from profiles.gpus import Gpu

WORTH = 0.005
"""Of the live peak: what another kernel has to save."""


def kernels_worth_a_look(workload: Workload, gpu: Gpu | None) -> tuple[Attention, ...]:
    """`auto`, and the memory-efficient kernel or eager attention where it may take less than what `auto` chooses.

    Flash and cuDNN attention lay their output out as the queries are. Where a model makes those head after head, as
    GPT-NeoX and Phi do, the output is copied for the next product, and kept twice; the memory-efficient kernel's is
    not. transformers' own products (`eager`) keep no more than torch's separate ones (`math`), in other sizes, and
    may leave less between blocks: only a replay can tell. No other kernel that a person can choose takes less.

    Args:
        workload: any run of the model in the precision and with the padding that is asked for, attention `auto`.
        gpu: the card.

    Raises:
        InputError: the workload cannot run on the card.
    """
    chosen = attention_kernel(workload, gpu)
    with suppress(InputError):  # grouped key-value heads, or a model with attention of its own
        if chosen in ("flash", "cudnn"):
            least = reach(replace(workload, attention="efficient"), gpu).live_bytes
            if least < (1 - WORTH) * reach(workload, gpu).live_bytes:
                return ("auto", "efficient")
        elif chosen == "math":
            attention_kernel(replace(workload, attention="eager"), gpu)
            return ("auto", "eager")
    return ("auto",)
