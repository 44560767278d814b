"""Checkpoints: a Hugging Face folder, on disk or on a hub, to a network and back.

Loading is strict: each tensor is used once and each parameter filled. What differs is shown as two columns.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from clozeline.config import EncoderConfig
from clozeline.errors import InputError
from clozeline.families import by_name
from clozeline.families.family import Family
from clozeline.model.heads import Network
from clozeline.tokenizer_classes import SENTENCEPIECE

TOKENIZER_FILES = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    *SENTENCEPIECE,
]
SHIPPED = Path(__file__).parent / "models"
"""The models of this package, whose names begin with "clozeline/"."""
OLD_WEIGHTS = ("pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class Checkpoint:
    """A loaded folder. raw: its `config.json`; fresh: parameters it did not hold, newly initialised; unused: tensors of
    other heads that were left out."""

    folder: Path
    family: Family
    network: Network
    raw: Mapping[str, Any]
    fresh: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    @property
    def config(self) -> EncoderConfig:
        return self.network.config


def find(name: str | Path, revision: str | None = None) -> Path:
    """The folder of a model: a path as it is, a model of this package ("clozeline/mini"), or a hub name
    ("google-bert/bert-base-uncased") after download to the cache.

    The hub, its cache and offline mode are huggingface-hub's: HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE, HF_TOKEN.

    Raises:
        InputError: no such folder, no such model, or the hub cannot be reached.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if (own := SHIPPED / str(name).removeprefix("clozeline/")).is_dir() and str(name).startswith("clozeline/"):
        return own
    if path.is_file():
        raise InputError(f"{path} is a file; give the folder that holds config.json and model.safetensors.")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(name)) or str(name).startswith("."):
        raise InputError(f"There is no folder {str(name)!r}, and that is not a hub name either (like owner/model).")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    def download(*patterns: str) -> Path:
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=list(patterns)))

    try:
        # a repository may hold the same weights in several formats: the listing says which one to fetch
        folder = download("config.json", *TOKENIZER_FILES, "model.safetensors", "model.safetensors.index.json")
        if (folder / "model.safetensors.index.json").exists():
            return download("config.json", *TOKENIZER_FILES, "model*.safetensors", "model.safetensors.index.json")
        if not (folder / "model.safetensors").exists():
            return download("config.json", *TOKENIZER_FILES, *OLD_WEIGHTS)
        return folder
    except LocalEntryNotFoundError as error:
        raise InputError(
            f"There is no folder {str(name)!r}, the model is not in the local cache, and the hub cannot be reached. "
            "Check the network, HF_ENDPOINT and HF_HUB_OFFLINE, or give a folder."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise InputError(
            f"There is no folder {str(name)!r} and no model of that name on the hub. "
            "Check the name, or log in with a token if the model is private."
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise InputError(f"The hub could not give {str(name)!r}: {str(error).splitlines()[0]}") from error


def read_config(folder: Path) -> dict[str, Any]:
    """The parsed `config.json` of a model folder.

    Raises:
        InputError: it is missing or not JSON.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"{folder} holds no config.json, so it is not a model folder. It holds: {_listing(folder)}.")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("model_type"), str):
        raise InputError(f"{path} has no 'model_type', so the family of the model is unknown.")
    return raw


def marks(network: Network, names: Sequence[str]) -> dict[str, str]:
    """What `config.json` says of parameters that were saved untrained: a digest of each, for `untrained` to know them by."""
    parameters = dict(network.named_parameters())
    return {name: _digest(parameters[name]) for name in names}


def untrained(raw: Mapping[str, Any], network: Network) -> list[str]:
    """The parameters that were saved untrained and still are, whoever has saved the folder since."""
    ours = raw.get("clozeline")
    marked = ours.get("untrained") if isinstance(ours, dict) else None
    parameters = dict(network.named_parameters())
    kept = marked.items() if isinstance(marked, dict) else ()
    return [name for name, digest in kept if name in parameters and _digest(parameters[name]) == digest]


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a model folder: safetensors first, whole or in shards; else an old `.bin`, never unpickling code.

    Raises:
        InputError: there are none, or a file is damaged or would run code.
    """
    name = next((name for name in WEIGHTS if (folder / name).is_file()), None)
    if name is None:
        raise InputError(
            f"{folder} holds no weights: {' or '.join(WEIGHTS[::2])} is needed. It holds: {_listing(folder)}."
        )
    files = [folder / name]
    if name.endswith(".index.json"):
        try:
            shards = set(json.loads(files[0].read_text(encoding="utf-8"))["weight_map"].values())
            files = [folder / shard for shard in sorted(shards)]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{files[0]} is damaged: it must be JSON with a 'weight_map' of tensors to files."
            ) from error
    tensors: dict[str, Tensor] = {}
    for path in files:
        if not path.is_file():
            raise InputError(f"{path} is missing: the weights are in {len(files)} files and all are needed.")
        tensors |= _read_file(path)
    return tensors


def _read_file(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise InputError(f"{path} is damaged or incomplete ({error}). Download or copy it again.") from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip and runtime errors for a file it will not or cannot read
        raise InputError(
            f"{path} is damaged, or holds more than tensors and would run code when opened; it is not opened. "
            "Convert it to model.safetensors where you trust it."
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError(f"{path} does not hold a table of tensors.")
    return found


def load(
    folder: Path,
    head: str | None,
    classes: int = 0,
    *,
    reset: str | None = None,
    seed: int = 0,
    tensors: Mapping[str, Tensor] | None = None,
) -> Checkpoint:
    """A network in fp32 from a model folder.

    Args:
        head: the kind of head wanted, a key of the family's `heads`; one that the checkpoint does not have starts fresh.
        classes: outputs of a classification head.
        reset: start parameters whose name begins so afresh, though the checkpoint may hold them.
        seed: of the fresh weights.
        tensors: what `plain_tensors` gave for the folder, where it was read already.

    Raises:
        InputError: the folder is not a checkpoint, is damaged, asks for what is not supported or does not match its shape.
    """
    raw = read_config(folder)
    family = by_name(raw["model_type"])
    if head is not None and head not in family.heads:
        raise InputError(f"{family.name} has no {head} head; it has {', '.join(family.heads)}.")
    config = family.read(raw)
    tensors = plain_tensors(folder) if tensors is None else tensors
    if head == "base" and not any(name in tensors for name in _head_names(family, config, head)):
        head = None  # a bare encoder may have been saved without its pooler
    network = family.build(config, head, classes, seed=seed, encoder=False)
    fresh, unused = _fill(network, family, head, own_head(raw, tensors), tensors, reset, folder)
    return Checkpoint(folder, family, network, raw, fresh, unused)


def plain_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a model folder under today's names without prefix.

    Raises:
        InputError: as `load`.
    """
    return _plain_names(read_tensors(folder), by_name(read_config(folder)["model_type"]))


def own_head(raw: Mapping[str, Any], tensors: Collection[str]) -> str | None:
    """The kind of head that a checkpoint has by its parsed `config.json`; None where it is one not known here.

    tensors: the names in its files. A head of which none is there is none, whatever the configuration says: encoders made
    for vectors often keep the class name of what they were trained from.
    """
    family = by_name(raw["model_type"])
    named = raw.get("architectures") or []
    kinds = [family.head_of(name) for name in ([named] if isinstance(named, str) else named)]
    own = next((kind for kind in kinds if kind is not None), None) if kinds else "base"
    if own in (None, "base"):
        return own
    if own == "pretraining" and not _both_parts(family, family.read(raw), tensors):
        own = "masked_lm"
    return own if _head_names(family, family.read(raw), own) & set(tensors) else "base"


def _both_parts(family: Family, config: EncoderConfig, tensors: Collection[str]) -> bool:
    """Whether the tensors of a head for masked words and pairs are all there, copies of tied ones aside."""
    needed = _head_names(family, config, "pretraining") - set(family.heads["pretraining"].tied)
    return needed <= set(tensors)


def names(family: Family, network: Network, head: str | None) -> dict[str, tuple[str, ...]]:
    """The name of each of the network's parameters, and those of the tensors that hold it, without prefix."""
    table = family.table(network.config, head)
    found = {name: table.get(name) for name, _ in network.named_parameters()}
    unnamed = [name for name, theirs in found.items() if theirs is None]
    assert not unnamed, f"the family {family.name} has no name for {', '.join(unnamed)}"
    return {name: theirs for name, theirs in found.items() if theirs is not None}


def _head_names(family: Family, config: EncoderConfig, head: str) -> set[str]:
    """What a head's tensors are called in a checkpoint, copies of tied ones too."""
    table = family.table(config, head)
    names = {name for ours, several in table.items() if ours.startswith("head.") for name in several}
    return names | set(family.heads[head].tied)


def _plain_names(tensors: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Tensors without the family's prefix, with the oldest checkpoints' gamma and beta by today's names."""
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = name.removeprefix(family.prefix)
        for old, new in family.renamed.items():
            short = new + short.removeprefix(old) if short.startswith(old) else short
        short = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", short))
        if short in plain:
            raise InputError(f"The checkpoint holds {short!r} twice, as {name!r} too; one of them must go.")
        if short not in family.ignored:
            plain[short] = tensor
    return plain


def _fill(
    network: Network,
    family: Family,
    head: str | None,
    own: str | None,
    tensors: Mapping[str, Tensor],
    reset: str | None,
    folder: Path,
) -> tuple[list[str], list[str]]:
    """Copy every tensor to its parameter. Gives the parameters left fresh and the tensors left over, or raises."""
    parameters = dict(network.named_parameters())
    table = names(family, network, head)
    left = set(tensors)
    fresh: list[str] = []
    wrong: list[tuple[str, str]] = []
    for ours, theirs in table.items():
        parameter = parameters[ours]
        missing = [name for name in theirs if name not in tensors]
        part = parameter.shape[0] // len(theirs)
        shape = (part, *parameter.shape[1:])
        misfit = [name for name in theirs if name in tensors and tensors[name].shape != shape]
        left.difference_update(theirs)
        # a new task's head starts fresh; everything that the checkpoint claims to be must be there and fit
        new = (missing or misfit) and ours.startswith("head.") and head != own
        if new or (reset is not None and ours.startswith(reset)):
            fresh.append(ours)
            continue
        wrong += [("(missing)", f"{name} {shape}") for name in missing]
        wrong += [(f"{name} {tuple(tensors[name].shape)}", f"{name} {shape}") for name in misfit]
        if not missing and not misfit:
            found = [tensors[name] for name in theirs]
            _check_finite(found, theirs, folder)
            with torch.no_grad():
                parameter.copy_(torch.cat(found) if len(found) > 1 else found[0])
    tied = dict(family.heads[head].tied) if head else {}
    for second, first in tied.items():
        if second in left and first in tensors:
            left.discard(second)
            if not torch.equal(tensors[second], tensors[first]):
                wrong.append((f"{second} differs", f"{first} (one tensor, tied)"))
    # what belongs to another head is left out; of a head unknown here that is all there is beside the encoder
    others = {name for kind in family.heads for name in _head_names(family, network.config, kind)} if own else left
    others = left & others | {name for name in left if name.startswith(family.foreign)}
    wrong += [(f"{name} {tuple(tensors[name].shape)}", "(no such parameter)") for name in sorted(left - others)]
    if wrong:
        raise InputError(_diff(folder, wrong))
    return fresh, sorted(others)


def _check_finite(found: list[Tensor], names: tuple[str, ...], folder: Path) -> None:
    for tensor, name in zip(found, names, strict=True):
        if not bool(torch.isfinite(tensor.sum(dtype=torch.float32))) and not bool(torch.isfinite(tensor).all()):
            count = int((~torch.isfinite(tensor)).sum())
            raise InputError(
                f"{folder}: tensor {name} holds {count} values that are NaN or infinite, so the checkpoint is unusable. "
                "The training that wrote it diverged, or the file is damaged."
            )


def _diff(folder: Path, rows: list[tuple[str, str]]) -> str:
    shown = rows[:20]
    width = max(len(left) for left, _ in shown)
    lines = [f"  {left:<{width}}  |  {right}" for left, right in shown]
    more = [f"  and {len(rows) - len(shown)} more"] if len(rows) > len(shown) else []
    return "\n".join(
        [
            f"The weights in {folder} do not match its config.json ({len(rows)} of them):",
            f"  {'in the file':<{width}}  |  in the model",
            *lines,
            *more,
        ]
    )


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "nothing"


def save(
    folder: Path,
    family: Family,
    network: Network,
    head: str | None,
    extra: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write `config.json` and `model.safetensors` into an existing folder, under the family's own names.

    extra: what the task adds to `config.json`, such as id2label. Give a `files.staged` folder for an atomic save.
    """
    architecture = family.heads[head or "base"].architecture
    raw = {"architectures": [architecture], **family.write(network.config), **extra, "dtype": str(dtype).split(".")[-1]}
    (folder / "config.json").write_text(json.dumps(raw, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    parameters = dict(network.named_parameters())
    tensors: dict[str, Tensor] = {}
    for ours, theirs in names(family, network, head).items():
        for name, part in zip(theirs, parameters[ours].detach().chunk(len(theirs)), strict=True):
            tensors[family.written(name, head)] = part.to(dtype).contiguous().cpu()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
