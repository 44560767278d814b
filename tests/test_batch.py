"""The native batch: where sequences lie, what is read out of them, and how they fall into blocks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from clozeline.batch import Layout, Packed, mean_by_owner

UNEVEN = (
    (1,),
    (5, 1, 7, 1, 3),
    (64, 1, 63, 2, 64, 31),
    tuple(np.random.default_rng(0).integers(1, 129, 40).tolist()),
    tuple(np.random.default_rng(1).integers(100, 129, 40).tolist()),
)


def test_offsets_positions_and_owners_of_three_sequences() -> None:
    layout = Layout.of([2, 1, 3])
    assert layout.offsets.tolist() == [0, 2, 3, 6]
    assert layout.offsets.dtype == torch.int32
    assert layout.positions.tolist() == [0, 1, 0, 0, 1, 2]
    assert layout.owners.tolist() == [0, 0, 1, 2, 2, 2]
    assert (layout.tokens, layout.longest, layout.lengths) == (6, 3, (2, 1, 3))


@pytest.mark.parametrize("lengths", [(), (3, 0, 2)])
def test_a_batch_without_sequences_or_with_an_empty_one_is_a_bug(lengths: tuple[int, ...]) -> None:
    with pytest.raises(AssertionError):
        Layout.of(lengths)


@pytest.mark.parametrize("lengths", UNEVEN)
def test_first_mean_max_and_split_are_those_of_each_sequence_by_itself(lengths: tuple[int, ...]) -> None:
    layout = Layout.of(lengths)
    x_TD = torch.randn(layout.tokens, 3, generator=torch.Generator().manual_seed(0))
    starts = np.cumsum([0, *lengths[:-1]])
    alone = [x_TD[start : start + length] for start, length in zip(starts, lengths, strict=True)]
    assert torch.equal(layout.first(x_TD), torch.stack([rows[0] for rows in alone]))
    assert torch.equal(layout.max(x_TD), torch.stack([rows.max(0).values for rows in alone]))
    assert all(torch.equal(ours, rows) for ours, rows in zip(layout.split(x_TD), alone, strict=True))
    # two orders of summing up to 128 values below 5 differ by less than 128 roundings of 2 ** -24 each
    torch.testing.assert_close(layout.mean(x_TD), torch.stack([rows.mean(0) for rows in alone]), rtol=0, atol=5e-5)


def test_the_mean_of_half_precision_states_is_summed_in_fp32() -> None:
    ones = torch.ones(1000, 1, dtype=torch.bfloat16)  # summed in bfloat16 they stop at 256
    assert Layout.of([1000]).mean(ones).item() == 1


@pytest.mark.parametrize("lengths", UNEVEN)
def test_blocks_hold_every_token_once_and_restore_undoes_gather(lengths: tuple[int, ...]) -> None:
    layout = Layout.of(lengths)
    plan = layout.plan
    places = torch.arange(layout.tokens) if plan.gather is None else plan.gather
    assert len(places) == sum(block.count * block.longest for block in plan.blocks)
    kept = [
        torch.ones(block.count, block.longest).bool() if block.keep is None else block.keep for block in plan.blocks
    ]
    assert places[torch.cat([keep.flatten() for keep in kept])].sort().values.tolist() == list(range(layout.tokens))
    assert torch.equal(places if plan.restore is None else places[plan.restore], torch.arange(layout.tokens))


@pytest.mark.parametrize("lengths", UNEVEN)
def test_a_row_of_a_block_is_one_sequence_from_its_first_token(lengths: tuple[int, ...]) -> None:
    layout = Layout.of(lengths)
    places, at = layout.plan.gather, 0
    for block in layout.plan.blocks:
        for row in range(block.count):
            length = block.longest if block.keep is None else int(block.keep[row].sum())
            tokens = torch.arange(at, at + length) if places is None else places[at : at + length]
            assert block.keep is None or bool(block.keep[row, :length].all())
            assert layout.owners[tokens].unique().numel() == 1
            assert layout.positions[tokens].tolist() == list(range(length))
            at += block.longest


@pytest.mark.parametrize("lengths", UNEVEN)
def test_padding_in_a_block_stays_under_a_tenth(lengths: tuple[int, ...]) -> None:
    for block in Layout.of(lengths).plan.blocks:
        if block.keep is not None:
            assert 0.9 <= block.keep.float().mean().item() < 1


def test_equal_lengths_share_one_block_that_needs_no_gathering() -> None:
    plan = Layout.of([7] * 100).plan
    assert [(block.count, block.longest, block.keep) for block in plan.blocks] == [(100, 7, None)]
    assert plan.gather is None
    assert plan.restore is None


def test_a_few_sequences_of_nearly_one_length_share_a_block() -> None:
    (block,) = Layout.of([10, 9] * 5).plan.blocks
    assert block.keep is not None
    assert block.keep.sum(1).tolist() == [9] * 5 + [10] * 5


def test_a_few_more_blocks_spare_the_gathering() -> None:
    plan = Layout.of([10, 9, 10]).plan
    assert [(block.count, block.longest, block.keep) for block in plan.blocks] == [
        (1, 10, None),
        (1, 9, None),
        (1, 10, None),
    ]
    assert plan.gather is None


def test_runs_of_equal_lengths_in_order_need_no_gathering() -> None:
    plan = Layout.of([10] * 60 + [200] * 3).plan
    assert [(block.count, block.longest) for block in plan.blocks] == [(60, 10), (3, 200)]
    assert plan.gather is None


def test_packing_keeps_ids_and_leaves_out_segments_that_are_all_zero() -> None:
    ids = [np.array([5, 6], np.int32), np.array([7], np.int32)]
    batch = Packed.of(ids, [np.zeros(2, np.int8), np.zeros(1, np.int8)])
    assert batch.ids.tolist() == [5, 6, 7]
    assert batch.ids.dtype == torch.int64
    assert batch.segments is None
    paired = Packed.of(ids, [np.array([0, 1], np.int8), np.zeros(1, np.int8)])
    assert paired.segments is not None
    assert paired.segments.tolist() == [0, 1, 0]


def test_to_moves_every_tensor_and_keeps_the_lengths() -> None:
    batch = Packed.of([np.arange(3), np.arange(2)], [np.ones(3), np.zeros(2)])
    moved = batch.to("meta")
    tensors = [moved.ids, moved.segments, moved.layout.offsets, moved.layout.positions]
    assert [None if tensor is None else tensor.device.type for tensor in tensors] == ["meta"] * 4
    assert moved.layout.lengths == batch.layout.lengths
    assert batch.layout.to("cpu") is batch.layout


def test_a_layout_cannot_be_changed() -> None:
    layout = Layout.of([1, 2])
    with pytest.raises(dataclasses.FrozenInstanceError):
        layout.lengths = (2, 1)  # type: ignore[misc]


def test_rows_of_one_owner_become_their_mean() -> None:
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [10.0, 20.0]])
    assert mean_by_owner(rows, torch.tensor([0, 0, 1])).tolist() == [[2.0, 3.0], [10.0, 20.0]]
    layers = torch.arange(12.0).view(3, 2, 2)
    assert torch.equal(mean_by_owner(layers, torch.tensor([1, 0, 1]))[1], (layers[0] + layers[2]) / 2)


@pytest.mark.parametrize("lengths", UNEVEN)
def test_groups_hold_the_sequences_as_they_lie_and_pad_less_than_a_tenth(lengths: tuple[int, ...]) -> None:
    groups = Layout.of(lengths).groups
    assert [length for group in groups for count, length in group.runs for _ in range(count)] == list(lengths)
    for group in groups:
        each = torch.tensor([length for count, length in group.runs for _ in range(count)])
        assert (group.count, group.longest) == (len(each), int(each.max()))
        if group.keep is None:
            assert len(group.runs) == 1
        else:
            assert torch.equal(group.keep, torch.arange(group.longest) < each[:, None])
            assert group.keep.float().mean() >= 0.9
