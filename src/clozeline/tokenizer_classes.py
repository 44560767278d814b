"""Backends from the vocabulary files that are older than tokenizer.json, by the class that transformers names for them.

Each class says which files it reads, what its special tokens are called, and how it splits text and frames it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE, Unigram, WordPiece

from clozeline import sentencepiece_file as spm
from clozeline.errors import InputError

Settings = dict[str, Any]
SPACE = "\u2581"  # what SentencePiece writes for a space
# What a role's token is called where a folder does not say: BERT's name, then RoBERTa's.
ROLES = {"cls": "[CLS] <s>", "sep": "[SEP] </s>", "pad": "[PAD] <pad>", "mask": "[MASK] <mask>", "unk": "[UNK] <unk>"}
BERT = {role: names.split()[0] for role, names in ROLES.items()}
ROBERTA = {role: names.split()[1] for role, names in ROLES.items()}


@dataclass(frozen=True)
class TokenizerClass:
    """files: the names that its vocabulary may have; tokens: its special tokens by role; build: what reads it."""

    files: tuple[str, ...]
    tokens: dict[str, str]
    build: Callable[[Path, Settings], Backend]


def wordpiece(path: Path, settings: Settings) -> Backend:
    """BERT's WordPiece from one token a line; of equal lines the last one counts, as in transformers."""
    # not splitlines: real vocabularies have U+2028 as a token
    text = _text(path, "one token a line")
    vocabulary = {token: index for index, token in enumerate(text.removesuffix("\n").split("\n"))}
    unk, cls, sep = (role_token(role, settings, vocabulary) for role in ("unk", "cls", "sep"))
    if unk is None or cls is None or sep is None:
        raise InputError(
            f"{path} {'lacks [UNK], [CLS] or [SEP]' if text else 'is empty'}; a WordPiece vocabulary has one token "
            "a line and these three among them, or what tokenizer_config.json names unk_token, cls_token, sep_token."
        )
    backend = Backend(WordPiece(vocabulary, unk_token=unk))
    backend.normalizer = clean_up(settings)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing((sep, vocabulary[sep]), (cls, vocabulary[cls]))
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend


def clean_up(settings: Settings) -> normalizers.BertNormalizer:
    """BERT's text clean-up; lower case unless the settings say otherwise, as in transformers."""
    return normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )


def _mpnet(path: Path, settings: Settings) -> Backend:
    """WordPiece in RoBERTa's frame; the mask takes in the space before it."""
    backend = wordpiece(path, settings)
    cls, sep = _ids(backend, path, _named(settings, "cls", "sep"))
    backend.post_processor = processors.RobertaProcessing(sep, cls, trim_offsets=True, add_prefix_space=False)
    backend.add_special_tokens([AddedToken(*_named(settings, "mask"), lstrip=True, normalized=False)])
    return backend


def _bytes(path: Path, settings: Settings) -> Backend:
    """Byte-level BPE (Radford et al. 2019, GPT-2): vocab.json, and merges.txt beside it."""
    merges_file = path.with_name("merges.txt")
    if not merges_file.is_file():
        raise InputError(f"{merges_file} is missing: byte-level BPE needs it beside {path.name}.")
    try:
        vocabulary = json.loads(_text(path, "a JSON object of tokens and ids"))
        lines = _text(merges_file, "two tokens a line").split("\n")
        merges = [(left, right) for left, right in (line.split(" ") for line in lines[_headed(lines) :] if line)]
        backend = Backend(BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix=""))
    except InputError:
        raise
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{path} and {merges_file.name} are no byte-level BPE vocabulary: {error}.") from None
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=settings.get("add_prefix_space", False))
    backend.decoder = decoders.ByteLevel()
    return backend


def _headed(lines: list[str]) -> int:
    """Lines before the first merge: a version, where there is one."""
    return int(lines[0].startswith("#version"))


def _roberta(path: Path, settings: Settings) -> Backend:
    backend = _bytes(path, settings)
    cls, sep = _ids(backend, path, _named(settings, "cls", "sep"))
    spaced = settings.get("add_prefix_space", False)
    backend.post_processor = processors.RobertaProcessing(sep, cls, settings.get("trim_offsets", True), spaced)
    return backend


