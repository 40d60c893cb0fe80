"""What recording costs: the same steady step plain, through hooks as on a GPU, and with every operator seen.

    python benchmarks/recording_overhead.py                 # llama-60m, AdamW, 1 x 128 tokens, on CPU tensors

On a GPU `galore-mem profile` measures its own cost in every run and prints it. Here the three take turns, so that a
busy machine slows all of them alike; medians of the rounds are compared.
"""

import argparse
import statistics
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from galore_mem.answers.names import resolve_model
from galore_mem.answers.settings import Settings, workloads


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama-60m")
    parser.add_argument("--method", default="adamw")
    parser.add_argument("--seq", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    words = parser.parse_args()
    from galore_mem.profiler.recorder import Recorder
    from galore_mem.profiler.rules import Rules
    from galore_mem.profiler.stamps import StampingWitness
    from galore_mem.training.session import Session
    from galore_mem.witness import Unwatched

    (workload,) = workloads(resolve_model(words.model).shape, (words.method,), Settings(seq=words.seq))
    session = Session(workload, "cpu", None)
    session.iterate(Unwatched(), "first")
    seconds: dict[str, list[float]] = {"plain": [], "hooks": [], "every operator": []}
    stamps = events = 0
    for _ in range(words.rounds):
        seconds["plain"].append(_timed(session, Unwatched(), nullcontext()))
        witness = StampingWitness(lambda: 0, on_device=lambda tensor: True)
        seconds["hooks"].append(_timed(session, witness, witness.following(session.model)))
        recorder = Recorder(Rules(), workload.model.vocab_size)
        seconds["every operator"].append(_timed(session, recorder, recorder))
        stamps, events = len(witness.stamps), len(recorder.close().events)
    plain = statistics.median(seconds["plain"])
    print(f"{words.model}, {words.method}, 1 x {words.seq} tokens, CPU: {stamps} stamps, {events} events a step")
    for name, values in seconds.items():
        found = statistics.median(values)
        print(f"{name:<16}{found:8.3f} s{found / plain - 1:+8.1%}")
    start = time.perf_counter()
    for _ in range(1000):
        witness._stamp("saved", "activations")
    print(f"{'a stamp':<16}{(time.perf_counter() - start) * 1e3:8.2f} us beside the allocator's own counter")


def _timed(session: Any, witness: Any, watching: AbstractContextManager[Any]) -> float:  # noqa: ANN401
    with watching:
        start = time.perf_counter()
        session.iterate(witness, "steady")
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
