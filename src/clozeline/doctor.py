"""What this machine and a model folder are, and what is wrong with them: `clozeline doctor`."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch

import clozeline
from clozeline import checkpoint, tokenizer_check
from clozeline.errors import InputError
from clozeline.model import kernels, onednn
from clozeline.model.heads import Network
from clozeline.precision import compute_dtype, pick_device
from clozeline.tokenizer import Tokenizer

DROPOUT = 0.1
"""On attention weights in training, as nearly every published BERT has it."""
LABELLED = ("text_classification", "token_classification")


def machine() -> dict[str, Any]:
    """Versions, devices, and what computes what here."""
    device = pick_device()
    has = torch.cpu.get_capabilities()
    found: dict[str, Any] = {
        "clozeline": clozeline.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "tokenizers", "safetensors")},
        "device": str(device),
        "gpus": [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())],
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores",
        "cpu": [
            name for name, there in has.items() if there is True and name.startswith(("avx", "amx", "bf16", "sve"))
        ],
        "precision auto": _name(compute_dtype("auto", device)),
    }
    for use, dropout in (("prediction", 0.0), ("training", DROPOUT)):
        for dtype in (torch.float32, torch.bfloat16):
            why = kernels.refusal("varlen", device, dtype, dropout=dropout)
            found[f"attention in {use}, {_name(dtype)}"] = "varlen, the fastest" if why is None else f"blocks: {why}"
    for dtype in (torch.float32, torch.bfloat16):
        served = device.type == "cpu" and onednn.available(dtype)
        found[f"linear maps in prediction, {_name(dtype)}"] = "oneDNN, packed" if served else "torch"
    return found


def model(name: str) -> dict[str, Any]:
    """What a model folder holds, with a list of what is wrong with it.

    Raises:
        InputError: it cannot be loaded at all.
    """
    folder = checkpoint.find(name)
    raw = checkpoint.read_config(folder)
    tensors = checkpoint.plain_tensors(folder)
    task = checkpoint.own_head(raw, tensors)  # None: a head not known here
    problems: list[str] = []
    try:
        loaded = checkpoint.load(folder, task or "base", _outputs(raw), tensors=tensors)
    except InputError as error:  # perhaps only of the head, a decoder that should be tied for one
        loaded = checkpoint.load(folder, None, tensors=tensors)
        problems.append(str(error))
    config, network = loaded.config, loaded.network
    head = loaded.family.heads[network.kind or "base"]
    tied = [f"{second} to {first}" for second, first in head.tied.items()]
    labels = list((raw.get("id2label") or {}).values()) if task in LABELLED else []
    found: dict[str, Any] = {
        "model": str(folder),
        "family": loaded.family.name,
        "task": {None: ", ".join(raw.get("architectures") or []), "base": "none: a bare encoder"}.get(task, task),
        "labels": labels,
        "shape": f"{config.layers} layers, width {config.width}, {config.heads} heads",
        "positions": str(config.positions),
        "parameters": _sizes(network),
        "tensors on disk": dict(Counter(_name(tensor.dtype) for tensor in tensors.values())),
        "tied": tied,
        "longest sequence": config.max_length,
        "embedding rows": config.vocab_size,
        **_attention(network),
        "tensors of other heads, not used": loaded.unused,
    }
    try:
        tokenizer = Tokenizer.load(folder, config.max_length)
        found |= {"longest sequence": tokenizer.max_length, "tokenizer ids": tokenizer.vocab_size}
        found["tokenizer"], wrong = tokenizer_check.check(tokenizer)
        problems += wrong
        tokenizer.check(config.vocab_size)
        if tokenizer.pad_id != config.pad_id:
            problems.append(
                f"config.json says padding is token {config.pad_id}, the tokenizer says {tokenizer.pad_id}."
            )
    except InputError as error:
        problems.append(str(error))
    if config.pad_id is None or not 0 <= config.pad_id < config.vocab_size:
        problems.append(f"The padding token {config.pad_id} is not among the {config.vocab_size} embedding rows.")
    if labels and labels == [f"LABEL_{at}" for at in range(len(labels))]:
        problems.append("The labels have placeholder names; put the real ones in id2label of config.json.")
    if task is None:
        problems.append("The head is of a kind not known here, so only the encoder can be used.")
    if head.tied and raw.get("tie_word_embeddings") is False:
        problems.append("config.json says that the decoder is not tied to the token table; here it always is.")
    if loaded.fresh:
        problems.append(f"The checkpoint lacks {', '.join(loaded.fresh)}; train before use.")
    if untrained := checkpoint.untrained(raw, loaded.network):
        problems.append(f"Saved before they were trained: {', '.join(untrained)}; train before use.")
    return {**found, "problems": problems}


def _outputs(raw: Mapping[str, Any]) -> int:
    """How many outputs a classifier in this checkpoint has."""
    return len(raw.get("id2label") or ()) or int(raw.get("num_labels", 2))


def _sizes(network: Network) -> dict[str, int]:
    """Parameters by part."""
    parts = {
        "tokens": "encoder.embedding.tokens.",
        "positions, segments, norm": "encoder.embedding.",
        "layers": "encoder.",
        "head": "head.",
    }
    sizes: Counter[str] = Counter()
    for ours, parameter in network.named_parameters():
        sizes[next(part for part, prefix in parts.items() if ours.startswith(prefix))] += parameter.numel()
    return {"all": sizes.total(), **sizes}


def _attention(network: Network) -> dict[str, str]:
    """Which kernel serves this model's attention here, and why not a faster one."""
    config, device = network.config, pick_device()
    bias = network.encoder.positions.biased
    served: dict[str, str] = {}
    for use, dropout in (("prediction", 0.0), ("training", config.attention_dropout)):
        for dtype in (torch.float32, torch.bfloat16):
            why = kernels.refusal("varlen", device, dtype, dropout=dropout, bias=bias, head_width=config.head_width)
            served[f"attention in {use}, {_name(dtype)}"] = "varlen, the fastest" if why is None else f"blocks: {why}"
    return served


def show(found: dict[str, Any]) -> str:
    """The findings, a line each; what is empty is left out."""
    width = max(len(name) for name in found)
    return "\n".join(f"{name:<{width}}  {_shown(value)}" for name, value in found.items() if value not in ([], {}))


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part:,}" for name, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _name(dtype: torch.dtype) -> str:
    names = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    return names.get(dtype, str(dtype).removeprefix("torch."))
