"""Training on whole sequences, with the loss at the pivot alone, is training on pivots: losses, and weights at the end.

All tokens' hidden states come from hooks of this file's own, on a real, if tiny, backbone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from airtune.methods.pae_mobillm.device.differences import prediction_differences
from airtune.methods.pae_mobillm.device.pivots import blocks_of, read_pivots
from airtune.methods.pae_mobillm.side import SideNetwork
from airtune.models import BaseModel, Items, load_base
from tiny_models import save_tiny_model

EPOCHS, BATCH = 5, 8


def drawn_items(count: int) -> Items:
    rng = np.random.default_rng(0)
    ids = tuple(np.array([2, *rng.integers(4, 22, rng.integers(1, 8)), 3]) for _ in range(count))
    return Items(ids, rng.integers(0, 3, count), 0)


def hidden_states(base: BaseModel, items: Items, rows: np.ndarray) -> torch.Tensor:
    """Of every token, padding too, what leaves every block: ``(n, tokens, K, d)``."""
    seen: list[torch.Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _, __, out: seen.append(out if isinstance(out, torch.Tensor) else out[0]))
        for block in blocks_of(base)
    ]
    batch = items.batch(rows)
    with torch.no_grad():
        base.model.eval()(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    for hook in hooks:
        hook.remove()
    return torch.stack(seen, dim=2)


def trained(
    batches: list[tuple[torch.Tensor, torch.Tensor]],
    loss_of: Callable[[SideNetwork, torch.Tensor, torch.Tensor], torch.Tensor],
    kind: torch.dtype,
) -> tuple[list[float], SideNetwork]:
    """Losses of every step, and the network after them; batches of hidden states and differences, in this order."""
    draw = torch.Generator().manual_seed(1)
    side = SideNetwork(2, batches[0][0].shape[-1], 4, 3, generator=draw).to(kind)
    optimiser = torch.optim.AdamW(side.parameters(), lr=0.01)
    losses = []
    for _ in range(EPOCHS):
        for states, differences in batches:
            loss = loss_of(side, states.to(kind), differences.to(kind))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    return losses, side


@pytest.mark.parametrize(("family", "last"), [("bert", False), ("llama", True)])
@pytest.mark.parametrize(
    ("kind", "weights_within"),
    [(torch.float64, 1e-9), (torch.float32, 1e-4)],  # Adam divides by roots of small gradients: what was rounded, grows
)
def test_pivots_alone_and_whole_sequences_give_the_same_losses(tmp_path, family, last, kind, weights_within):
    base = load_base(str(save_tiny_model(tmp_path, family, kind="classify")), "classify", labels=3)
    items = drawn_items(24)
    whole, pivots = [], []
    for rows in items.in_order(BATCH):
        read, states = read_pivots(base, items, rows, (1, 2)), hidden_states(base, items, rows)
        differences = torch.from_numpy(prediction_differences(read.logits, read.targets, space="logit", scale=4.0))
        places = torch.tensor([len(items.ids[row]) - 1 if last else 0 for row in rows])
        mask = torch.nn.functional.one_hot(places, states.shape[1])[..., None]
        np.testing.assert_array_equal(states[torch.arange(len(rows)), places], read.activations)
        assert states.shape[1] > 3
        # differences of the other tokens are any numbers at all: the mask takes them out
        every = torch.where(mask.bool(), differences[:, None], torch.full((1,), 7.0))
        whole.append((states, torch.cat([every, mask], dim=2)))
        pivots.append((torch.from_numpy(read.activations), differences))

    def masked(side: SideNetwork, states: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        answers = side(states.flatten(0, 1)).unflatten(0, states.shape[:2])
        return (given[..., 3:] * (answers - given[..., :3]) ** 2).sum() / (3 * len(states))

    def at_pivots(side: SideNetwork, states: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.mse_loss(side(states), given)

    (of_whole, one), (of_pivots, other) = trained(whole, masked, kind), trained(pivots, at_pivots, kind)
    np.testing.assert_allclose(of_whole, of_pivots, rtol=0, atol=1e-6)
    assert of_pivots[-1] < 0.9 * of_pivots[0]
    for name, weight in one.state_dict().items():
        np.testing.assert_allclose(weight, other.state_dict()[name], rtol=0, atol=weights_within, err_msg=name)
