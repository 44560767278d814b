"""What is trained at which rate: groups by layer, shared layers, and Adam without its bias correction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import conformance
from clozeline import bundle
from clozeline.data.readers import Example
from clozeline.errors import InputError
from clozeline.families import FAMILIES
from clozeline.model.heads import Network
from clozeline.model.layers import LayerNorm, Linear
from clozeline.tasks.text_classification import TextClassification
from clozeline.train import optim
from clozeline.train.loop import Training
from clozeline.train.plan import plan
from clozeline.train.settings import Settings
from helpers import reviews

FP32 = 2.0**-24  # half a unit in the last place
SETTINGS = Settings(batch_size=8, learning_rate=5e-3, weight_decay=0.1, precision="fp32", clip=0.0, epochs=4)


def classifier(variant: str) -> Network:
    """A tiny classifier of a family, with fresh weights."""
    family = FAMILIES[conformance.model_type(variant)]
    return family.build(family.read(conformance.sizes(variant)), "text_classification", conformance.CLASSES)


def groups_by_name(network: Network, settings: Settings) -> dict[str, tuple[float, float]]:
    """Learning rate's share and weight decay of each trained parameter."""
    names = {id(part): name for name, part in network.named_parameters()}
    found: dict[str, tuple[float, float]] = {}
    for group in optim.adamw(network, settings).param_groups:
        for part in group["params"]:
            assert names[id(part)] not in found
            found[names[id(part)]] = group["share"], group["weight_decay"]
    return found


def test_matrices_and_tables_decay_and_norms_and_biases_do_not(tiny: Path) -> None:
    network = bundle.load(tiny, TextClassification(["a", "b"])).network
    decayed, plain = optim.parameter_groups(network, Settings(weight_decay=0.01))
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.01, 0.0)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    sets = [{names[id(part)] for part in group["params"]} for group in (decayed, plain)]  # type: ignore[attr-defined]
    norms = {f"{name}.weight" for name, part in network.named_modules() if isinstance(part, LayerNorm)}
    assert len(norms) == 5
    assert sets[1] == norms | {name for name in names.values() if name.endswith("bias")}
    assert sets[0] == set(names.values()) - sets[1]


def shares(layers: int) -> dict[str, float]:
    """Of the learning rate at a decay of 0.5, by how a name begins; layers are counted from the lowest."""
    found = {f"encoder.layers.{number}": 0.5 ** (layers - number) for number in range(layers)}
    return found | {"encoder.embedding": 0.5 ** (layers + 1), "encoder.norm": 1.0, "head": 1.0}


# of ALBERT's three layers, all with the same weights, and of its five with the weights of two
SHARES = {"bert": shares(2), "albert": shares(1), "albert-groups": shares(2), "deberta-v2-convolution": shares(2)}
SHARES |= {"mpnet": shares(2), "modernbert": shares(5)}


@pytest.mark.parametrize("variant", SHARES)
def test_each_step_down_from_the_head_has_a_share_of_the_rate(variant: str) -> None:
    network = classifier(variant)
    found = groups_by_name(network, Settings(layer_decay=0.5, weight_decay=0.1))
    plain = groups_by_name(network, Settings(weight_decay=0.1))
    assert {share for share, _ in plain.values()} == {1.0}
    expected = {}
    for name, _ in network.named_parameters():
        (share,) = (share for start, share in SHARES[variant].items() if name.startswith(f"{start}."))
        expected[name] = share, plain[name][1]
    assert found == expected


@pytest.mark.parametrize("variant", conformance.VARIANTS)
def test_nothing_is_recorded_below_the_first_trained_layer_in_any_family(variant: str) -> None:
    network = classifier(variant)
    layers = network.config.layers
    ends = [at for at in range(1, layers + 1) if network.encoder.order[at - 1] not in network.encoder.order[at:]]
    batch = conformance.batch_of(variant)
    for lower in range(1, layers + 1):
        if lower not in ends:
            with pytest.raises(InputError, match=f"freeze is {lower}; layers of this model share their weights"):
                optim.frozen(network, lower)
            continue
        held = optim.frozen(network, lower)
        settings = Settings(freeze=lower, layer_decay=0.9)
        assert groups_by_name(network, settings).keys() == dict(network.named_parameters()).keys() - held
        top = {name for name in held if name.startswith("encoder.layers.")}
        assert {name.split(".")[2] for name in top} == {str(network.encoder.order[at]) for at in range(lower)}
        for name, part in network.named_parameters():
            part.requires_grad_(name not in held)
        states = list(network.encoder.states(batch))
        assert [state.requires_grad for state in states[: lower + 1]] == [False] * lower + [
            lower == layers and variant.startswith("modernbert")  # whose last state has gone through the final norm
        ]
        assert all(state.requires_grad for state in states[lower + 1 :])
        network.requires_grad_(True)  # for the next round


def test_rates_follow_the_schedule_times_the_share(tiny: Path) -> None:
    settings = SETTINGS.replace(layer_decay=0.5)
    network = bundle.load(tiny, TextClassification(["a", "b"])).network
    optimizer = optim.adamw(network, settings)
    optim.set_rates(optimizer, 0.25, 7, bias_correction=True)
    rates = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert rates == [(0.25 * 0.5**down, decay) for decay in (0.1, 0.0) for down in (3, 2, 1, 0)]


