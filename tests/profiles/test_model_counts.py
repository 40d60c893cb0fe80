"""The catalogue's parameter counts against the models that transformers builds, without their memory."""

import pytest

from profiles.models import Model, all_models


@pytest.mark.parametrize("model", all_models(), ids=lambda model: model.name)
def test_parameters_are_those_of_the_real_model(model: Model) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    build = getattr(transformers, model.build_class)
    config = build.config_class.from_dict(dict(model.config))
    with torch.device("meta"):
        real = build(config)
    assert sum(parameter.numel() for parameter in real.parameters()) == model.parameters
    embeddings = {real.get_input_embeddings().weight}
    head = real.get_output_embeddings()
    if head is not None:
        assert (head.weight in embeddings) == model.tied
        embeddings.add(head.weight)
    assert sum(weight.numel() for weight in embeddings) == model.embedding_parameters
