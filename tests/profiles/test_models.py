import pytest

from estimators.analytic.parameters import parameter_count
from profiles import catalogue
from profiles.errors import InputError
from profiles.models import Model, all_models, find_model

MODELS = all_models()
PLANNED = [model for model in MODELS if model.planned]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_name_finds_its_row(model: Model) -> None:
    names = [model.name, *model.aliases, *([model.hf_id] if model.hf_id else [])]
    for name in names:
        assert find_model(name) == model
        assert find_model(f" {name.upper()} ") == model


def test_no_two_rows_share_a_name() -> None:
    rows = [{catalogue.key(name) for name in (model.name, *model.aliases)} for model in MODELS]
    assert len(set().union(*rows)) == sum(map(len, rows))


@pytest.mark.parametrize("model", PLANNED, ids=lambda model: model.name)
def test_closed_form_counts_the_parameters(model: Model) -> None:
    """Of what is trained: a list, a plan and a trace of one model say one number."""
    assert parameter_count(model.shape) == model.parameters


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_the_class_that_was_counted_is_the_one_that_is_trained(model: Model) -> None:
    heads = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForSequenceClassification")
    assert model.build_class.endswith(heads)


def test_the_galore_paper_models_are_planned() -> None:
    names = {model.name for model in PLANNED if model.confidence == "read"}
    assert {"llama-60m", "llama-130m", "llama-350m", "llama-1b", "llama-7b"} <= names


@pytest.mark.parametrize("model", [model for model in MODELS if not model.planned], ids=lambda model: model.name)
def test_other_families_are_refused_by_name(model: Model) -> None:
    with pytest.raises(InputError, match=f"no activation ledger for the {model.family} family yet"):
        _ = model.shape


@pytest.mark.parametrize(
    ("typed", "meant"), [("llama7b", "llama-7b"), ("lama-7b", "llama-7b"), ("qwen3-9b", "qwen3-8b"), ("gpt3", "gpt2")]
)
def test_unknown_names_get_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(InputError, match=rf"unknown model .* did you mean .*\b{meant}\b"):
        find_model(typed)


@pytest.mark.parametrize("typed", ["", '"', "name", "x" * 500])
def test_nonsense_is_refused_in_one_line(typed: str) -> None:
    with pytest.raises(InputError, match="unknown model") as caught:
        find_model(typed)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
