"""A tokenizer folder, as Hugging Face libraries of many years wrote it, to a `tokenizers` backend and its settings."""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordPiece

from clozeline.errors import InputError

# What a role's token is called where a folder does not say: BERT's name, then RoBERTa's.
ROLES = {"cls": "[CLS] <s>", "sep": "[SEP] </s>", "pad": "[PAD] <pad>", "mask": "[MASK] <mask>", "unk": "[UNK] <unk>"}
# Model types whose text clean-up transformers takes from tokenizer_config.json, whatever tokenizer.json says.
WORDPIECE = {"bert": "BertTokenizer", "distilbert": "DistilBertTokenizer", "electra": "ElectraTokenizer"}
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
EXTRA = ("additional_special_tokens", "extra_special_tokens")


def read_folder(folder: Path) -> tuple[Backend, dict[str, Any]]:
    """The backend of a folder, and the entries of its tokenizer_config.json with what older files say beside it.

    Raises:
        InputError: the folder has neither tokenizer.json nor vocab.txt, or one that cannot be used.
    """
    settings = _read_json(folder / "tokenizer_config.json") | _read_json(folder / "special_tokens_map.json")
    model_type = _read_json(folder / "config.json").get("model_type", "")
    kind = settings.get("tokenizer_class") or WORDPIECE.get(model_type)
    wordpiece = str(kind).removesuffix("Fast") in WORDPIECE.values()
    if (folder / "tokenizer.json").is_file():
        try:
            backend = Backend.from_str((folder / "tokenizer.json").read_text(encoding="utf-8"))
        except Exception as error:  # the library raises nothing narrower
            raise InputError(f"{folder / 'tokenizer.json'} cannot be read as a tokenizer: {error}.") from None
        if wordpiece and isinstance(backend.normalizer, normalizers.BertNormalizer):
            backend.normalizer = _clean_up(settings)
    elif (folder / "vocab.txt").is_file():
        if kind is not None and not wordpiece:
            raise InputError(f"{folder} has a bare vocab.txt of a {kind}; have transformers save tokenizer.json.")
        kind = kind or WORDPIECE["bert"]
        backend = _from_vocabulary(folder / "vocab.txt", settings)
        special = {token_name(token) for name in EXTRA for token in settings.get(name) or ()}
        older = _read_json(folder / "added_tokens.json").items()
        decoder = {at: {"content": token, "special": token in special} for token, at in older}
        settings.setdefault("added_tokens_decoder", decoder)
    else:
        held = ", ".join(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else None
        found = "there is no such folder" if held is None else f"it has {held or 'no files'}"
        raise InputError(f"{folder} holds no tokenizer, neither tokenizer.json nor vocab.txt: {found}.")
    return backend, settings | {"tokenizer_class": kind or "PreTrainedTokenizerFast"}


def _from_vocabulary(path: Path, settings: dict[str, Any]) -> Backend:
    """BERT's WordPiece from one token a line; of equal lines the last one counts, as in transformers."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text, one token a line: {error}.") from None
    # not splitlines: real vocabularies have U+2028 as a token
    vocabulary = {token: index for index, token in enumerate(text.removesuffix("\n").split("\n"))}
    unk, cls, sep = (role_token(role, settings, vocabulary) for role in ("unk", "cls", "sep"))
    if unk is None or cls is None or sep is None:
        raise InputError(
            f"{path} {'lacks [UNK], [CLS] or [SEP]' if text else 'is empty'}; a WordPiece vocabulary has one token "
            "a line and these three among them, or what tokenizer_config.json names unk_token, cls_token, sep_token."
        )
    backend = Backend(WordPiece(vocabulary, unk_token=unk))
    backend.normalizer = _clean_up(settings)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing((sep, vocabulary[sep]), (cls, vocabulary[cls]))
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend


def _clean_up(settings: dict[str, Any]) -> normalizers.BertNormalizer:
    """BERT's text clean-up; lower case unless the settings say otherwise, as in transformers."""
    return normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )


def add_tokens(backend: Backend, tokens: Sequence[str | dict[str, Any]], special: bool) -> None:
    """Add tokens as the settings files write them: a name, or a name and how it is matched.

    Those that were added before are left out: adding one again would change how it is matched.
    """
    present = {token.content for token in backend.get_added_tokens_decoder().values()}
    for token in tokens:
        if (name := token_name(token)) not in present:
            given = token if isinstance(token, dict) else {}
            flags = {"special": special, "normalized": not given.get("special", special)} | given
            backend.add_tokens([AddedToken(name, **{flag: flags[flag] for flag in FLAGS if flag in flags})])


def token_name(token: str | dict[str, Any] | None) -> str | None:
    """The name of a token as the settings files write it."""
    return token["content"] if isinstance(token, dict) else token


def role_token(role: str, settings: dict[str, Any], vocabulary: Container[str], edge: str | None = None) -> str | None:
    """The token in this role: the one that the settings name, that stands at the edge, or that has the usual name.

    None if the vocabulary lacks it. transformers would add it then, under an id for which the model has no embedding.
    """
    candidates = [token_name(settings.get(f"{role}_token")), edge, *ROLES[role].split()]
    return next((token for token in candidates if token is not None and token in vocabulary), None)


def _read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} must hold a JSON object, not a {type(found).__name__}.")
    return found