def _deberta(path: Path, settings: Settings) -> Backend:
    backend = _sentencepiece(spm.read(path))
    steps = [normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "), normalizers.NFC(), normalizers.Strip(left=False)]
    lower = [normalizers.Lowercase()] if settings.get("do_lower_case", False) else []
    backend.normalizer = normalizers.Sequence([*lower, *steps])
    apart = [pre_tokenizers.Punctuation("isolated")] if settings.get("split_by_punct", False) else []
    backend.pre_tokenizer = pre_tokenizers.Sequence([*apart, _spaces()])
    # the file ends before the mask token, and the embedding has a row for it
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in _named(settings, "mask")])
    return _framed(backend, path, settings, "{cls}:0 $A:0 {sep}:0", "{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1")


def _albert(path: Path, settings: Settings) -> Backend:
    found = spm.read(path)
    backend = _sentencepiece(found)
    lower, accents = settings.get("do_lower_case", True), settings.get("keep_accents", False)
    backend.normalizer = _quotes(found, lower=lower, accents=accents)
    return _framed(backend, path, settings, "{cls}:0 $A:0 {sep}:0", "{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1")


def _xlnet(path: Path, settings: Settings) -> Backend:
    found = spm.read(path)
    backend = _sentencepiece(found)
    backend.normalizer = _quotes(found, lower=settings.get("do_lower_case", False), accents=False)
    return _framed(backend, path, settings, "$A:0 {sep}:0 {cls}:2", "$A:0 {sep}:0 $B:1 {sep}:1 {cls}:2")


def _t5(path: Path, settings: Settings) -> Backend:
    backend = _sentencepiece(spm.read(path))
    extra = [f"<extra_id_{number}>" for number in reversed(range(settings.get("extra_ids", 100)))]
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in extra])
    return _framed(backend, path, settings, "$A {sep}", "$A {sep} $B {sep}")


def _xlm_roberta(path: Path, settings: Settings) -> Backend:
    """fairseq put its own special tokens first and the mask last, which the file does not say."""
    cls, pad, sep, unk, mask = _named(settings, "cls", "pad", "sep", "unk", "mask")
    return _fairseq(path, settings, [(token, 0.0) for token in (cls, pad, sep, unk)], 3, mask)


def _camembert(path: Path, settings: Settings) -> Backend:
    pad, unk, mask = _named(settings, "pad", "unk", "mask")
    first = [("<s>NOTUSED", 0.0), (pad, 0.0), ("</s>NOTUSED", 0.0), (unk, 0.0), ("<unk>NOTUSED", -100.0)]
    backend = _fairseq(path, settings, first, 1, mask)
    backend.add_special_tokens([AddedToken(mask, lstrip=True, normalized=False)])
    return backend


def _fairseq(path: Path, settings: Settings, first: list[tuple[str, float]], skipped: int, mask: str) -> Backend:
    found = spm.read(path)
    vocabulary = [*first, *found.vocabulary[skipped:], (mask, 0.0)]
    (name,) = _named(settings, "unk")
    unk = next((at for at, (token, _) in enumerate(vocabulary) if token == name), 0)
    backend = _sentencepiece(found, Unigram(vocabulary, unk))
    return _framed(backend, path, settings, "{cls} $A {sep}", "{cls} $A {sep} {sep} $B {sep}")


def _sentencepiece(found: spm.SentencePieceFile, model: Any = None) -> Backend:
    """A backend with the file's model and normalisation, words marked by the space before them.

    As in transformers, a character that the vocabulary lacks is the unknown token, also where the file has pieces for bytes.
    """
    vocabulary = found.vocabulary
    if model is None and found.model == spm.BPE:
        ids = {text: at for at, (text, _) in enumerate(vocabulary)}
        model = BPE(ids, _merges(ids), unk_token=vocabulary[found.unk_id][0], fuse_unk=True)
    elif model is None:
        model = Unigram(vocabulary, found.unk_id)
    backend = Backend(model)
    if found.charsmap:
        backend.normalizer = normalizers.Precompiled(found.charsmap)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), _spaces()])
    backend.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    kinds = {spm.CONTROL: True, spm.USER_DEFINED: False}
    added = [(piece.text, kinds[piece.kind]) for piece in found.pieces if piece.kind in kinds]
    backend.add_tokens([AddedToken(text, normalized=False, special=special) for text, special in added])
    return backend


def _merges(ids: dict[str, int]) -> list[tuple[str, str]]:
    """The pairs that make a longer piece, those of the likelier piece first: a BPE file has its pieces in that order."""
    found = []
    for text, at in ids.items():
        parts = ((text[:cut], text[cut:]) for cut in range(1, len(text)))
        found += [(at, ids[left], ids[right], left, right) for left, right in parts if left in ids and right in ids]
    return [(left, right) for *_, left, right in sorted(found)]


