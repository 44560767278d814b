"""A tokenizer folder, as Hugging Face libraries of many years wrote it, to a `tokenizers` backend and its settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, normalizers
from tokenizers import Tokenizer as Backend

from clozeline import sentencepiece_file
from clozeline.errors import InputError
from clozeline.tokenizer_classes import CLASSES, MODEL_TYPES, SENTENCEPIECE, clean_up, token_name

FILES = ("vocab.txt", "vocab.json", *SENTENCEPIECE)
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
EXTRA = ("additional_special_tokens", "extra_special_tokens")


def read_folder(folder: Path) -> tuple[Backend, dict[str, Any]]:
    """The backend of a folder, and the entries of its tokenizer_config.json with what older files say beside it.

    Raises:
        InputError: the folder has no tokenizer, or one that cannot be used.
    """
    settings = _read_json(folder / "tokenizer_config.json") | _read_json(folder / "special_tokens_map.json")
    model_type = _read_json(folder / "config.json").get("model_type", "")
    kind = settings.get("tokenizer_class") or MODEL_TYPES.get(model_type)
    plain = None if kind is None else str(kind).removesuffix("Fast")
    found = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if (folder / "tokenizer.json").is_file():
        try:
            backend = Backend.from_str((folder / "tokenizer.json").read_text(encoding="utf-8"))
        except Exception as error:  # the library raises nothing narrower
            raise InputError(f"{folder / 'tokenizer.json'} cannot be read as a tokenizer: {error}.") from None
        # whose clean-up transformers takes from tokenizer_config.json, whatever tokenizer.json says
        wordpiece = plain in CLASSES and "vocab.txt" in CLASSES[plain].files
        if wordpiece and isinstance(backend.normalizer, normalizers.BertNormalizer):
            backend.normalizer = clean_up(settings)
    elif found is not None:
        plain = plain or _likely_class(found)
        if plain not in CLASSES or found.name not in CLASSES[plain].files:
            raise InputError(f"{folder} has a bare {found.name} of a {plain}; have transformers save tokenizer.json.")
        kind = kind or plain
        for role, token in CLASSES[plain].tokens.items():
            if settings.get(f"{role}_token") is None:
                settings[f"{role}_token"] = token
        backend = CLASSES[plain].build(found, settings)
        special = {token_name(token) for name in EXTRA for token in settings.get(name) or ()}
        older = _read_json(folder / "added_tokens.json").items()
        decoder = {at: {"content": token, "special": token in special} for token, at in older}
        settings.setdefault("added_tokens_decoder", decoder)
    else:
        held = ", ".join(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else None
        there = "there is no such folder" if held is None else f"it has {held or 'no files'}"
        raise InputError(f"{folder} holds no tokenizer, neither tokenizer.json nor {', '.join(FILES)}: {there}.")
    return backend, settings | {"tokenizer_class": kind or "PreTrainedTokenizerFast"}


def _likely_class(path: Path) -> str:
    """The class of a vocabulary whose folder names none, by the file's name and the special tokens in it."""
    if path.name == "vocab.txt":
        return "BertTokenizer"
    if path.name == "vocab.json":
        return "RobertaTokenizer" if "<s>" in _read_json(path) else "GPT2Tokenizer"
    tokens = {text for text, _ in sentencepiece_file.read(path).vocabulary}
    if path.name == "sentencepiece.bpe.model":
        return "XLMRobertaTokenizer"
    if "[CLS]" in tokens:
        return "DebertaV2Tokenizer" if "[UNK]" in tokens else "AlbertTokenizer"
    return "XLNetTokenizer" if "<cls>" in tokens else "T5Tokenizer"


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
