"""Write what transformers gives for every family: `python tests/golden/make_families.py`, where it is installed."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from clozeline.families import FAMILIES  # noqa: E402
from conformance import VARIANTS, batch_of, mixed, model_type, reference, sketch, theirs, untied  # noqa: E402


def main() -> None:
    """One file a variant, a JSON text and arrays for each kind of head."""
    (HERE / "families").mkdir(exist_ok=True)
    for variant in VARIANTS:
        family = FAMILIES[model_type(variant)]
        arrays: dict[str, np.ndarray] = {}
        for kind, head in family.heads.items():
            model = reference(variant, kind)
            outputs = theirs(model, kind, batch_of(variant))
            mixed(outputs).backward()
            raw = {**model.config.to_diff_dict(), "architectures": [head.architecture]}
            raw.pop("transformers_version", None)
            parameters = dict(untied(model, head.tied))
            about = {"config": raw, "shapes": {name: list(value.shape) for name, value in parameters.items()}}
            arrays[f"{kind}/about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
            states = family.read(raw).layers + 1  # the same under every head
            kept = outputs if kind == "base" else outputs[states:]
            arrays |= {f"{kind}/{at}": sketch(out.detach()) for at, out in enumerate(kept)}
            grads = [torch.as_tensor(value.grad) for value in parameters.values()]
            rows = [[*sketch(grad.flatten()), float(grad.abs().max())] for grad in grads]
            arrays[f"{kind}/gradients"] = np.array(rows, np.float32)
        # written here and not by numpy, which would put today's date into the file
        with zipfile.ZipFile(HERE / "families" / f"{variant}.npz", "w", zipfile.ZIP_DEFLATED) as file:
            for name, array in arrays.items():
                held = io.BytesIO()
                np.save(held, array)
                file.writestr(zipfile.ZipInfo(f"{name}.npy"), held.getvalue(), zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    main()
