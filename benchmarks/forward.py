"""Forward passes of every family beside transformers: a random model of 6 layers, 384 wide, tokens a second.

    python benchmarks/forward.py                              # every family, 32 sequences of 8 to 512 tokens
    python benchmarks/forward.py --families modernbert --length 4096 --count 4
    python benchmarks/forward.py --precision bf16

All read the same sequences with the same weights and must agree. transformers gets the faster of its own attention choices
(SDPA, eager), tried on all sequences before the timed passes: with batches of 32 as they come, and, as transformers-grouped,
with batches of like length, the faster of 32 sequences and about 2,048 tokens, as a careful user would write it.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import side_by_side

CONTENDERS = ("clozeline", "transformers", "transformers-grouped")
SIZES = {
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 514,
    "pad_token_id": 1,
}
DEBERTA = {
    "relative_attention": True,
    "position_biased_input": False,
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "max_position_embeddings": 512,
    "type_vocab_size": 0,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"type_vocab_size": 1},
    "distilbert": {"dim": 384, "n_layers": 6, "n_heads": 12, "hidden_dim": 1536},
    "albert": {"embedding_size": 128},
    "electra": {"embedding_size": 128},
    "deberta-v2": DEBERTA,
    "modernbert": {"intermediate_size": 1024, "max_position_embeddings": 8192},
    "mpnet": {},
}
Read = Callable[[], list[np.ndarray]]
Ways = dict[str, Read]
CLOSE = {"fp32": 1e-4, "bf16": 0.3}
PASSES = 3


def sequences(count: int, length: int) -> list[np.ndarray]:
    """Token ids of `count` sequences: all of `length` tokens, or of 8 to 512 where it is 0, short ones as common as long."""
    random = np.random.RandomState(0)
    mixed = np.exp(random.uniform(math.log(8), math.log(512), count)).astype(int)
    return [random.randint(2, 30000, length or size) for size in mixed]


def best(ways: Ways) -> tuple[str, float]:
    """The fastest way, and the seconds of its median pass. A way whose warm-up takes thrice another's pass is left out."""
    tried: dict[str, float] = {}
    for name, way in ways.items():
        if seconds(way) < 3 * min(tried.values(), default=math.inf):
            tried[name] = seconds(way)
    chosen = min(tried, key=lambda name: tried[name])
    return chosen, float(np.median([seconds(ways[chosen]) for _ in range(PASSES)]))


def seconds(way: Read) -> float:
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


def clozeline(folder: Path, ids: list[np.ndarray], precision: str, grouped: bool = True) -> tuple[Ways, Read]:
    import torch

    from clozeline import checkpoint
    from clozeline.batch import Packed
    from clozeline.data.packing import by_tokens

    device = torch.device("cpu")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    network = checkpoint.load(folder, None).network.twin(dtype, device)
    network.freeze()
    lengths = np.array([len(row) for row in ids])

    @torch.inference_mode()
    def read() -> list[np.ndarray]:
        means = [np.empty(0)] * len(ids)
        for chosen in by_tokens(lengths, 2048):
            batch = Packed.of([ids[at] for at in chosen])
            for at, row in zip(chosen, batch.layout.mean(network.encoder(batch)).float().numpy(), strict=True):
                means[at] = row
        return means

    return {"packed": read}, read


def batches_of(lengths: np.ndarray, batch: int | None, grouped: bool) -> Iterator[Sequence[int]]:
    """Places of the sequences of a padded batch: `batch` of them, or as many as have about 2,048 tokens."""
    order = np.argsort(lengths, kind="stable") if grouped else np.arange(len(lengths))
    held: list[int] = []
    for at in order.tolist():
        if held and (len(held) == batch or (batch is None and lengths[at] * (len(held) + 1) > 2048)):
            yield held
            held = []
        held.append(at)
    yield held


