"""Forward passes on a GPU: tokens a second, and the share of the machine's own peak in bf16, beside transformers.

    python benchmarks/gpu_forward.py                       # BERT-base, ModernBERT-base, DeBERTa-v3-base
    python benchmarks/gpu_forward.py --tiny --device cpu   # does it run at all?

Before anything is timed, the bf16 states are compared with fp32 ones, and transformers' own bf16 states too: ours may be at
most twice as far off. The peak is what torch's largest matrix product reaches on this machine in this run. A forward pass
counts the products of the linear maps and of attention, windows taken into account, and no padding.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import side_by_side

MODELS = ("bert-base-uncased", "modernbert-base", "deberta-v3-base")
LENGTHS = (128, 512, 8192)
BUDGET = 65536  # tokens in a batch


def batch_lengths(length: int, budget: int, mixed: bool) -> list[int]:
    """Lengths that add up to about `budget`: all equal, or from an eighth of `length` on, short ones as common as long."""
    if not mixed:
        return [length] * max(1, budget // length)
    random, found = np.random.RandomState(0), [length]
    while sum(found) < budget:
        found.append(int(np.exp(random.uniform(math.log(length / 8), math.log(length)))))
    return found


def flops(config: Any, parameters: int, lengths: list[int]) -> float:
    """Of a forward pass: two for each weight of a linear map and token, and the two products of attention."""
    linear = 2.0 * parameters * sum(lengths)
    for window in config.windows or (None,) * config.layers:
        seen = [min(length, 2 * window + 1) if window is not None else length for length in lengths]
        linear += sum(4.0 * length * keys * config.width for length, keys in zip(lengths, seen, strict=True))
    return linear


def peak(device: Any, size: int) -> float:
    """Floating-point operations a second of a (size, size) product in bf16."""
    import torch

    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    return 2.0 * size**3 / seconds(lambda: a @ a, device)


def seconds(way: Callable[[], object], device: Any, passes: int = 5) -> float:
    """The median time of a call, after two that warm up."""
    import torch

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    took = []
    for number in range(passes + 2):
        wait()
        started = time.perf_counter()
        way()
        wait()
        took += [time.perf_counter() - started] * (number > 1)
    return float(np.median(took))


def peers(folder: Path, device: Any, ids: list[Any]) -> dict[str, Callable[[], Any]]:
    """transformers' forward passes over the same sequences, padded, by its attention choice; those that it has here."""
    import torch
    import transformers

    rows = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).to(device)
    mask = (torch.arange(rows.shape[1]) < torch.tensor([len(row) for row in ids])[:, None]).to(device)
    ways: dict[str, Callable[[], Any]] = {}
    for attention in ("flash_attention_2", "sdpa", "eager"):
        try:
            kind = transformers.AutoModel
            model = kind.from_pretrained(folder, attn_implementation=attention, dtype=torch.bfloat16).to(device).eval()
        except (ValueError, ImportError):
            continue

        def read(model: Any = model) -> Any:
            with torch.inference_mode():
                return model(input_ids=rows, attention_mask=mask.long()).last_hidden_state[mask]

        ways[attention] = read
    return ways


def measure(name: str, lengths: list[int], device: Any, top: float, tiny: bool) -> list[list[str]]:
    """A row for ours and for each of transformers' choices."""
    import torch

    from clozeline import checkpoint
    from clozeline.batch import Packed
    from clozeline.families import FAMILIES

    family = next(family for family in FAMILIES.values() if name in family.presets)
    config = family.presets[name].replace(max_length=max(lengths))
    if tiny:
        config = config.replace(
            width=32, heads=4, ffn_width=48, layers=2, vocab_size=200, pad_id=0, windows=config.windows[:2]
        )
    random = np.random.RandomState(1)
    ids = [random.randint(2, config.vocab_size, length) for length in lengths]
    with tempfile.TemporaryDirectory() as held:
        network = family.build(config, None)
        checkpoint.save(Path(held), family, network, None, {})
        batch = Packed.of(ids).to(device)
        half, exact = network.twin(torch.bfloat16, device), network.to(device).eval()
        with torch.inference_mode():
            truth = exact.encoder(batch)
            off = float((half.encoder(batch).float() - truth).square().mean().sqrt())
        rows, problems = [], ""
        weights = sum(value.numel() for key, value in network.encoder.layers.named_parameters() if "weight" in key)
        work = flops(config, weights, lengths)

        def ours() -> Any:
            with torch.inference_mode():
                return half.encoder(batch)

        ways: dict[str, Callable[[], Any]] = {"clozeline": ours}
        if side_by_side.installed(["transformers"], {"transformers": "transformers"}):
            ways |= peers(Path(held), device, [torch.from_numpy(row) for row in ids])
        del exact
        for way, read in ways.items():
            try:
                if way != "clozeline":
                    theirs = float((read().float() - truth).square().mean().sqrt())
                    problems = problems or ("" if off <= 2 * theirs else f"{off:.1e} against {theirs:.1e}")
                took = seconds(read, device)
            except torch.OutOfMemoryError:
                rows.append([name, way, "out of memory", "-"])
                continue
            share = work / took / top
            rows.append([name, way, f"{sum(lengths) / took:,.0f}", f"{share:.1%}"])
    if problems:
        raise SystemExit(f"{name}: bf16 states are too far from fp32, {problems} of transformers.")
    return rows


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS)
    parser.add_argument("--append", type=Path, metavar="FILE", help="add the table to this Markdown file")
    parser.add_argument("--tiny", action="store_true", help="tiny models, short sequences: does it run at all?")
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("There is no CUDA device here; --tiny --device cpu shows that the script runs.")
    lengths, budget = ((16, 40), 100) if args.tiny else (args.lengths, BUDGET)
    top = peak(device, 256 if args.tiny else 8192)
    rows = [["model", "lengths", "by", "tokens/s", "share of the bf16 peak"], ["---"] * 5]
    for name in args.models:
        for length in lengths:
            if length > 512 and "modernbert" not in name:
                continue  # trained to 512 tokens
            for mixed in (False, True):
                kind = f"{length // 8} to {length}" if mixed else str(length)
                for model, *rest in measure(name, batch_lengths(length, budget, mixed), device, top, args.tiny):
                    rows.append([model, kind, *rest])
                    print(" | ".join(rows[-1]), flush=True)
    body = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else side_by_side.machine()
    settings = f"bf16, batches of about {budget:,} tokens, peak {top / 1e12:.1f} TFLOP/s measured; medians of 5 passes."
    side_by_side.publish("Forward passes on a GPU", "GPU forward", settings, body, where, args.append)


if __name__ == "__main__":
    main()
