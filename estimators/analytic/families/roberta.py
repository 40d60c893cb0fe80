"""RoBERTa with a head that classifies sequences: BERT's layers, positions counted without padding, a deeper head.

The program follows transformers 5 line by line (models/roberta/modeling_roberta.py).
"""

from dataclasses import replace

from estimators.analytic.families import bert
from estimators.analytic.shadow.ops import dropout
from estimators.analytic.shadow.pooling import first_token, tanh
from estimators.analytic.shadow.tape import Tensor
from estimators.analytic.shadow.weights import Weight, linear, norm
from estimators.analytic.shadow.weights import embedding as table
from profiles.shapes import ModelShape


def weights(shape: ModelShape) -> tuple[Weight, ...]:
    """Every parameter of `RobertaForSequenceClassification`, in the order of `named_parameters`."""
    embeddings = "roberta.embeddings"
    return (
        table(f"{embeddings}.word_embeddings"),
        table(f"{embeddings}.token_type_embeddings", "T"),
        *norm(f"{embeddings}.LayerNorm", bias=True),
        table(f"{embeddings}.position_embeddings", "P"),
        *bert.layer_weights("roberta"),
        *linear("classifier.dense", "h", "h", bias=True),
        *linear("classifier.out_proj", "C", "h", bias=True),
    )


class Roberta(bert.Bert):
    """The encoder and its classifier."""

    def position_ids(self) -> tuple[Tensor | None, str]:
        """Tokens beside padding, counted in every sequence (`create_position_ids_from_input_ids`)."""
        tape, tokens = self.tape, ("b", "s")
        mask = tape.empty(tokens, 4, "tokens beside padding", "inputs")  # noqa: F841
        counted = tape.empty(tokens, 4, "tokens counted", "inputs")  # noqa: F841
        long = tape.empty(tokens, 8, "positions before padding", "inputs")  # noqa: F841
        return tape.empty(tokens, 8, "positions", "inputs"), "b"

    def head(self, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """Two linear layers with dropout before each, in a module of their own."""
        x = dropout(first_token(hidden), self.traits.classifier_dropout, "dropout")
        x = tanh(self.linear(x, "classifier.dense"), "tanh")
        x = dropout(x, self.traits.classifier_dropout, "dropout")
        return self.linear(x, "classifier.out_proj"), None


FAMILY = replace(bert.FAMILY, weights=weights, program=Roberta, last_product="roberta.encoder.layer.*.output.dense")
