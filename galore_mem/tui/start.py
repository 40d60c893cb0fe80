"""From a command line to a running app: a name that means nothing is refused, all else is told in the app."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from galore_mem.answers.names import resolve_cards, resolve_model
from galore_mem.errors import UsageError
from galore_mem.tui.app import GaloreMemApp
from galore_mem.tui.saved import default_path, load
from galore_mem.tui.session import LOCAL, Session, may_ask_the_network
from galore_mem.tui.state import State


def start(model: str, gpus: Sequence[str], *, fresh: bool) -> None:
    """Run the app in the terminal.

    Raises:
        UsageError: there is no terminal.
        InputError: no such model, or no such card.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "the tui needs a terminal", "stdin or stdout is not one", "use galore-mem plan MODEL --gpu NAME"
        )
    if os.environ.get("TERM") == "dumb":
        raise UsageError(
            "the tui needs a terminal that moves its cursor", "TERM is dumb", "use galore-mem plan instead"
        )
    _refuse_typos(model, gpus)
    app_of(model, gpus, fresh=fresh, path=default_path()).run()


def _refuse_typos(model: str, gpus: Sequence[str]) -> None:
    """Refuse names that the app could only put others in the place of; what the Hub knows, it asks later.

    Raises:
        InputError: no such model, or no such card.
    """
    if model and not may_ask_the_network(model):
        resolve_model(model)
    resolve_cards(name for name in gpus if name.lower() != LOCAL)


def app_of(
    model: str, gpus: Sequence[str], *, fresh: bool, path: Path | None, session: Session | None = None
) -> GaloreMemApp:
    """The app that a command line asks for.

    Args:
        model: empty for the last session's.
        gpus: none for the last session's; the first becomes the selected one.
        fresh: ignore what the last session left.
        path: where the state is kept; None keeps nothing.
        session: what is known already.
    """
    session = session or Session()
    state, problem = (State(), "") if fresh or path is None else load(path)
    wanted = replace(state, models=(model,) if model else state.models, gpus=tuple(gpus) or state.gpus)
    if gpus:
        wanted = replace(wanted, card=gpus[0])
    awaited = wanted.models if any(map(may_ask_the_network, wanted.models)) else ()
    near = tuple(name for name in wanted.models if not may_ask_the_network(name))
    usable, left_out = session.usable(replace(wanted, models=near))
    if model and near and model not in usable.models:
        usable = replace(usable, models=state.models)
    if gpus and not set(gpus) & set(usable.gpus):
        usable = replace(usable, gpus=state.gpus, card=state.card)
    problems = [line for line in (problem, *left_out) if line]
    return GaloreMemApp(usable, session=session, problems=problems, path=path, awaited=awaited)
