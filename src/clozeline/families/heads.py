"""The heads that every family has under its own names, and how family files make them from the bricks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from clozeline.config import EncoderConfig
from clozeline.families.family import Build, Head, Names
from clozeline.model.encoder import Encoder
from clozeline.model.heads import MaskedLMHead, Pooler, SequenceHead, TokenHead, Transform, head_dropout

Rate = Callable[[EncoderConfig], float]


def standard(
    stem: str,
    *,
    base: tuple[Build, Names],
    sequence: tuple[Build, Names],
    tokens: tuple[Build, Names],
    spans: tuple[Build, Names],
    choice: tuple[Build, Names],
    masked_lm: tuple[Build, Names],
    tied: Mapping[str, str],
    also: tuple[str, ...] = (),
) -> dict[str, Head]:
    """The bare model and its five heads under Hugging Face's class names, which begin with `stem`.

    tied, also: of the masked-LM head, see `Head`.
    """
    return {
        "base": Head(f"{stem}Model", *base),
        "text_classification": Head(f"{stem}ForSequenceClassification", *sequence),
        "token_classification": Head(f"{stem}ForTokenClassification", *tokens),
        "question_answering": Head(f"{stem}ForQuestionAnswering", *spans),
        "multiple_choice": Head(f"{stem}ForMultipleChoice", *choice),
        "masked_lm": Head(f"{stem}ForMaskedLM", *masked_lm, also=also, tied=tied),
    }


def no_head(config: EncoderConfig, encoder: Encoder, classes: int) -> None:
    """For a bare encoder that has no pooler."""


def pooler(config: EncoderConfig, encoder: Encoder, classes: int) -> nn.Module:
    """BERT's pooler."""
    return Pooler(config)


def sequence(
    pooler: Callable[[EncoderConfig], Pooler] = Pooler, *, classes: int | None = None, drop: Rate = head_dropout
) -> Build:
    """A classifier of texts; classes: how many outputs, None takes as many as asked for."""
    return lambda config, encoder, asked: SequenceHead(config, classes or asked, pooler(config), drop(config))


def tokens(
    *,
    classes: int | None = None,
    drop: Rate = head_dropout,
    transform: Callable[[EncoderConfig], Transform] | None = None,
) -> Build:
    """A classifier of tokens."""

    def build(config: EncoderConfig, encoder: Encoder, asked: int) -> nn.Module:
        before = None if transform is None else transform(config)
        return TokenHead(config, classes or asked, drop=drop(config), transform=before)

    return build


def masked(activation: str | None = None) -> Callable[[EncoderConfig, Encoder, int], MaskedLMHead]:
    """A masked-LM head; activation: None takes the encoder's."""
    return lambda config, encoder, asked: MaskedLMHead(
        config, encoder.embedding.tokens, activation or config.activation
    )


def none_dropped(config: EncoderConfig) -> float:
    """No dropout before a head's last map."""
    return 0.0


def as_encoder(config: EncoderConfig) -> float:
    """As much as the encoder drops."""
    return config.dropout
