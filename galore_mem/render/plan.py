"""A plan in the terminal: which view answers the question that was asked."""

from galore_mem.answers.plan import PlanResult
from galore_mem.render.headline import headline
from galore_mem.render.plan_advice import advice_lines
from galore_mem.render.terminal import Terminal, terminal
from galore_mem.render.text import Text


def print_plan(result: PlanResult, screen: Terminal | None = None) -> None:
    """Draw `result` on the terminal that stdout is connected to."""
    screen = screen or terminal()
    lines = [*headline(result, screen), *_view(result, screen), *advice_lines(result, screen)]
    if any(plan.published for plan in result.plans):
        from galore_mem.render.plan_published import published_lines

        lines += published_lines(result, screen)
    while lines and not lines[-1].plain:
        lines.pop()
    screen.show(lines)


def _view(result: PlanResult, screen: Terminal) -> list[Text]:
    """Several cards ask for a matrix, one configuration for its details, several for an overview."""
    if len(result.cards) > 1:
        from galore_mem.render.plan_matrix import matrix

        return matrix(result, screen)
    if len(result.plans) == 1:
        from galore_mem.render.plan_detail import detail

        return detail(result, screen)
    from galore_mem.render.plan_overview import overview

    return overview(result, screen)
