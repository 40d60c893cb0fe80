"""Published figures: complete, sourced, and where a formula is known, consistent with it."""

from typing import get_args

import pytest

from estimators.analytic.parameters import model_parameters, parameter_count
from estimators.workload import METHODS, Batch, Method, Workload
from profiles.models import find_model
from profiles.published import Figure, Published, Unit, published_figures

FIGURES = published_figures()
MIB = 2**20
TORCHAO = {figure.name: figure.value for figure in FIGURES if figure.name.startswith("torchao")}


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_rows_are_typed_and_sourced(figure: Published) -> None:
    assert figure.source
    assert figure.figure in get_args(Figure)
    assert figure.unit in get_args(Unit)
    assert figure.kind in ("measured", "estimated")
    assert figure.value > 0
    assert figure.conditions["method"] in METHODS
    known = {name for kind in (Workload, Method, Batch) for name in kind.__dataclass_fields__}
    assert set(figure.conditions) - {"method"} <= known
    if figure.model is not None:
        assert find_model(figure.model).name == figure.model
    assert (figure.bytes_range is None) == (figure.unit == "%")


def test_names_are_unique() -> None:
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)


def test_figures_of_one_model() -> None:
    seven = published_figures("llama-7b")
    assert {figure.model for figure in seven} == {"llama-7b"}
    assert any(figure.value == 22.72 for figure in seven)


def test_torchao_s_totals_are_the_sums_of_its_columns() -> None:
    """The remainder is two cuBLAS workspaces; for AdamW gradients and temporaries replace the activations."""
    parameters, workspaces = TORCHAO["torchao adamw parameters"], 2 * 8_519_680 / MIB
    assert TORCHAO["torchao adamw total"] == pytest.approx(5 * parameters + workspaces, abs=0.3)
    for method in ("galore-adamw", "adamw-8bit", "galore-adamw-8bit"):
        columns = [TORCHAO[f"torchao {method} {column}"] for column in ("states", "activations")]
        retained = TORCHAO.get(f"torchao {method} retained factors", 0.0)
        total = sum(columns) + parameters + retained + workspaces
        assert TORCHAO[f"torchao {method} total"] == pytest.approx(total, abs=0.3)


def test_torchao_s_parameters_are_the_catalogue_s() -> None:
    count = parameter_count(find_model("llama-1b").shape)
    assert count * 4 / MIB == pytest.approx(TORCHAO["torchao adamw parameters"], abs=0.05)


@pytest.mark.parametrize(
    ("model", "formula_gib"), [("llama-60m", 0.152), ("llama-130m", 0.319), ("llama-350m", 0.608), ("llama-1b", 1.94)]
)
def test_the_paper_s_formula_does_not_give_its_printed_states(model: str, formula_gib: float) -> None:
    (row,) = [figure for figure in published_figures(model) if figure.source.endswith("Tables 2 and 6")]
    computed = _paper_elements(model, row.conditions["rank"]) * 2 / 2**30
    assert float(f"{computed:.3g}") == formula_gib
    assert row.bytes_range is not None
    assert row.bytes_range[1] < computed * 2**30
    assert f"{formula_gib} GiB" in row.note


def test_the_abstract_s_reductions_beside_the_paper_s_formula() -> None:
    elements, full = _paper_elements("llama-7b", 1024), 2 * find_model("llama-7b").parameters
    assert 100 * (1 - elements / full) == pytest.approx(65.1, abs=0.05)
    assert 100 * (1 - elements / (2 * full)) == pytest.approx(82.6, abs=0.05)


def _paper_elements(model: str, rank: int) -> int:
    """Moments and projector, mR + 2nR (m <= n) for each linear layer but the head, 2mn for everything else."""
    elements = 0
    for group in model_parameters(find_model(model).shape):
        if group.kind == "linear":
            m, n = sorted(group.shape)
            elements += (m * rank + 2 * n * rank) * group.count
        else:
            elements += 2 * group.numel * group.count
    return elements
