"""From raw text to an encoder: a tokenizer, shards, and a pre-training run, each made where it is not given.

cl.pretrain("texts/", out="runs/mine", shape="bert-mini-uncased", nsp=1.0)
cl.pretrain("notes.jsonl", out="runs/clinic", model="bert-base-uncased", learning_rate=5e-5)
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clozeline import bundle as bundles
from clozeline import checkpoint
from clozeline.bundle import Bundle
from clozeline.card import pretraining_card
from clozeline.config import EncoderConfig
from clozeline.data.corpus import files
from clozeline.data.shard_writing import write
from clozeline.data.shards import HELD_OUT, MANIFEST, Shards
from clozeline.errors import InputError
from clozeline.families import by_name
from clozeline.families.shapes import shaped
from clozeline.files import write_whole
from clozeline.precision import pick_device
from clozeline.pretraining_recipe import KEYS, PretrainRecipe
from clozeline.recipe import checked
from clozeline.student import check_words, student_of
from clozeline.tasks.known import Task
from clozeline.tasks.masked_lm import MaskedLM
from clozeline.tasks.next_sentence import NextSentence
from clozeline.tokenizer import Tokenizer
from clozeline.tokenizer_training import SIZE, Kind, train_tokenizer
from clozeline.train import distributed
from clozeline.train.distributed import Group
from clozeline.train.folder import refuse
from clozeline.train.pretrain import BESIDE, Pretrained, kind_of_head
from clozeline.train.pretrain import pretrain as run
from clozeline.train.pretraining_plan import PretrainPlan, plan
from clozeline.train.pretraining_settings import PretrainSettings
from clozeline.train.teaching import match_of

SHAPE = "bert-mini-uncased"
KINDS: dict[str, Kind] = {
    "roberta": "bpe",
    "modernbert": "bpe",
    "xlm-roberta": "unigram",
    "camembert": "unigram",
    "albert": "unigram",
    "deberta-v2": "unigram",
}
"""How families spell words where it is not BERT's way."""
log = logging.getLogger("clozeline")


def pretrain(
    corpus: str | Path | Sequence[str | Path],
    *,
    out: str | Path,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    settings: PretrainSettings | None = None,
    **changes: Any,
) -> Pretrained:
    """Pre-train an encoder on raw text; `out/model` is a folder that `load` and transformers read.

    Args:
        corpus: text files, folders and hub data sets, whose rows or files are documents; or one folder of shards.
        out: folder of the run: tokenizer and shards, which are kept for the next run, model, metrics.jsonl, curve.png, and
            the state to resume from.
        resume: go on with the unfinished run in `out`.
        overwrite: begin anew, shards and tokenizer included.
        settings: how to train, see `PretrainSettings`.
        changes: single settings, such as nsp=1.0; and what to train, by the keys of a recipe (see `PretrainRecipe`): model,
            shape, layers, width, tokenizer, vocabulary, validation, held_out, text, split, near_duplicates, device, ...

    Raises:
        InputError: the corpus cannot be read or holds too little, settings do not fit the model, or `out` holds another run.
    """
    sources = (corpus,) if isinstance(corpus, str | Path) else tuple(corpus)
    given = {"corpus": tuple(map(str, sources)), "out": str(out)}
    given |= {name: str(value) if isinstance(value, Path) else value for name, value in changes.items()}
    values = {name: checked(name, value, "", KEYS) for name, value in given.items()}
    base = {} if settings is None else dataclasses.asdict(settings)
    return start(PretrainRecipe.of(base | values), resume=resume, overwrite=overwrite, quiet=quiet)


def start(
    recipe: PretrainRecipe,
    *,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    workers: int | None = 1,
) -> Pretrained:
    """As `pretrain`, with all of it in a recipe. workers: processes that make shards, see `shard_writing.write`."""
    device, out, settings = pick_device(recipe.device), Path(recipe.out), recipe.settings
    group = distributed.join(device)
    refuse(out, resume=resume, overwrite=overwrite, beside=BESIDE)
    teacher = _teacher(recipe)
    ready = prepare(recipe, group, teacher, overwrite=overwrite, quiet=quiet, workers=workers)
    taught = None if teacher is None else teacher.network
    if group.first:
        write_whole(out / "recipe.toml", recipe.to_toml())
    if group.first and not quiet and not settings.sharded and not resume:
        print(plan(*ready, settings, device, taught), file=sys.stderr)
    how: dict[str, Any] = dict(resume=resume, overwrite=overwrite, quiet=quiet, teacher=taught)
    return run(*ready, out, settings, device=device, card=pretraining_card, **how)


def planned(recipe: PretrainRecipe) -> PretrainPlan:
    """What `start` would do and cost. Tokenizer and shards are made, since nothing can be counted without them."""
    device = pick_device(recipe.device)
    refuse(Path(recipe.out), resume=True, overwrite=False, beside=BESIDE)
    teacher = _teacher(recipe)
    ready = prepare(recipe, distributed.join(device), teacher)
    return plan(*ready, recipe.settings, device, None if teacher is None else teacher.network)


