"""`galore-mem profile` for a terminal."""

from estimators.analytic.parameters import parameter_count
from galore_mem.answers.profile import Profile
from galore_mem.answers.trace import Trace
from galore_mem.profiler.steps import StepRecord
from galore_mem.render.terminal import Terminal, terminal
from galore_mem.render.text import Text
from galore_mem.render.trace import LABEL, print_trace


def print_profile(result: Profile, screen: Terminal | None = None) -> None:
    """What was run, the summary of a trace, and the times of the steps."""
    screen = screen or terminal()
    print_trace(_as_trace(result), screen)
    screen.show([Text(), *_steps(result.steps)])


def _as_trace(result: Profile) -> Trace:
    return Trace(
        workload=result.workload,
        parameters=parameter_count(result.workload.model),
        attention_kernel=result.attention_kernel,
        footprint=result.footprint,
        fits=result.fits,
        largest=result.largest,
        replay=result.replay,
        tape=result.tape,
        notes=result.notes,
    )


def _steps(steps: tuple[StepRecord, ...]) -> list[Text]:
    phases = list(dict.fromkeys(phase for step in steps for phase in step.seconds))
    lines = [Text(f"{'seconds':<{LABEL}}" + "".join(f"{phase:>10}" for phase in phases), style="dim")]
    for step in steps:
        cells = (f"{step.seconds[phase]:>10.3f}" if phase in step.seconds else f"{'-':>10}" for phase in phases)
        lines.append(Text(f"{f'step {step.number}, {step.kind}':<{LABEL}}" + "".join(cells)))
    return lines