def _spaces() -> pre_tokenizers.Metaspace:
    return pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")


def _quotes(found: spm.SentencePieceFile, *, lower: bool, accents: bool) -> normalizers.Normalizer:
    """ALBERT's and XLNet's clean-up."""
    steps: list[normalizers.Normalizer] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    steps += [] if accents else [normalizers.NFKD(), normalizers.StripAccents()]
    steps += [normalizers.Lowercase()] if lower else []
    steps += [normalizers.Precompiled(found.charsmap)] if found.charsmap else []
    return normalizers.Sequence(steps)


def _framed(backend: Backend, path: Path, settings: Settings, single: str, pair: str) -> Backend:
    """With special tokens around a text and around a pair; a number behind a colon is the segment."""
    roles = [role for role in ("cls", "sep") if f"{{{role}}}" in single]
    names = dict(zip(roles, _named(settings, *roles), strict=True))
    special = _ids(backend, path, list(names.values()))
    backend.post_processor = processors.TemplateProcessing(single.format(**names), pair.format(**names), special)
    return backend


def _ids(backend: Backend, path: Path, tokens: list[str]) -> list[tuple[str, int]]:
    """Tokens that stand around a text, with their ids."""
    ids = [(token, at) for token in tokens if (at := backend.token_to_id(token)) is not None]
    if lacking := set(tokens) - {token for token, _ in ids}:
        raise InputError(
            f"{path} lacks {', '.join(sorted(lacking))}, which should stand around a text; tokenizer_config.json may name "
            "another cls_token or sep_token, or another tokenizer_class."
        )
    return ids


def _named(settings: Settings, *roles: str) -> list[str]:
    return [name for role in roles if (name := token_name(settings[f"{role}_token"])) is not None]


def _text(path: Path, form: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text, {form}: {error}.") from None


def token_name(token: str | dict[str, Any] | None) -> str | None:
    """The name of a token as the settings files write it."""
    return token["content"] if isinstance(token, dict) else token


def role_token(role: str, settings: Settings, vocabulary: Container[str], edge: str | None = None) -> str | None:
    """The token in this role: the one that the settings name, that stands at the edge, or that has the usual name.

    None if the vocabulary lacks it. transformers would add it then, under an id for which the model has no embedding.
    """
    candidates = [token_name(settings.get(f"{role}_token")), edge, *ROLES[role].split()]
    return next((token for token in candidates if token is not None and token in vocabulary), None)


SENTENCEPIECE = ("spiece.model", "spm.model", "sentencepiece.bpe.model", "tokenizer.model")
CLASSES = {
    "BertTokenizer": TokenizerClass(("vocab.txt",), {}, wordpiece),
    "DistilBertTokenizer": TokenizerClass(("vocab.txt",), {}, wordpiece),
    "ElectraTokenizer": TokenizerClass(("vocab.txt",), {}, wordpiece),
    "MPNetTokenizer": TokenizerClass(("vocab.txt",), {**ROBERTA, "unk": "[UNK]"}, _mpnet),
    "RobertaTokenizer": TokenizerClass(("vocab.json",), ROBERTA, _roberta),
    "GPT2Tokenizer": TokenizerClass(("vocab.json",), {"unk": "<|endoftext|>"}, _bytes),
    "DebertaV2Tokenizer": TokenizerClass(SENTENCEPIECE, BERT, _deberta),
    "AlbertTokenizer": TokenizerClass(SENTENCEPIECE, {**BERT, "pad": "<pad>", "unk": "<unk>"}, _albert),
    "XLNetTokenizer": TokenizerClass(SENTENCEPIECE, {**ROBERTA, "cls": "<cls>", "sep": "<sep>"}, _xlnet),
    "T5Tokenizer": TokenizerClass(SENTENCEPIECE, {"sep": "</s>", "pad": "<pad>", "unk": "<unk>"}, _t5),
    "XLMRobertaTokenizer": TokenizerClass(SENTENCEPIECE, ROBERTA, _xlm_roberta),
    "CamembertTokenizer": TokenizerClass(SENTENCEPIECE, ROBERTA, _camembert),
}
# The classes of model types, for folders that name none.
MODEL_TYPES = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "electra": "ElectraTokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
    "albert": "AlbertTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "camembert": "CamembertTokenizer",
}
