"""What an evaluation holds, against the evaluation loop of the real Trainer."""

from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from estimators.analytic.evaluation import evaluation_of
from estimators.workload import Batch, Method, Workload
from profiles.shapes import ModelShape

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 700,
    "max_position_embeddings": 64,
}
SHAPE = ModelShape(name="tiny", model_type="llama", head_dim=16, **SIZES)
SEQUENCES, TOKENS = 4, 64
SCALAR_BYTES = 512
FEW_SCALARS = 24 * SCALAR_BYTES
"""Losses, one for each sequence, and what joins them; counts of tokens."""


def evaluate(batches: int, live_bytes: Any, folder: Path, *, metrics: bool) -> int:  # noqa: ANN401
    """The most that the Trainer's loop holds besides the model."""
    config = transformers.LlamaConfig(**SIZES, attn_implementation="eager", tie_word_embeddings=False)
    model = transformers.LlamaForCausalLM(config)  # in fp32: the loop makes fp32 of other dtypes, on the host
    rows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(0, 700, (SEQUENCES * batches, TOKENS))]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_eval_batch_size=SEQUENCES,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    trainer = transformers.Trainer(
        model, arguments, eval_dataset=rows, compute_metrics=(lambda prediction: {}) if metrics else None
    )
    trainer.evaluate()  # what is made once and stays
    with live_bytes(model=[*model.parameters(), *model.buffers()]) as live:
        trainer.evaluate()
    live.claim("model", [*model.parameters(), *model.buffers()])
    return int(max(accumulate(change for _, change, category, _ in live.timeline() if category != "model")))


@pytest.mark.parametrize(("kept", "batches"), [(None, 3), (1, 1), (2, 2), (4, 4)])
def test_the_trainer_holds_what_is_planned(kept: int | None, batches: int, live_bytes: Any, tmp_path: Path) -> None:  # noqa: ANN401
    workload = Workload(
        model=SHAPE,
        method=Method(name="sgd"),
        batch=Batch(sequence_length=TOKENS),
        precision="fp32",
        attention="eager",
        eval_batch=SEQUENCES,
        eval_keep=kept,
    )
    planned = evaluation_of(workload, "eager").total_bytes
    held = evaluate(batches, live_bytes, tmp_path, metrics=kept is not None)
    assert planned - FEW_SCALARS <= held <= planned + FEW_SCALARS
