"""`python -m galore_mem`, and the console script."""

import gc
import os
import sys

COLLECT_AFTER = 200_000
"""New objects before Python looks for cycles among them, of which a command makes few: at the usual 700 a search would
spend an eighth of its time there."""


def run() -> int:
    """`main` in a process of its own."""
    gc.set_threshold(COLLECT_AFTER)
    code = main()
    gc.freeze()  # what lives now dies with the process, which need not look through it once more
    return code


def main() -> int:
    """Run the command line on `sys.argv` and return the exit code: the one place where an error becomes text.

    `--debug` anywhere before a bare `--` lets the traceback through.
    """
    _drop_current_folder()
    tokens, debug = _without_debug(sys.argv[1:])
    try:
        from galore_mem.commands.app import call
        from galore_mem.streams import finish, prepare

        prepare()
        code = call(tokens)
        finish()
    except BaseException as error:
        if debug and not isinstance(error, SystemExit):
            raise
        from galore_mem.outcomes import report

        return report(error)
    return code


def _drop_current_folder() -> None:
    """Stop `python -m galore_mem` from importing a training script's own modules, unless it is this checkout."""
    here = os.getcwd() if os.path.isdir(os.curdir) else ""
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if sys.path and sys.path[0] in ("", here) and os.path.realpath(here) != os.path.realpath(home):
        sys.path.pop(0)


def _without_debug(tokens: list[str]) -> tuple[list[str], bool]:
    end = tokens.index("--") if "--" in tokens else len(tokens)
    kept = [token for token in tokens[:end] if token != "--debug"]
    return kept + tokens[end:], len(kept) < end


if __name__ == "__main__":
    sys.exit(run())
