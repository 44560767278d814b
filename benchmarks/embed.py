"""Mean-pooled vectors of real texts: texts a second, tokenisation included.

    python benchmarks/embed.py --data sst2        # 2,000 phrases of SST-2, about 13 tokens each
    python benchmarks/embed.py --data imdb        # 128 film reviews cut at 512 tokens, about 270 each

Every contender gets the same list of strings and gives one (n, 384) array. It loads, tunes and goes once over all texts
before the timed pass. `-tuned` contenders and OpenVINO try their settings on a quarter of the texts first and take the
fastest. OpenVINO runs transformers' BertModel with the pooling in its graph, over batches sorted by length as ours are.
sentence-transformers' Normalize module is left out, so that all give the same vectors; that they do is checked on all texts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import side_by_side

Embed = Callable[[list[str]], np.ndarray]

CONTENDERS = (
    "clozeline-fp32",
    "clozeline-bf16",
    "sentence-transformers-fp32",
    "sentence-transformers-fp32-tuned",
    "sentence-transformers-bf16",
    "sentence-transformers-bf16-tuned",
    "transformers-fp32",
    "openvino-fp32",
    "openvino-bf16",
)
NEEDS = {"sentence-transformers": "sentence_transformers", "transformers": "transformers", "openvino": "openvino"}
COUNTS = {"sst2": 2000, "imdb": 128}
LONGEST = 512
BUDGET = 2048
"""Tokens in a batch of ours on a CPU."""
LEAST_COSINE = {"fp32": 0.99999, "bf16": 0.999}


@dataclass(frozen=True)
class Contender:
    """Ways to embed by the setting's name, the fastest of which is timed; and tokenisation alone."""

    ways: dict[str, Embed]
    tokenise: Callable[[list[str]], object]


def clozeline(folder: Path, precision: str, threads: int, cache: Path) -> Contender:
    import clozeline as cl
    from clozeline.data.packing import Samples

    model = cl.load(folder, precision=precision, device="cpu")  # type: ignore[arg-type]
    embed = lambda texts: np.asarray(model.embed(texts, pool="mean"))  # noqa: E731
    return Contender({"as it comes": embed}, lambda texts: Samples.tokenise(model.tokenizer, texts))


def sentence_transformers(folder: Path, precision: str, threads: int, cache: Path, *, tuned: bool) -> Contender:
    import torch
    from sentence_transformers import SentenceTransformer

    dtype = {"dtype": torch.bfloat16} if precision == "bf16" else {}
    loaded = SentenceTransformer(str(folder), device="cpu", model_kwargs=dtype)
    model = SentenceTransformer(modules=list(loaded)[:2], device="cpu")  # without Normalize
    model.max_seq_length = LONGEST

    def way(size: int) -> Embed:
        return lambda texts: model.encode(texts, batch_size=size, show_progress_bar=False).astype(np.float32)

    sizes = (8, 16, 32, 64, 128) if tuned else (32,)
    tokenise = lambda texts: model.tokenizer(texts, truncation=True, max_length=LONGEST)  # noqa: E731
    return Contender({f"batch {size}": way(size) for size in sizes}, tokenise)


def padded_batches(tokenizer: Any, texts: list[str], budget: int) -> Iterator[tuple[np.ndarray, Any]]:
    """The texts' places and their padded ids and mask, sorted by length, `budget` tokens in a batch."""
    from clozeline.data.packing import by_tokens

    ids = tokenizer(texts, truncation=True, max_length=LONGEST, return_attention_mask=False)["input_ids"]
    for chosen in by_tokens(np.asarray([len(row) for row in ids]), budget):
        batch = tokenizer.pad({"input_ids": [ids[at] for at in chosen]}, return_tensors="np")
        yield chosen, (batch["input_ids"], batch["attention_mask"])


def pooled_model(folder: Path) -> Any:
    """transformers' BertModel in fp32 with mean pooling: (ids, mask) -> (n, D)."""
    import torch
    from transformers import AutoModel

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = AutoModel.from_pretrained(folder, dtype=torch.float32)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            keep = attention_mask.unsqueeze(-1).to(states.dtype)
            pooled: torch.Tensor = (states * keep).sum(1) / keep.sum(1)
            return pooled

    return Pooled().eval()


def transformers(folder: Path, precision: str, threads: int, cache: Path) -> Contender:
    import torch
    from transformers import AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), pooled_model(folder)

    @torch.inference_mode()
    def embed(texts: list[str]) -> np.ndarray:
        vectors = np.empty((len(texts), model.bert.config.hidden_size), np.float32)
        for chosen, (ids, mask) in padded_batches(tokenizer, texts, BUDGET):
            vectors[chosen] = model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
        return vectors

    tokenise = lambda texts: tokenizer(texts, truncation=True, max_length=LONGEST)  # noqa: E731
    return Contender({f"sorted, {BUDGET:,} tokens": embed}, tokenise)


