"""`callbacks=[GaLoreMem(report="out.html")]`: the first steps of anybody's Trainer, recorded and drawn."""

import logging
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback

from galore_mem.errors import UsageError
from galore_mem.integrations.states import claim_states
from galore_mem.integrations.watching import Watch, watch_of
from galore_mem.profiler.profile import versions_of
from galore_mem.profiler.windows import replaced
from galore_mem.tapes.atomic import check_free
from galore_mem.tapes.file import write_tape
from galore_mem.tapes.tape import Tape

STEPS = 3
LIBRARIES = ("torch", "transformers", "accelerate", "trl", "peft", "bitsandbytes", "galore_torch")
_LOG = logging.getLogger(__name__)


class GaLoreMem(TrainerCallback):  # type: ignore[misc]
    """Records the first optimizer steps of a Trainer, then gets out of the way.

    On a GPU torch's own history is recorded; on a CPU every storage, to be replayed by the allocator's replica. The
    Tape is written as soon as the last of the steps has ended, and the page is drawn by a process of its own: a fault
    there never touches the training. Of several processes the first records.

    Args:
        report: the page to write.
        tape: the Tape to write, for `galore-mem replay` and `report`.
        steps: optimizer steps to record; the first one creates the optimizer's states.
        gpu: a card of `galore-mem gpus` to judge by.
        force: replace files that exist.

    Raises:
        UsageError: nothing to write, or a file that exists or cannot be written.
    """

    def __init__(
        self,
        report: str | os.PathLike[str] | None = None,
        *,
        tape: str | os.PathLike[str] | None = None,
        steps: int = STEPS,
        gpu: str | None = None,
        force: bool = False,
    ) -> None:
        if report is None and tape is None:
            raise UsageError("GaLoreMem has nothing to write", "", 'give report="out.html" or tape="run.tape.json.gz"')
        if steps < 1:
            raise UsageError(f"steps={steps} records nothing", "", f"give 1 or more, such as steps={STEPS}")
        self.report = None if report is None else Path(report)
        self.tape = None if tape is None else Path(tape)
        for path in filter(None, (self.report, self.tape)):
            check_free(path, force=force, how="pass force=True")
        self.steps = steps
        self.gpu = gpu
        self._watch: Watch | None = None
        self._model: nn.Module | None = None
        self._optimizer: Any = None
        self._stack = ExitStack()
        self._begun = 0
        self._is_done = False

    # What the Trainer tells.

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Everything is built: find out what to watch."""
        if not state.is_world_process_zero or self._is_done:
            return
        model, self._optimizer = kwargs.get("model"), kwargs.get("optimizer")
        if isinstance(model, nn.Module):
            self._model = getattr(model, "module", model)
            self._watch = watch_of(self._model)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """A step starts: the first one starts the recording."""
        if self._watch is None or self._model is None:
            return
        if not self._begun:
            self._watch.start()
            self._stack.enter_context(_told(self._watch, self._model))
            self._stack.enter_context(_marked_optimizer(self._watch))
        self._begun += 1
        self._watch.steps.begin("first" if self._begun == 1 else "steady")

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """A micro-batch has been accumulated."""
        if self._watch is not None and self._begun:
            self._watch.steps.enter("between")

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """The optimizer steps."""
        if self._watch is not None and self._begun:
            self._claim()
            self._watch.steps.enter("step")

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """The optimizer has stepped: its states exist."""
        if self._watch is not None and self._begun:
            self._claim()
            self._watch.steps.enter("between")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """The last recorded step ends the recording."""
        if self._begun >= self.steps:
            self._finish(args)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Training was shorter than the recording was to be."""
        if self._begun:
            self._finish(args)

    # What follows.

    def _claim(self) -> None:
        if self._watch is not None and self._model is not None:
            claim_states(self._watch.steps, self._model, self._optimizer)

    def _finish(self, args: Any) -> None:  # noqa: ANN401
        watch, self._watch = self._watch, None
        if watch is None:
            return
        self._is_done, self._begun = True, 0
        self._stack.close()
        watch.steps.finish()
        metadata = {
            "environment": versions_of(LIBRARIES),
            "command": shlex.join(sys.orig_argv),
            "gpus": [self.gpu] if self.gpu else [],
            "trainer": _settings(args),
            "steps": [record.to_dict() for record in watch.steps.records()],
        }
        self._write(watch.stop(metadata))

    def _write(self, tape: Tape) -> None:
        try:
            if self.tape is not None:
                write_tape(self.tape, tape)
                _tell(f"galore-mem wrote {self.tape}")
            if self.report is not None:
                self._draw(tape)
        except UsageError as error:
            _LOG.warning("galore-mem could not write: %s", error)

    def _draw(self, tape: Tape) -> None:
        """In another process: the page needs `estimators` and `profiles`, names that may be somebody else's here."""
        with tempfile.TemporaryDirectory(prefix="galore-mem-") as folder:
            path = Path(folder) / (self.tape.name if self.tape is not None else "training.tape.json.gz")
            write_tape(path, tape)
            command = [sys.executable, "-P", "-m", "galore_mem", "report", str(path), "-o", str(self.report), "--force"]
            done = subprocess.run(command, env=_paths(), capture_output=True, text=True, check=False)
        if done.returncode:
            _LOG.warning("galore-mem could not draw %s: %s", self.report, done.stderr.strip()[-500:])
        else:
            _tell(f"galore-mem wrote {self.report}: open it in a browser")