def _teacher(recipe: PretrainRecipe) -> Bundle | None:
    """The model to learn from.

    Raises:
        InputError: it cannot be found, or has no head for masked words.
    """
    if recipe.teacher is None:
        return None
    found = bundles.load(recipe.teacher, MaskedLM())
    if any(name.startswith("head.") for name in found.fresh):
        raise InputError(
            f"{recipe.teacher} has no masked-LM head to teach with; take a pre-trained model that has one."
        )
    return found


def prepare(
    recipe: PretrainRecipe,
    group: Group,
    teacher: Bundle | None = None,
    *,
    overwrite: bool = False,
    quiet: bool = False,
    workers: int | None = 1,
) -> tuple[Bundle, Shards, Shards | None]:
    """The model to train, the corpus, and held-out text. The first of several processes makes what is missing.

    Raises:
        InputError: see `pretrain`.
    """
    check(recipe)
    made, folder = Path(recipe.out) / "tokenizer", _folder(recipe)
    if group.first and folder is None:
        _train_tokenizer(recipe, made, overwrite, quiet)
    group.told(None)
    bundle = _bundle(recipe, folder or made) if teacher is None else _student(recipe, teacher, quiet or not group.first)
    making = _Making(recipe, bundle.tokenizer, group, overwrite, quiet, workers)
    shards = making.shards(
        recipe.corpus, Path(recipe.out) / "shards", 0.005 if recipe.held_out is None else recipe.held_out
    )
    if recipe.validation is not None:
        return bundle, shards, making.shards((recipe.validation,), Path(recipe.out) / "validation", 0.0)
    held = shards.folder / HELD_OUT
    found = Shards.open(held, bundle.tokenizer, verify=group.first) if (held / MANIFEST).exists() else None
    least = 2 if recipe.settings.nsp else 1
    if found is not None and found.documents < least:
        log.warning(
            "%d documents are held out, too few to validate on; raise held_out, or give validation.", found.documents
        )
        found = None
    return bundle, shards, found


def check(recipe: PretrainRecipe) -> None:
    """Refuse a run that cannot be, before anything is made for it.

    Raises:
        InputError: no such shape, sequences longer than it reads or too short to hold anything, objectives that the family
            has no head for, or keys that have nothing to act on.
    """
    settings, many = recipe.settings, len(recipe.corpus) > 1
    if many and (shards := [source for source in recipe.corpus if _is_shards((source,))]):
        raise InputError(
            f"{shards[0]} is a folder of shards, which stands alone; give it as the only corpus, or only text."
        )
    if _is_shards(recipe.corpus):
        given = [name for name in ("held_out", "split", "text") if getattr(recipe, name) is not None]
        given += ["near_duplicates"] if recipe.near_duplicates else []
        if given:
            raise InputError(f"{recipe.corpus[0]} is a folder of shards, made as it is; leave {', '.join(given)} out.")
    shortest = min(settings.length, settings.first_length or settings.length)
    if shortest < (least := 5 if settings.pairs else 3):
        raise InputError(f"A sequence of {shortest} tokens has no room beside the special ones; give at least {least}.")
    if recipe.model is None and recipe.teacher is None:
        family, config = shaped(recipe.shape or SHAPE, recipe.sizes())
        kind_of_head(family, settings)
        _fits(settings, config)


def _fits(settings: PretrainSettings, config: EncoderConfig) -> None:
    longest = max(settings.length, settings.first_length)
    if longest > config.max_length:
        raise InputError(f"length is {longest}, but the model reads {config.max_length} tokens at most.")


def _folder(recipe: PretrainRecipe) -> Path | None:
    """Where the tokenizer is, None where it has to be trained."""
    if given := recipe.model or recipe.teacher or recipe.tokenizer:
        return checkpoint.find(given)
    beside = Path(recipe.corpus[0]) / "tokenizer"
    return beside if _is_shards(recipe.corpus) and beside.is_dir() else None


def _is_shards(corpus: Sequence[str]) -> bool:
    return len(corpus) == 1 and (Path(corpus[0]) / MANIFEST).is_file()


def _train_tokenizer(recipe: PretrainRecipe, folder: Path, overwrite: bool, quiet: bool) -> None:
    """Train the tokenizer that the shape's family has, unless the folder has the very one."""
    if _is_shards(recipe.corpus):
        raise InputError(
            f"{recipe.corpus[0]} is a folder of shards without its tokenizer; give the tokenizer's folder."
        )
    family, config = shaped(recipe.shape or SHAPE, recipe.sizes())
    how: dict[str, Any] = dict(
        kind=recipe.tokenizer_kind or KINDS.get(family.name, "wordpiece"),
        size=recipe.vocabulary or SIZE,
        seed=recipe.settings.seed,
        text=recipe.text,
        split=recipe.split or "file",
        encoding=recipe.encoding,
        max_length=config.max_length,
    )
    sizes = [Path(path).stat().st_size for path in files(recipe.corpus) if Path(path).exists()]
    note, wanted = (
        folder / "training.json",
        {"corpus": [*recipe.corpus], "files": len(sizes), "size": sum(sizes), **how},
    )
    if note.exists() and json.loads(note.read_text(encoding="utf-8")) == wanted:
        return
    if note.exists() and not overwrite:
        raise InputError(
            f"{folder} was trained on something else; choose another folder, or overwrite it (--overwrite)."
        )
    train_tokenizer(recipe.corpus, quiet=quiet, **how).save(folder)
    write_whole(note, json.dumps(wanted, indent=2) + "\n")


