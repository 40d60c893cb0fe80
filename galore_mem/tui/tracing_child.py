"""The process that traces: a request comes in by stdin, stages go out by stderr, the answer by stdout."""

import json
import os
import pickle
import sys
from contextlib import suppress
from typing import Any

from galore_mem.tui.saying import line_of
from galore_mem.tui.tracing import STAGE, Request


def main() -> None:
    """Read, trace, answer; an error is an answer too."""
    request = pickle.load(sys.stdin.buffer)
    with suppress(AttributeError, OSError):
        os.nice(5)
    json.dump(answer(request), sys.stdout)


def answer(request: Request) -> dict[str, Any]:
    """The TRACE object, or `{"error": one line}`."""
    from galore_mem.answers.trace import trace

    try:
        found = trace(request.workload, gpus=(request.gpu,), other_use=request.other_use_bytes, told=_tell)
    except Exception as error:
        return {"error": line_of(error, "a trace")}
    return found.to_dict()


def _tell(stage: str) -> None:
    print(f"{STAGE}{stage}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