def _tell(line: str) -> None:
    """One line on stderr, above the Trainer's progress bar."""
    from tqdm.auto import tqdm

    tqdm.write(line, file=sys.stderr)


def _paths() -> dict[str, str]:
    """This process's environment, with the folder that this package was imported from."""
    home = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH", ""))))}


def _settings(args: Any) -> dict[str, Any]:  # noqa: ANN401
    """What of the Trainer's arguments decides memory."""
    names = (
        *("per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing", "bf16", "fp16"),
        *("optim", "optim_args", "max_length"),
    )
    values = {name: getattr(args, name, None) for name in names}
    return {
        name: value if isinstance(value, bool | int | float) else str(getattr(value, "value", value))
        for name, value in values.items()
        if value is not None
    }


@contextmanager
def _told(watch: Watch, model: nn.Module) -> Iterator[None]:
    """The model tells when its forward begins and ends; its loss function, when it begins."""

    def before(module: nn.Module, positional: Any, named: Any) -> None:  # noqa: ANN401
        if module.training:
            watch.hold_inputs((positional, named))
            watch.steps.enter("forward_end")

    def after(module: nn.Module, positional: Any, output: Any) -> None:  # noqa: ANN401
        if module.training:
            watch.steps.enter("backward_start")

    handles = [
        model.register_forward_pre_hook(before, with_kwargs=True),
        model.register_forward_hook(after),
    ]
    try:
        with _marked_loss(watch, model):
            yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _marked_loss(watch: Watch, model: nn.Module) -> Iterator[None]:
    inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    original = getattr(inner, "loss_function", None)
    if not callable(original):
        yield
        return

    def marked(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if inner.training:
            watch.steps.enter("loss")
        return original(*args, **kwargs)

    inner.loss_function = marked
    try:
        yield
    finally:
        inner.loss_function = original


def _marked_optimizer(watch: Watch) -> AbstractContextManager[None]:
    """Our optimizer's refreshes are a phase of their own, and so are its updates inside backward."""
    from galore_mem.optim import GaLore

    def marked(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(optimizer: GaLore, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            if _WINDOWS[name] == "layer_update" and optimizer.per_layer is None:
                return original(optimizer, *args, **kwargs)
            with watch.steps.during(_WINDOWS[name]):
                return original(optimizer, *args, **kwargs)

        return call

    return replaced([(GaLore, name) for name in _WINDOWS], marked)


_WINDOWS = {"refresh": "refresh", "apply_low_rank": "layer_update", "step_parameter": "layer_update"}
"""Methods of `GaLore`, and the window that each call is."""