@dataclasses.dataclass(frozen=True)
class _Making:
    """How shards are made where they are not there yet."""

    recipe: PretrainRecipe
    tokenizer: Tokenizer
    group: Group
    overwrite: bool
    quiet: bool
    workers: int | None

    def shards(self, corpus: Sequence[str], folder: Path, held_out: float) -> Shards:
        """The shards of a corpus; the first process makes and verifies them."""
        recipe, first = self.recipe, self.group.first
        if _is_shards(corpus):
            return Shards.open(Path(corpus[0]), self.tokenizer, verify=first)
        how: dict[str, Any] = dict(text=recipe.text, split=recipe.split or "file", encoding=recipe.encoding)
        how |= dict(near_duplicates=recipe.near_duplicates, held_out=held_out, workers=self.workers, quiet=self.quiet)
        if first:
            try:
                write(corpus, self.tokenizer, folder, **how)
            except InputError:
                if not self.overwrite or not (folder / MANIFEST).exists():
                    raise
                write(corpus, self.tokenizer, folder, overwrite=True, **how)  # it was of something else
        self.group.told(None)
        return Shards.open(folder, self.tokenizer, verify=False)  # writing has looked at what was there


def _bundle(recipe: PretrainRecipe, tokenizer: Path) -> Bundle:
    """The network with the head that the objectives need, and its tokenizer."""
    settings = recipe.settings
    task: Task | None = MaskedLM() if settings.mlm else NextSentence()
    if recipe.model is not None:
        raw, tensors = checkpoint.read_config(tokenizer), checkpoint.plain_tensors(tokenizer)
        family = by_name(raw["model_type"])
        head, own = kind_of_head(family, settings), checkpoint.own_head(raw, tensors)
        if own == "pretraining" and head in ("masked_lm", "next_sentence"):
            head = own  # what is not trained on is kept as it is
        loaded = checkpoint.load(tokenizer, head, seed=settings.seed, tensors=tensors)
        config, network, fresh = loaded.config, loaded.network, loaded.fresh
        for names, what in (
            (loaded.fresh, "newly initialised"),
            (loaded.unused, "left out, and lost in what is saved"),
        ):
            if names:
                log.warning("%s: %s: %s", recipe.model, what, ", ".join(names))
        words = Tokenizer.load(tokenizer, config.max_length)
        words.check(config.vocab_size)
        kept = {key: value for key, value in raw.items() if key.endswith("_token_id")}
        _fits(settings, config)
    else:
        read = Tokenizer.load(tokenizer)
        sizes = recipe.shape or SHAPE, recipe.sizes()
        family, config = shaped(*sizes, vocab_size=read.vocab_size, pad_id=read.pad_id)
        network = family.build(config, kind_of_head(family, settings), seed=settings.seed)
        fresh = [name for name, _ in network.named_parameters()]
        words = Tokenizer.load(tokenizer, config.max_length)
        ids = {"bos": words.cls_id, "eos": words.sep_id, "cls": words.cls_id, "sep": words.sep_id}
        kept = {f"{role}_token_id": number for role, number in ids.items() if number is not None}
    name = recipe.model or f"fresh weights in the shape of {recipe.shape or SHAPE}"
    return Bundle(name, family, network, words, None if settings.rtd else task, fresh, kept)


def _student(recipe: PretrainRecipe, teacher: Bundle, quiet: bool) -> Bundle:
    """The network that learns from the teacher: a checkpoint of its own, or a smaller one that begins with its weights."""
    if recipe.model is not None:
        bundle = _bundle(recipe, checkpoint.find(recipe.model))
        check_words(teacher, bundle)
        _fits(recipe.settings, teacher.config)
        match_of(recipe.settings, bundle.network, teacher.network)
        return bundle
    settings = recipe.settings
    how: dict[str, Any] = dict(shape=recipe.shape, sizes=recipe.sizes(), seed=settings.seed)
    made = student_of(teacher, **how, layers=settings.layer_map)
    for config in (made.network.config, teacher.config):
        _fits(settings, config)
    match_of(settings, made.network, teacher.network)
    if not quiet:
        print(made, file=sys.stderr)
    words, name = teacher.tokenizer.limited(made.network.config.max_length), f"a student of {teacher.name}"
    return Bundle(name, made.family, made.network, words, MaskedLM(), [], teacher.kept)