def trained_table(folder: Path, settings: Settings, *, compact: bool) -> tuple[np.ndarray, Tensor, Tensor]:
    """Token ids that the data uses, the token table before and after training."""
    loaded = bundle.load(folder, TextClassification(["negative", "positive"]))
    assert isinstance(loaded.task, TextClassification)
    table = loaded.network.encoder.embedding.tokens
    before = table.weight.detach().clone()
    rows = [Example(text, None, label, "") for text, label in reviews(31)]
    samples = loaded.task.samples(loaded.tokenizer, rows)
    run = Training(loaded.network, loaded.task, samples, settings, used=np.unique(samples.ids) if compact else None)
    list(run)
    run.finish()
    return np.unique(samples.ids), before, table.weight.detach()


@pytest.mark.parametrize("correct", [True, False])
@pytest.mark.parametrize("layer_decay", [1.0, 0.6])
def test_the_compact_table_is_the_whole_one_with_a_rate_of_its_own(
    tiny: Path, layer_decay: float, correct: bool
) -> None:
    settings = SETTINGS.replace(layer_decay=layer_decay, bias_correction=correct)
    used, before, table = trained_table(tiny, settings, compact=True)
    _, _, full = trained_table(tiny, settings, compact=False)
    assert bool(((full - before).abs().amax(1)[used] > 1e-4).all())
    # a gradient summed in another order is off by 1e-7 of itself, where nothing is left of it by more
    torch.testing.assert_close(table[used], full[used], rtol=0, atol=5e-6)
    unused = np.setdiff1d(np.arange(len(table)), used)
    torch.testing.assert_close(table[unused], full[unused], rtol=17 * FP32, atol=0)
    decay = 1.0
    for step in range(16):
        decay *= 1 - optim.rate(settings, step, 16) * layer_decay**3 * settings.weight_decay
    torch.testing.assert_close(table[unused], (before[unused].double() * decay).float(), rtol=2 * FP32, atol=0)


@pytest.mark.parametrize("correct", [True, False])
def test_twenty_steps_are_those_of_adam_written_by_hand(tiny: Path, correct: bool) -> None:
    """In fp64 by hand, gradients from 1e-9, where eps counts, to 1, with layer-wise rates and weight decay."""
    settings = SETTINGS.replace(layer_decay=0.8, bias_correction=correct)
    network = bundle.load(tiny, TextClassification(["a", "b"])).network
    optimizer = optim.adamw(network, settings)
    named = dict(network.named_parameters())
    begin = {name: part.detach().double() for name, part in named.items()}
    values = dict(begin)
    m = {name: torch.zeros_like(value) for name, value in values.items()}
    v = {name: torch.zeros_like(value) for name, value in values.items()}
    shares = groups_by_name(network, settings)
    random = torch.Generator().manual_seed(0)
    for step in range(1, 21):
        rate = optim.rate(settings, step - 1, 20)
        for part in named.values():
            size = 10 ** (-9 * torch.rand(part.shape, generator=random))
            part.grad = size * torch.randn(part.shape, generator=random)
        optim.set_rates(optimizer, rate, step, bias_correction=correct)
        optimizer.step()
        for name, part in named.items():
            assert part.grad is not None
            grad, (share, weight_decay) = part.grad.double(), shares[name]
            m[name] = 0.9 * m[name] + 0.1 * grad
            v[name] = 0.999 * v[name] + 0.001 * grad**2
            first, second = (1 - 0.9**step, 1 - 0.999**step) if correct else (1.0, 1.0)
            update = (m[name] / first) / ((v[name] / second).sqrt() + 1e-8) + weight_decay * values[name]
            values[name] = values[name] - rate * share * update
    for name, part in named.items():
        torch.testing.assert_close(part.detach().double(), values[name], rtol=0, atol=1e-6)
    assert max(float((values[name] - value).abs().max()) for name, value in begin.items()) > 1e-2


def test_without_the_correction_early_steps_are_up_to_six_and_a_half_times_as_long() -> None:
    longest = 0.0
    for step in range(1, 2000):
        optimizer = torch.optim.AdamW([{"params": [torch.zeros(1)], "share": 1.0, "decay": 0.1}], lr=1.0)
        optim.set_rates(optimizer, 1.0, step, bias_correction=False)
        (group,) = optimizer.param_groups
        assert group["lr"] * group["weight_decay"] == pytest.approx(0.1)
        longest = max(longest, group["lr"])
    assert longest == pytest.approx(6.57, abs=0.01)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("freeze", [0, 1, 2])
def test_a_plan_counts_what_is_trained(tiny: Path, freeze: int, precision: str) -> None:
    loaded = bundle.load(tiny, TextClassification(["negative", "positive"]))
    assert isinstance(loaded.task, TextClassification)
    samples = loaded.task.samples(loaded.tokenizer, [Example(text, None, label, "") for text, label in reviews(31)])
    settings = SETTINGS.replace(freeze=freeze, precision=precision)
    found = plan(loaded, samples, None, settings, torch.device("cpu"))
    named = dict(loaded.network.named_parameters())
    held = optim.frozen(loaded.network, freeze)
    trained = sum(part.numel() for name, part in named.items() if name not in held)
    if not freeze:
        table = loaded.network.encoder.embedding.tokens.weight
        trained -= (len(table) - len(np.unique(samples.ids))) * table.shape[1]
    assert (found.trained, found.gradients, found.optimizer) == (trained, 4 * trained, 8 * trained)
    maps = [part for part in loaded.network.modules() if isinstance(part, Linear)]
    copies = sum(part.numel() for each in maps for part in each.parameters()) if precision == "bf16" else 0
    assert found.weights == 4 * sum(part.numel() for part in named.values()) + 2 * copies
    assert found.activations > 0
