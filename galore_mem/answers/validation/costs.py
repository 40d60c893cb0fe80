"""How long a row should take, so that a matrix keeps its time and a hanging row is noticed.

Assumptions, none of them measured by this project; `validate` notes the seconds that rows really took:

- matrix products at 200 TFLOP/s in half precision and 30 TFLOP/s in fp32 (a half, or less, of what large data-centre
  cards are sold for), 6 operations per parameter and token, 8 under checkpointing;
- an SVD of a k x M matrix (k <= M) at k^2 M = 4.4e10 per second: 7B's 224 decompositions in the ten minutes that the
  Q-GaLore paper (arXiv 2407.08296) states for them; this package's own refresh, matrix products and a QR, at thirty
  times that (it was 20 times as fast on one processor core at 1024 x 2736, and gains with width);
- 10 s to import torch, transformers and bitsandbytes, then 0.2 s per layer to trace two iterations, three times as much
  where every parameter steps on its own; workers do that side by side;
- 3 s for the context, kernels that load, the model, and writing; half of that to run it again.
"""

from dataclasses import dataclass

from estimators.analytic.parameters import parameter_count, workload_parameters
from estimators.workload import Workload

HALF_FLOPS, SINGLE_FLOPS = 200e12, 30e12
SVD_RATE = 4.4e10
OWN_REFRESH_RATE = 30 * SVD_RATE
IMPORT_SECONDS, LAYER_SECONDS, RUN_SECONDS = 10.0, 0.2, 4.5
ITERATIONS, REFRESHES = 5, 4
"""Of a row: three iterations measured, two of them with a refresh; two capped, with a refresh each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds."""

    ahead_seconds: float
    """Importing and predicting: on the processor, beside other rows."""
    turn_seconds: float
    """Measuring and running again: alone on the GPU."""


def cost_of(workload: Workload) -> Cost:
    """What one row takes, by the assumptions above."""
    layers = workload.model.num_hidden_layers
    stepwise = workload.method.update == "per-layer" or workload.method.parameterisation == "galore"
    ahead = IMPORT_SECONDS + LAYER_SECONDS * layers * (3 if stepwise else 1)
    turn = RUN_SECONDS + ITERATIONS * _step_seconds(workload) + REFRESHES * _refresh_seconds(workload)
    return Cost(ahead_seconds=ahead, turn_seconds=turn)


def total_seconds(workloads: list[Workload], workers: int) -> float:
    """A whole matrix: turns one after the other, or what the workers need to prepare them, whichever is longer."""
    costs = [cost_of(workload) for workload in workloads]
    if not costs:
        return 0.0
    turns = sum(cost.turn_seconds for cost in costs)
    return max(costs[0].ahead_seconds + turns, sum(cost.ahead_seconds for cost in costs) / workers)


def _step_seconds(workload: Workload) -> float:
    tokens = workload.batch.tokens * workload.batch.gradient_accumulation_steps
    operations = (8 if workload.checkpointing == "full" else 6) * parameter_count(workload.model) * tokens
    return operations / (SINGLE_FLOPS if workload.precision == "fp32" else HALF_FLOPS)


def _refresh_seconds(workload: Workload) -> float:
    method = workload.method
    rate = SVD_RATE if method.implementation == "galore-torch" else OWN_REFRESH_RATE
    sides = [(group.shape, group.count) for group in workload_parameters(workload) if group.projected]
    return sum(count * min(shape) ** 2 * max(shape) for shape, count in sides) / rate
