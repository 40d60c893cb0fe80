"""Training steps on fake tensors, recorded: one after another, or each kind of step once for any order of them."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal

from estimators.analytic.cards import CardTraits
from estimators.analytic.reductions import column_sum_scratch
from estimators.workload import Workload
from galore_mem.answers.needs import require_packages
from galore_mem.errors import UsageError
from galore_mem.profiler.recording import Recording
from profiles.errors import InputError
from profiles.shapes import UncoveredShape

if TYPE_CHECKING:
    from torch import Tensor

    from estimators.analytic.parameters import ParameterGroup
    from galore_mem.profiler.recorder import Recorder
    from galore_mem.profiler.splice import Piece, Place
    from galore_mem.training.session import Session

Told = Callable[[str], object]
"""Called with the name of each stage as it begins."""
STAGES = ("importing", "building the model", "first iteration", "steady iteration", "replaying the allocator")
NEVER = 1 << 30
"""Steps between two refreshes of projectors, where there shall be none."""
Kind = Literal["first", "refresh", "plain"]
Step = tuple[Kind, int]
"""What kind of step, and tokens in a sequence."""


class Watch:
    """A session and who records it."""

    def __init__(self, session: "Session", recorder: "Recorder", told: Told) -> None:
        self._session = session
        self._recorder = recorder
        self._told = told
        self.recording: Recording = recorder.recording
        self.ends: list[Place] = []
        """Where each step ended."""
        self.groups = session.parameter_groups()
        """All parameters."""

    def step(self, step: Step) -> None:
        """Record one step."""
        from galore_mem.profiler.splice import place

        kind, tokens = step
        self._session.use_length(tokens)
        if kind != "first":
            self._session.refresh_every(1 if kind == "refresh" else NEVER)
        self._told(STAGES[2] if kind == "first" else STAGES[3])
        self._session.iterate(self._recorder, "first" if kind == "first" else "steady")
        self.ends.append(place(self.recording))


@contextmanager
def watching(
    workload: Workload,
    kernel: str,
    *,
    workspace_bytes: int = 0,
    card: CardTraits | None = None,
    fake: bool = True,
    told: Told | None = None,
) -> Iterator[Watch]:
    """Build a run and record it while entered; the recording is closed afterwards.

    Args:
        workload: the run.
        kernel: the attention kernel that runs; `cpu` for what torch runs on CPU tensors.
        workspace_bytes: of cuBLAS, per thread; 0 for none.
        card: whose kernels' scratch is recorded.
        fake: on fake tensors; False runs the step on real CPU tensors.
        told: called as each of `STAGES` begins.

    Raises:
        MissingExtraError: a package that the run needs is not installed.
        GaloreMemError: a model that cannot be built.
    """
    told = told or silent
    told(STAGES[0])
    require_packages(workload)
    from torch._subclasses import FakeTensorMode

    from galore_mem.profiler.recorder import Recorder
    from galore_mem.profiler.rules import Rules
    from galore_mem.training.session import Session

    told(STAGES[1])
    mode = FakeTensorMode() if fake else None
    session = Session(workload, kernel, mode, card=card)
    scalars = 1.0 if fake else None
    rules = Rules(
        workspace_bytes=workspace_bytes,
        column_sums=partial(column_sum_scratch, card) if card is not None else None,
        scalars=scalars,
        fp32_statistics=kernel != "cpu",
    )
    recorder = Recorder(rules, workload.model.vocab_size, mode)
    for category, name, tensor in session.weights_in_order():
        recorder.hold(category, name, tensor)
    collects = gc.isenabled()
    gc.collect()
    gc.disable()  # the collector would end lives at moments of its own
    try:
        with ExitStack() as stack:
            stack.enter_context(_refusals_told(workload))
            if mode is not None:
                stack.enter_context(mode)
            stack.enter_context(recorder)
            if fake:
                stack.enter_context(_refreshes_repeated(recorder))
            stack.enter_context(recorder.following(session.model))
            yield Watch(session, recorder, told)
        recorder.close()
    finally:
        session.close()
        if collects:
            gc.enable()


@contextmanager
def _refusals_told(workload: Workload) -> Iterator[None]:
    """Operators that fake tensors cannot run become one line; of models that a closed form covers, only by a fault."""
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

    name = workload.model.name
    try:
        yield
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        operator = str(getattr(error, "func", error))
        raise UsageError(
            f"{name} cannot be traced",
            f"its step needs the values of a tensor ({operator}), and fake tensors have none",
            "record it on a GPU with torch.cuda.memory._record_memory_history(), and use galore-mem replay",
        ) from None
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError) as error:
        if not isinstance(workload.model, UncoveredShape) or isinstance(error, InputError):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UsageError(f"{name} cannot be traced", f"its step fails with {reason}", "") from error


def _refreshes_repeated(recorder: "Recorder") -> AbstractContextManager[None]:
    """Projectors of equal shapes are recomputed by equal operators: look on once for each shape."""
    from galore_mem.optim import refresh
    from galore_mem.profiler.repeats import Repeats, sizes_of

    def key_of(gradient: "Tensor", request: refresh.Request, previous: "Mapping[str, Tensor] | None") -> object:
        before = tuple((side, sizes_of(basis)) for side, basis in (previous or {}).items())
        return request.rank, request.proj_type, request.kind, sizes_of(gradient), before

    return Repeats(recorder).of(refresh, "new_bases", key_of)


def record(
    workload: Workload,
    kernel: str,
    *,
    workspace_bytes: int = 0,
    card: CardTraits | None = None,
    fake: bool = True,
    told: Told | None = None,
) -> Recording:
    """Record a first and a steady iteration, the steady one with a refresh of projectors where there are any.

    What a refresh holds is gone when it ends, so such an iteration shows every moment of an ordinary one as well. For
    the arguments see `watching`.
    """
    tokens = workload.batch.sequence_length
    steps: list[Step] = [("first", tokens), ("refresh", tokens)]
    return record_steps(workload, kernel, steps, workspace_bytes=workspace_bytes, card=card, fake=fake, told=told)


def record_steps(
    workload: Workload,
    kernel: str,
    steps: Sequence[Step],
    *,
    workspace_bytes: int = 0,
    card: CardTraits | None = None,
    fake: bool = True,
    told: Told | None = None,
) -> Recording:
    """Record these steps one after another. For the other arguments see `watching`."""
    with watching(workload, kernel, workspace_bytes=workspace_bytes, card=card, fake=fake, told=told) as watch:
        for step in steps:
            watch.step(step)
    return watch.recording


def steps_of(workload: Workload, lengths: Sequence[int]) -> tuple[Step, ...]:
    """A run of steps of these lengths: the first makes states, and the second refreshes projectors where there are any.

    A refresh comes once in `update_proj_gap` steps; the second step stands for all of them.
    """
    method = workload.method
    has_projectors = method.parameterisation == "galore"
    later: Kind = "refresh" if has_projectors and method.update_proj_gap == 1 else "plain"
    kinds: list[Kind] = ["first", "refresh" if has_projectors else "plain"]
    kinds += [later] * (len(lengths) - 2)
    return tuple(zip(kinds, lengths, strict=False))


def record_pieces(
    workload: Workload,
    kernel: str,
    steps: set[Step],
    *,
    workspace_bytes: int = 0,
    card: CardTraits | None = None,
    told: Told | None = None,
) -> "tuple[dict[Step, Piece], tuple[ParameterGroup, ...]]":
    """Record every one of these steps once, so that `splice` can lay them in any order.

    A first step needs a run of its own; all others are recorded in one run, after one first step.

    Returns:
        The steps, and all parameters.
    """
    from galore_mem.profiler.splice import cut

    firsts, later = (sorted(step for step in steps if (step[0] == "first") is is_first) for is_first in (True, False))
    later.sort(key=lambda step: step[0] == "plain")
    pieces: dict[Step, Piece] = {}
    groups: tuple[ParameterGroup, ...] = ()
    for number, first in enumerate(firsts):
        with watching(workload, kernel, workspace_bytes=workspace_bytes, card=card, told=told) as watch:
            run = [first, *(later if number == 0 else ())]
            for step in run:
                watch.step(step)
        pieces |= zip(run, cut(watch.recording, watch.ends), strict=True)
        groups = watch.groups
    return pieces, groups


def silent(stage: str) -> None:
    """Nobody wants to know."""
