"""Training runs made up for reports: layers, phases, times; of any length, the same every time."""

from typing import Any

from galore_mem.tapes.table import EventTable
from galore_mem.tapes.tape import DeviceTape, Mark, Tape

MIB = 1 << 20
STEP_US = 1_000


class _Writer:
    def __init__(self) -> None:
        self.table = EventTable()
        self.marks: list[Mark] = []
        self.phase = "between"
        self.block = 0

    def enter(self, kind: str, name: str) -> None:
        if kind == "phase":
            self.phase = name
        self.marks.append(Mark(row=len(self.table), kind=kind, name=name, time_us=len(self.table) * STEP_US))

    def alloc(self, size: int, category: str, module: str, operator: str) -> int:
        self.block += 1
        self._append("alloc", self.block, size, category, module, operator)
        return self.block

    def free(self, block: int) -> None:
        self._append("free", block, 0, "", "", "")

    def _append(self, action: str, block: int, size: int, category: str, module: str, operator: str) -> None:
        self.table.append(
            action,
            block,
            size,
            time_us=len(self.table) * STEP_US,
            category=category,
            phase=self.phase,
            module=module,
            operator=operator,
        )


def made_run(
    *, layers: int = 4, steps: int = 3, prefix: str = "model.layers", metadata: dict[str, Any] | None = None
) -> Tape:
    """AdamW on a model of two matrices a layer: about `11 * layers * steps` events."""
    run = _Writer()
    for layer in range(layers):
        for name, size in (("attn", 4 * MIB), ("mlp", 11 * MIB)):
            run.alloc(size, "weights", f"{prefix}.{layer}.{name}.weight", "model")
    for step in range(steps):
        _step(run, step, layers, prefix)
    device = DeviceTape(events=run.table, marks=tuple(run.marks))
    plain = {"environment": {"python": "3.11", "torch": "2.13.0"}, "command": "python train.py"}
    return Tape(devices=(device,), source="measured", metadata=plain if metadata is None else metadata)


def _step(run: _Writer, step: int, layers: int, prefix: str) -> None:
    run.enter("iteration", "first" if step == 0 else "steady")
    run.enter("phase", "forward")
    kept = [run.alloc(3 * MIB + 512 * layer, "activations", f"{prefix}.{layer}.mlp", "mm") for layer in range(layers)]
    run.enter("phase", "loss")
    logits = run.alloc(6 * MIB, "logits", "lm_head", "log_softmax")
    run.enter("phase", "backward")
    gradients = []
    for layer in reversed(range(layers)):
        scratch = run.alloc(2 * MIB, "temporaries", f"{prefix}.{layer}.attn", "bmm")
        gradients += [
            run.alloc(4 * MIB, "gradients", f"{prefix}.{layer}.attn", "mm"),
            run.alloc(11 * MIB, "gradients", f"{prefix}.{layer}.mlp", "mm"),
        ]
        run.free(scratch)
        run.free(kept.pop())
    run.free(logits)
    run.enter("phase", "step")
    if step == 0:
        for layer in range(layers):
            for state in ("exp_avg", "exp_avg_sq"):
                run.alloc(15 * MIB, "optimizer_states", f"{prefix}.{layer}.mlp.weight, {state}", "zeros_like")
    foreach = run.alloc(15 * MIB * layers, "temporaries", "", "_foreach_sqrt")
    run.free(foreach)
    run.enter("phase", "between")
    for gradient in gradients:
        run.free(gradient)
