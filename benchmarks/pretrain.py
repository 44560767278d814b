"""Pre-training: tokens a second of masked-word training, beside transformers' Trainer with its own collator.

    python benchmarks/pretrain.py                        # BERT mini (4 layers of width 256), vocabulary 30,522
    python benchmarks/pretrain.py --shape bert-base-uncased --length 512 --device cuda

The same corpus (wikipedia articles), tokenizer, fresh weights in the same shape, dropout 0.1, 15 % masked, sequences of
`--length` tokens, the same tokens in a step. The peer gets its best form of data: articles joined and cut into full blocks,
as its run_mlm.py does, so that nothing is padded; here segments end with sentences and documents. Reading, masking and the
optimiser's step are in the time, tokenising is not. The share of the peak is of a large matrix product in the same format on
a CPU, of the published bf16 peak on a known GPU; for the peer it is reckoned with the same operations for a token.

    clozeline        as it comes: bf16 over fp32 weights where the machine has it
    clozeline-fp32   the same in fp32
    trainer          Trainer as it comes: fp32, SDPA
    trainer-bf16     Trainer with bf16=True
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import side_by_side

CONTENDERS = ("clozeline", "clozeline-fp32", "trainer", "trainer-bf16")
ARTICLES = 1500
WARM = 3
"""Steps before the clock starts: each shape's kernels are made once."""


def articles(count: int) -> list[str]:
    import pyarrow.parquet as pq

    return pq.read_table(side_by_side.DATA / "pretrain" / "wikipedia.parquet", columns=["text"])["text"].to_pylist()[
        :count
    ]


def work(args: argparse.Namespace) -> float:
    """Operations for a token in this shape, forward and backward."""
    from clozeline.families.shapes import shaped
    from clozeline.tasks.pretraining import MaskedAndPairs
    from clozeline.train import cost
    from clozeline.train.pretraining_settings import PretrainSettings

    family, config = shaped(args.shape)
    objectives = MaskedAndPairs(family.build(config, "masked_lm"), masked=True, pairs=None)
    return cost.flops(objectives, PretrainSettings()).of(args.length)


def clozeline(name: str, args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from clozeline import pretraining_recipe
    from clozeline.pretrainer import prepare
    from clozeline.train.distributed import ALONE
    from clozeline.train.pretrain import made, reading
    from clozeline.train.pretraining import Pretraining

    precision = "fp32" if name.endswith("fp32") else "auto"
    with tempfile.TemporaryDirectory() as held:
        corpus = Path(held) / "articles.jsonl"
        corpus.write_text(
            "".join(json.dumps({"text": text}) + "\n" for text in articles(args.articles)), encoding="utf-8"
        )
        values: dict[str, Any] = dict(corpus=(str(corpus),), out=held, tokenizer=str(args.model), shape=args.shape)
        values |= dict(
            held_out=0.0, length=args.length, batch_tokens=args.batch_tokens, precision=precision, passes=50.0
        )
        recipe = pretraining_recipe.PretrainRecipe.of(values)
        bundle, shards, _ = prepare(recipe, ALONE, quiet=True)
        stream, collate = reading(bundle, shards, recipe.settings)
        device = torch.device(args.device)
        training = Pretraining(made(bundle, recipe.settings), stream, collate, recipe.settings, device=device)
        tokens, began = 0, 0.0
        for step in training:
            if step.number == WARM:
                began = time.perf_counter()
            elif step.number > WARM:
                tokens += step.tokens
            if step.number == WARM + args.steps:
                break
        return {"tokens_per_second": tokens / (time.perf_counter() - began), "loss": step.loss}


def trainer(name: str, args: argparse.Namespace) -> dict[str, Any]:
    import transformers as peer

    from clozeline.families.shapes import shaped
    from clozeline.tokenizer import Tokenizer

    family, config = shaped(args.shape)
    with tempfile.TemporaryDirectory() as held:
        Tokenizer.load(args.model).save(held)  # which reads older folders too
        tokenizer = peer.AutoTokenizer.from_pretrained(held)
    ids = [token for text in articles(args.articles) for token in tokenizer(text, verbose=False)["input_ids"]]
    blocks = [{"input_ids": ids[at : at + args.length]} for at in range(0, len(ids) - args.length, args.length)]
    size, ends = args.batch_tokens // args.length, []

    class Clock(peer.TrainerCallback):  # type: ignore[misc]  # the peer has no types here
        def on_step_end(self, *_: object, **__: object) -> None:
            ends.append(time.perf_counter())

    peer.set_seed(0)
    model = peer.AutoModelForMaskedLM.from_config(peer.AutoConfig.for_model(**family.write(config)), dtype="float32")
    settings: dict[str, Any] = dict(save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True)
    settings |= dict(use_cpu=args.device == "cpu", dataloader_pin_memory=args.device != "cpu", learning_rate=1e-4)
    with tempfile.TemporaryDirectory() as out:
        settings |= dict(output_dir=out, max_steps=WARM + args.steps, per_device_train_batch_size=size)
        peer.Trainer(
            model=model,
            args=peer.TrainingArguments(bf16=name.endswith("bf16"), **settings),
            train_dataset=blocks,
            data_collator=peer.DataCollatorForLanguageModeling(tokenizer),
            callbacks=[Clock()],
        ).train()
    took = ends[-1] - ends[WARM - 1]
    return {"tokens_per_second": args.steps * size * args.length / took}


def measured(name: str, args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from clozeline.train import cost

    found = clozeline(name, args) if name.startswith("clozeline") else trainer(name, args)
    half = name in ("clozeline", "trainer-bf16")
    peak = cost.peak(torch.device(args.device), "bf16" if half else "fp32")
    return found | {"mfu": 100 * found["tokens_per_second"] * work(args) / peak}


def main() -> None:
    parser = side_by_side.options(argparse.ArgumentParser(description=__doc__), 3, CONTENDERS)
    parser.add_argument("--shape", default="bert-mini-uncased")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=20, help="timed in each round (default %(default)s)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--articles", type=int, default=ARTICLES)
    args = parser.parse_args()
    args.model = args.model or side_by_side.DATA / "tokenizers" / "bert-base-uncased"
    args.steps, args.articles = (2, 40) if args.tiny else (args.steps, args.articles)
    if args.worker:
        side_by_side.start_worker(args.threads)
        print(json.dumps(measured(args.worker, args)))
        return
    before = side_by_side.machine()
    given = ("model", "shape", "length", "batch_tokens", "steps", "device", "articles")
    more = [part for name in given for part in (f"--{name.replace('_', '-')}", str(getattr(args, name)))]
    names = side_by_side.installed(args.only or CONTENDERS, {"trainer": "accelerate"})
    results = side_by_side.run(__file__, names, args, more)
    heads = {"tokens_per_second": "tokens/s", "mfu": "% of peak"}
    body = side_by_side.table(results, heads, ("trainer", "trainer-bf16"))
    settings = (
        f"{args.shape}, vocabulary of {args.model.name}, {args.length} tokens a sequence, {args.batch_tokens} a step, "
    )
    settings += f"{args.steps} steps after {WARM}, {args.device}, {args.threads} threads, "
    settings += f"{1 if args.tiny else args.repeats} rounds; median (range); ratios are medians of the rounds' ratios."
    side_by_side.publish("Pre-training", "Masked words", settings, body, before, args.append)


if __name__ == "__main__":
    main()
