"""Runs as people set them up, each drawn by a seed of its own: what `benchmarks/ranges.py` replays."""

from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

from estimators.analytic.attention import attention_kernel
from estimators.analytic.course import courses_of
from estimators.analytic.estimate import outliner_of
from estimators.checks import check
from estimators.verdict import last_not_above
from estimators.workload import METHODS, Workload, resized, with_batch
from galore_mem.answers.settings import Settings, workloads
from profiles import catalogue
from profiles.errors import InputError
from profiles.models import find_model
from profiles.shapes import ModelShape

GIB = 2**30
CARDS_GIB = (8, 12, 16, 24, 24, 32, 40, 48, 80, 80, 96, 141, 192)
TURNS = 3
"""Runs of each model, method, update and implementation that could be drawn."""
TRIES = 12
"""Settings that are drawn before a cell is given up: a model may be too large for a method on any card."""
MOST_TOKENS = 2**20
LENGTHS = (128, 256, 300, 512, 777, 1024, 1024, 1500, 2048, 2048, 3000, 4096, 8192, 16384)
PRECISIONS = (*("bf16",) * 6, "fp32", "amp-bf16", "amp-bf16", "amp-fp16")
ATTENTIONS = (*("auto",) * 6, "eager", "math", "efficient", "flash")


class Cell(NamedTuple):
    """What a run is drawn for."""

    model: str
    method: str
    update: str
    implementation: str | None
    turn: int

    @property
    def name(self) -> str:
        """It is the seed, too."""
        return " ".join(map(str, self))


def models() -> tuple[str, ...]:
    """The catalogue's models that have a closed form."""
    names = (row["name"] for row in catalogue.read_rows("models.jsonl"))
    return tuple(name for name in names if _is_covered(name))


def _is_covered(name: str) -> bool:
    try:
        return bool(find_model(name).shape)
    except InputError:
        return False


def cells() -> Iterator[Cell]:
    """Every model with every method that it can be trained by."""
    known = models()
    for turn in range(TURNS):
        for model in known:
            for method, traits in METHODS.items():
                for update in ("whole", "per-layer"):
                    if update == "per-layer" and traits.states_on == "host":
                        continue
                    yield Cell(model, method, update, None, turn)
                    if traits.parameterisation == "galore":
                        yield Cell(model, method, update, "galore-torch", turn)


def workload_of(cell: Cell) -> Workload | None:
    """A run of a cell, in a batch that some card has room for; None where none was found."""
    random, shape = Random(cell.name), find_model(cell.model).shape
    for _ in range(TRIES):
        words = _drawn(random, shape, cell)
        room, share = random.choice(CARDS_GIB) * GIB, 0.25 + 0.75 * random.random()
        try:
            (workload,) = workloads(shape, (cell.method,), Settings(**words))
            check(workload)
            most = _most(workload, room)
            if most == 0:
                continue
            size = max(1, round(most**share)) if random.random() < 0.6 else most
            if size * words["seq"] <= MOST_TOKENS:
                found = with_batch(workload, micro_batch_size=size)
                check(found)
                return found
        except InputError:
            continue
    return None


def _most(workload: Workload, room_bytes: int) -> int:
    """The most sequences whose live bytes a card would have room for."""
    outliner, courses = outliner_of(workload, None), courses_of(workload, attention_kernel(workload, None))

    def excess(number: int) -> int:
        if workload.eval_batch is not None or workload.model.sliding_window is not None:
            return outliner_of(with_batch(workload, micro_batch_size=number), None).peak_bytes - room_bytes
        course = courses.of(resized(workload.batch, micro_batch_size=number))
        return outliner.peak_bytes_in(course) - room_bytes

    return last_not_above(excess, 1, 4096)


def _drawn(random: Random, shape: ModelShape, cell: Cell) -> dict[str, Any]:
    """Settings; what is most common is drawn most often."""
    choice, chance, traits = random.choice, random.random, METHODS[cell.method]
    words: dict[str, Any] = {"update": cell.update, "implementation": cell.implementation}
    words["seq"] = min(choice(LENGTHS), shape.max_position_embeddings)
    words["precision"] = choice(PRECISIONS)
    words["checkpointing"] = choice(("none", "full", "full"))
    words["loss"] = choice(("full", "full", "chunked"))
    words["attention"] = choice(ATTENTIONS)
    if words["attention"] in ("eager", "math"):  # scores are written down
        words["seq"] = min(words["seq"], choice((512, 1024, 2048)))
    if words["precision"] == "bf16":
        words["autocast"] = chance() < 0.25
        if cell.update == "whole":
            words["master_weights"] = chance() < 0.15
    words["grad_accumulation"] = choice((1, 1, 1, 2, 3, 8))
    for name, part in (("padding", 0.1), ("keep_outputs", 0.15), ("use_cache", 0.1), ("clip", 0.25)):
        words[name] = chance() < part
    words["zero_grad"] = choice(("start", "start", "start", "end"))
    if traits.parameterisation == "lora":
        words["rank"] = choice((None, 8, 16, 64, 256))
        if words["precision"] == "bf16":
            words["adapter_dtype"] = choice(("fp32", "bf16"))
        words["lora_dropout"] = choice((0, 0, 0.05))
        if traits.quantised:
            words["bnb_4bit_use_double_quant"] = chance() < 0.5
    elif traits.parameterisation != "full":
        words["rank"] = choice((None, None, 8, 64, 128, 256))
    if traits.parameterisation == "galore":
        words["proj_type"] = choice(("std", "std", "std", "reverse_std", "full", "right"))
    if cell.method in ("adamw", "sgd", "sgd-momentum"):
        words["optimizer_kernel"] = choice((None, None, "fused", "loop"))
    if traits.optimizer == "adamw-8bit":
        words["embedding_optim_bits"] = choice((None, None, 32))
    return words | _around(random, cell.update)


def _around(random: Random, update: str) -> dict[str, Any]:
    """What fewer people do besides: evaluation, resuming, emptied caches, several GPUs."""
    choice, chance, words = random.choice, random.random, dict[str, Any]()
    if chance() < 0.08:
        words["eval_batch"] = choice((1, 4, 8))
        if chance() < 0.3:
            choice((4, 20))
    if chance() < 0.05:
        words["resume"] = choice(("cpu", "device"))
    if chance() < 0.05:
        words["empty_cache"] = "step"
    if update == "whole" and chance() < 0.06:
        words["data_parallel"], words["gradient_as_bucket_view"] = choice((2, 8)), chance() < 0.5
    return words
