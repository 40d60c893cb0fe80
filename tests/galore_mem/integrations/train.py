"""A training script as people write it: `python train.py OPTIM [sft]`; nothing of it knows of the tests."""

import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from galore_mem.integrations import GaLoreMem, trainer_optimizer

CONFIG = LlamaConfig(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=88,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=64,
)


class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Tokens that follow from one another, so that there is something to learn."""

    def __len__(self) -> int:
        """Rows."""
        return 64

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """One row."""
        tokens = (torch.arange(24) * 3 + index) % 96
        return {"input_ids": tokens, "labels": tokens.clone()}


def main(optim: str) -> None:
    """Train for six steps."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG)
    args = TrainingArguments(
        output_dir="out",
        max_steps=6,
        per_device_train_batch_size=4,
        learning_rate=0.01,
        lr_scheduler_type="constant",
        optim=optim,
        optim_target_modules=["attn", "mlp"],
        optim_args="rank=8, update_proj_gap=2, scale=0.25",
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model,
        args,
        train_dataset=Rows(),
        callbacks=[GaLoreMem(report="out.html", tape="run.tape.json.gz", gpu="4060")],
        optimizer_cls_and_kwargs=trainer_optimizer(model, args),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0], losses
    print("trained with", type(trainer.optimizer.optimizer).__name__)


if __name__ == "__main__":
    main(sys.argv[1])
