"""The process of one row: it imports and predicts at once, and measures when it is told to.

It reads its job from stdin (a pickle from the process that started it, in base64), then one line, `go`; without that
line it ends. It writes one JSON object a line to stdout; whatever libraries print goes to stderr.
"""

import base64
import json
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from typing import Any

from galore_mem.answers.validation import protocol
from galore_mem.answers.validation.protocol import Job
from galore_mem.errors import GaloreMemError, NoDeviceError, UsageError
from profiles.errors import InputError

Say = Callable[..., None]
GO = "go\n"


def packed(job: Job) -> str:
    """A job as a line for a worker's stdin."""
    return base64.b64encode(pickle.dumps(job)).decode("ascii") + "\n"


def main() -> int:
    """Serve one row."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**words: Any) -> None:  # noqa: ANN401
        channel.write(json.dumps(words) + "\n")
        channel.flush()

    job: Job = pickle.loads(base64.b64decode(sys.stdin.readline()))
    try:
        return _serve(job, say)
    except KeyboardInterrupt:
        return 130
    except BaseException as error:
        traceback.print_exc()
        say(state="failed", line=line_of(error), is_fatal=is_fatal(error))
        return 1


def _serve(job: Job, say: Say) -> int:
    record = protocol.predicted(job)
    say(state="predicted")
    if sys.stdin.readline() != GO:
        return 0
    try:
        record = protocol.measured(job, record)
    except (GaloreMemError, KeyboardInterrupt):
        raise
    except Exception as error:
        protocol.keep_failure(job, record, line_of(error))
        raise
    say(state="done", outcome=record.outcome)
    return 0


def line_of(error: BaseException) -> str:
    """An error in one line."""
    told = isinstance(error, GaloreMemError | InputError)
    return " ".join((str(error) if told else f"{type(error).__name__}: {error}").split())


def is_fatal(error: BaseException) -> bool:
    """Whether every other row would fail alike: no device, or a folder that takes nothing more."""
    return isinstance(error, NoDeviceError) or (isinstance(error, UsageError) and error.what.startswith("cannot write"))


if __name__ == "__main__":
    sys.exit(main())