def openvino(folder: Path, precision: str, threads: int, cache: Path) -> Contender:
    import openvino as ov
    import torch
    from transformers import AutoTokenizer

    tokenizer, file = AutoTokenizer.from_pretrained(folder), cache / "pooled.xml"
    if not file.exists():
        mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])  # some padding, so that the trace keeps the mask
        graph = ov.convert_model(pooled_model(folder), example_input={"input_ids": mask + 999, "attention_mask": mask})
        ov.save_model(graph, file, compress_to_fp16=False)

    def way(hint: str, budget: int) -> Embed:
        wanted = {"INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16"}
        wanted |= {"INFERENCE_NUM_THREADS": str(threads), "PERFORMANCE_HINT": hint}
        compiled = ov.Core().compile_model(file, "CPU", wanted)
        queue = ov.AsyncInferQueue(compiled)  # as many requests as the hint makes streams

        def embed(texts: list[str]) -> np.ndarray:
            vectors = np.empty((len(texts), compiled.output(0).partial_shape[1].get_length()), np.float32)

            def keep(request: Any, chosen: np.ndarray) -> None:
                vectors[chosen] = request.get_output_tensor(0).data

            queue.set_callback(keep)
            for chosen, (ids, mask) in padded_batches(tokenizer, texts, budget):
                queue.start_async({"input_ids": ids, "attention_mask": mask}, userdata=chosen)
            queue.wait_all()
            return vectors

        return embed

    ways = [(hint, budget) for hint in ("LATENCY", "THROUGHPUT") for budget in (BUDGET // 4, BUDGET)]
    tokenise = lambda texts: tokenizer(texts, truncation=True, max_length=LONGEST)  # noqa: E731
    return Contender({f"{hint}, {budget:,} tokens": way(hint, budget) for hint, budget in ways}, tokenise)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def work(name: str, folder: Path, texts: list[str], threads: int, cache: Path) -> dict[str, Any]:
    """Time one contender; its vectors go to `cache/NAME.npy`."""
    side_by_side.start_worker(threads)
    precision = "bf16" if "bf16" in name else "fp32"
    if name.startswith("sentence"):
        contender = sentence_transformers(folder, precision, threads, cache, tuned=name.endswith("tuned"))
    else:
        build = {"clozeline": clozeline, "transformers": transformers, "openvino": openvino}[name.split("-")[0]]
        contender = build(folder, precision, threads, cache)
    quarter, (setting, *others) = texts[::4], contender.ways
    if others:
        tried = {way: [seconds(lambda: embed(quarter)) for _ in range(3)] for way, embed in contender.ways.items()}  # noqa: B023
        setting = min(tried, key=lambda way: min(tried[way][1:]))
    embed = contender.ways[setting]
    embed(texts)
    began = time.perf_counter()
    vectors = embed(texts)
    took = time.perf_counter() - began
    np.save(cache / f"{name}.npy", vectors)
    tokenising = seconds(lambda: contender.tokenise(texts))
    return {"texts_per_second": len(texts) / took, "tokenise_seconds": tokenising, "setting": setting}


def agreement(results: side_by_side.Results, cache: Path) -> bool:
    """Add to each contender's results how far its vectors are from the reference's; False where that is too far."""
    reference = "transformers-fp32" if "transformers-fp32" in results else next(iter(results), "")
    agree = True
    for name, rounds in results.items():
        ours, theirs = np.load(cache / f"{name}.npy"), np.load(cache / f"{reference}.npy")
        cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
        least, error = float(cosine.min()), float(np.abs(ours - theirs).max())
        rounds[-1] |= {"least_cosine": least, "max_abs_error": error}
        if least < LEAST_COSINE["bf16" if "bf16" in name + reference else "fp32"]:
            print(f"DISAGREES: {name} with {reference}, cosine {least:.6f}")
            agree = False
    return agree


def main() -> None:
    parser = side_by_side.options(argparse.ArgumentParser(description=__doc__), 5, CONTENDERS)
    parser.add_argument("--data", choices=tuple(COUNTS), default="sst2")
    parser.add_argument("--count", type=int, help=f"of texts (default {COUNTS})")
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    count, folder = args.count or (8 if args.tiny else COUNTS[args.data]), args.model or side_by_side.minilm()
    if args.worker:
        texts = list(side_by_side.reviews(args.data, count)[0])
        print(json.dumps(work(args.worker, folder, texts, args.threads, args.cache)))
        return
    before = side_by_side.machine()
    with tempfile.TemporaryDirectory() as held:
        common = ["--data", args.data, "--count", str(count), "--model", str(folder), "--cache", held]
        names = side_by_side.installed(args.only or CONTENDERS, NEEDS)
        results = side_by_side.run(__file__, names, args, common)
        agree = agreement(results, Path(held))
    body = side_by_side.table(
        results,
        {"texts_per_second": "texts/s", "tokenise_seconds": "tokenising alone, s"},
        ("sentence-transformers-fp32", "sentence-transformers-bf16"),
        {
            "least cosine": lambda rounds: f"{rounds[-1]['least_cosine']:.6f}",
            "largest error": lambda rounds: f"{rounds[-1]['max_abs_error']:.1e}",
            "settings": lambda rounds: " / ".join(sorted({each["setting"] for each in rounds})),
        },
    )
    settings = f"{count:,} texts of {args.data}, {args.threads} threads, {folder.parent.name}/{folder.name}, "
    settings += f"{1 if args.tiny else args.repeats} rounds; median (range); ratios are medians of the rounds' ratios."
    side_by_side.publish("Embedding", f"Embed {args.data}", settings, body, before, args.append)
    if not agree:
        raise SystemExit("Contenders do not agree, so their speeds cannot be compared.")


if __name__ == "__main__":
    main()
