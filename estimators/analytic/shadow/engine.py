"""Backward: torch's engine reduced to what decides lifetimes (torch/csrc/autograd/engine.cpp).

Two of its rules shape the peak and are easily missed:

- a node's incoming gradient dies when the node returns, its saved tensors right after (`call_function`, then
  `release_variables`), so both are alive beside the gradients that it makes;
- gradients that meet are added into the first one when the buffer holds the last reference to it (input_buffer.cpp,
  `can_accumulate_inplace`). A gradient that came through a view does not qualify: the view's base shares its storage.
  Under any dispatch mode the test is false altogether, so a recording made by one shows copies that a real run never
  has; recordings by `torch.profiler` show the truth.
"""

import heapq
import sys
from collections.abc import Callable
from contextlib import suppress

from estimators.analytic.shadow.ops import sum_rows
from estimators.analytic.shadow.tape import MIDDLE, OUTSIDE, Dims, EarlyStopError, Holder, Node, Parameter, Tape, Tensor

Hook = Callable[[Parameter], None]
LONE_REFERENCES = 2
"""What `sys.getrefcount` says of what one object holds: that object, and the call itself."""


def backward(loss: Tensor, hook: Hook | None = None) -> None:
    """Run the graph below `loss`; `hook` is called for each parameter once its gradient is complete."""
    tape = loss.tape
    tape.in_backward = True
    root = loss.node
    assert root is not None
    start = tape.empty((), 4, "loss gradient")  # `torch.autograd.backward` holds it until it returns
    gradients = {root: start}
    queue = [root]
    del root
    loss.node = None
    while queue:
        node = heapq.heappop(queue)
        if node.layer != tape.layer:
            tape.layer = node.layer
            tape.mark("backward of layer", str(node.layer))
        _unpack(tape, node)
        outputs = node.apply(gradients[node])
        if any(isinstance(saved, Holder) for saved in node.saved):
            node.saved.clear()  # what was recomputed is the function's alone, and dies with it
        outputs = _fitted(node, outputs)
        del gradients[node]
        node.saved.clear()
        ready = _deliver(node, outputs, gradients, queue, hook)
        del node
        for parameter in ready:
            _accumulate(parameter, hook)
    tape.in_backward = False
    tape.layer = OUTSIDE


def has_lone_gradient(parameter: Parameter) -> bool:
    """Whether nothing but the parameter holds its gradient, which would die here if it let go of it."""
    assert parameter.grad is not None
    if parameter.grad.storage.layer == MIDDLE and parameter.grad.tape.layer == OUTSIDE:
        return False  # one would die for each of the layers that the middle one stands for
    counts = sys.getrefcount(parameter.grad), sys.getrefcount(parameter.grad.storage)
    return counts == (LONE_REFERENCES, LONE_REFERENCES)


def _fitted(node: Node, outputs: list[Tensor | None]) -> list[Tensor | None]:
    """What `validate_outputs` does before the node lets go of what it saved: gradients like the inputs, one by one."""
    if not node.broadcast and [gradient and gradient.itemsize for gradient in outputs] == node.itemsizes:
        return outputs
    for place, itemsize in enumerate(node.itemsizes):
        gradient = outputs[place]  # nothing else may hold what is summed away
        if gradient is None:
            continue
        edge, is_summed = node.inputs[place], place in node.broadcast
        name, category = (edge.name, "gradients") if isinstance(edge, Parameter) else ("gradient cast", "")
        if is_summed:
            parameter = edge if isinstance(edge, Parameter) and gradient.itemsize == itemsize else None
            gradient = outputs[place] = _summed(gradient, node.broadcast[place], parameter)
        if gradient.itemsize != itemsize and (is_summed or isinstance(edge, Node)):
            gradient = outputs[place] = gradient.tape.empty(gradient.dims, itemsize, name, category)
    return outputs


def _summed(gradient: Tensor, dims: Dims, parameter: Parameter | None) -> Tensor:
    """Summed up to fewer dimensions: of a parameter, its gradient, unless that is of another width."""
    name, category = (parameter.name, "gradients") if parameter is not None else ("gradient row sum", "")
    total = gradient.tape.empty(dims, gradient.itemsize, name, category)
    sum_rows(total, gradient.dims, gradient.itemsize)
    return total


def _deliver(
    node: Node, outputs: list[Tensor | None], gradients: dict[Node, Tensor], queue: list[Node], hook: Hook | None
) -> list[Parameter]:
    """Hand gradients on; returns the parameters whose gradients are complete.

    A gradient that goes on through a view has to wait for the view's node, and parameters' nodes come before that.
    """
    ready: list[Parameter] = []
    outputs.reverse()
    for edge in node.inputs:
        gradient = outputs.pop()
        if edge is None or gradient is None:
            continue
        if isinstance(edge, Parameter):
            edge.pending = gradient if edge.pending is None else _sum(edge.pending, gradient)
            edge.deliveries -= 1
            if not edge.deliveries:
                ready.append(edge)
            continue
        while ready and gradient.is_view:
            _accumulate(ready.pop(0), hook)
        if edge in gradients:
            gradients[edge] = _sum(gradients.pop(edge), gradient)
        else:
            gradients[edge] = gradient
            heapq.heappush(queue, edge)
    return ready


def _sum(old: Tensor, new: Tensor) -> Tensor:
    if not old.is_view and sys.getrefcount(old.storage) == LONE_REFERENCES:
        return old
    return new.tape.empty(new.dims, new.itemsize, "gradient sum", new.storage.kind.category)


def _accumulate(parameter: Parameter, hook: Hook | None) -> None:
    """What AccumulateGrad does: take the first gradient as it is, add later ones in place."""
    if parameter.grad is None:
        parameter.grad = parameter.pending
    parameter.pending = None
    if hook is not None and parameter.optimized:
        hook(parameter)


def _unpack(tape: Tape, node: Node) -> None:
    """Recompute the node's checkpointed region if its saved tensors are not there yet."""
    for saved in node.saved:
        if isinstance(saved, Holder) and saved.value is None:
            frame = saved.frame
            assert frame is not None
            tape.refilling, tape.in_backward, scope = frame, False, tape.scope
            tape.scope = list(frame.scope)
            with suppress(EarlyStopError):
                frame.recompute()
            tape.refilling, tape.in_backward, tape.scope = None, True, scope
            frame.holders.clear()
            for parameter in tape.autocast_cache:
                parameter.cast = None
            tape.autocast_cache.clear()
            return