def transformers(folder: Path, ids: list[np.ndarray], precision: str, grouped: bool) -> tuple[Ways, Read]:
    import torch
    import transformers as peer

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    lengths = np.array([len(row) for row in ids])

    def way(attention: str, batch: int | None) -> Read:
        model = peer.AutoModel.from_pretrained(folder, attn_implementation=attention, dtype=dtype).eval()

        @torch.inference_mode()
        def read() -> list[np.ndarray]:
            means = [np.empty(0)] * len(ids)
            for chosen in batches_of(lengths, batch, grouped):
                rows = [torch.from_numpy(ids[at]) for at in chosen]
                padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)
                mask = torch.arange(padded.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
                states = model(input_ids=padded, attention_mask=mask.long()).last_hidden_state * mask[..., None]
                pooled = states.float().sum(1) / mask.sum(1, keepdim=True)
                for at, row in zip(chosen, pooled.numpy(), strict=True):
                    means[at] = row
            return means

        return read

    ways: Ways = {}
    for attention in ("sdpa", "eager"):
        for batch in (32, None) if grouped else (32,):
            try:
                ways[f"{attention}, {batch or '2,048 tokens'}"] = way(attention, batch)
            except ValueError:  # DeBERTa has no SDPA
                continue
    return ways, next(iter(ways.values()))


def work(name: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """What a worker prints; its vectors go to a file beside the model."""
    side_by_side.start_worker(args.threads)
    ids = sequences(args.count, args.length)
    make_ways = clozeline if name == "clozeline" else transformers
    ways, read = make_ways(folder, ids, args.precision, name.endswith("grouped"))
    np.save(folder / f"{name}.npy", np.stack(read()))
    setting, took = best(ways)
    return {"tokens_per_second": sum(map(len, ids)) / took, "setting": setting}


def make(family: str, folder: Path, length: int) -> None:
    """A random checkpoint of this family."""
    import torch
    import transformers as peer

    torch.manual_seed(0)
    sizes = {**SIZES, **FAMILIES[family]}
    longest = max(sizes["max_position_embeddings"], length + 2)
    config = peer.AutoConfig.for_model(family, **{**sizes, "max_position_embeddings": longest})
    peer.AutoModel.from_config(config).save_pretrained(folder)


def main() -> None:
    parser = side_by_side.options(argparse.ArgumentParser(description=__doc__), 3, CONTENDERS)
    parser.add_argument("--families", nargs="+", choices=tuple(FAMILIES), default=tuple(FAMILIES))
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--count", type=int, default=32, help="of sequences (default %(default)s)")
    parser.add_argument("--length", type=int, default=0, help="of every sequence (default: 8 to 512, mixed)")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.count = 4 if args.tiny else args.count
    if args.worker:
        print(json.dumps(work(args.worker, args.folder, args)))
        return
    before, rows = side_by_side.machine(), []
    for family in args.families:
        with tempfile.TemporaryDirectory() as held:
            make(family, Path(held), args.length)
            more = ["--folder", held, "--precision", args.precision, "--count", str(args.count)]
            names = args.only or CONTENDERS
            results = side_by_side.run(__file__, names, args, [*more, "--length", str(args.length)])
            found = {name: np.load(Path(held) / f"{name}.npy") for name in results}
        error = max(np.abs(one - other).max() for one in found.values() for other in found.values())
        if error > CLOSE[args.precision]:
            raise SystemExit(f"{family}: contenders do not agree, {error:.1e}, so their speeds cannot be compared.")
        speeds = [side_by_side.spread([each["tokens_per_second"] for each in rounds]) for rounds in results.values()]
        ratios = [side_by_side.ratio(results, names[0], name, "tokens_per_second") for name in names[1:]]
        best_of = " / ".join(sorted({each["setting"] for name in names[1:] for each in results[name]}))
        rows.append([family, *speeds, *ratios, best_of, f"{error:.1e}"])
    heading = ["family", *(f"{name}, tokens/s" for name in names), *(f"x {name}" for name in names[1:])]
    heading += ["transformers' fastest", "largest difference"]
    body = "\n".join("| " + " | ".join(row) + " |" for row in [heading, ["---"] * len(heading), *rows])
    lengths = f"{args.length} tokens each" if args.length else "8 to 512 tokens"
    settings = f"{args.count} sequences, {lengths}, {args.precision}, {args.threads} threads, "
    settings += f"{1 if args.tiny else args.repeats} rounds; median (range); the ratio is the median of the rounds'."
    side_by_side.publish("Forward passes by family", f"Forward, {lengths}", settings, body, before, args.append)


if __name__ == "__main__":
    main()
