"""What the learned masks share, and what a fused function promises: the derivatives of plain operations."""

from itertools import chain, combinations

import pytest
import torch
from small import normal

from prunebook.methods.gates import _GatedWeight, gumbel_gate
from prunebook.methods.soft import _SoftWeight, soft_mask

NOISE = normal(4, 3, seed=2)


def gate(tau, hard):
    """A fused gate, and the same in plain operations."""
    return (
        lambda w, logit: _GatedWeight.apply(w, logit, NOISE, torch.tensor(tau, dtype=NOISE.dtype), hard),
        lambda w, logit: w * gumbel_gate(logit, NOISE, tau, hard),
    )


FUSED = {
    "soft mask": (_SoftWeight.apply, lambda w, t, tau: w * soft_mask(w, t, tau)),
    "cold soft gate": gate(0.3, hard=False),
    "soft gate": gate(1.0, hard=False),
    "warm soft gate": gate(3.0, hard=False),
    "hard gate": gate(0.7, hard=True),
}


def inputs_of(name):
    """For each choice of what is learned: weights that are not contiguous, and what their mask depends on."""
    others = [torch.tensor(0.7), torch.tensor(0.5)] if name == "soft mask" else [normal(4, 3, seed=1)]
    values = [normal(3, 4).t(), *(value.double() for value in others)]
    places = range(len(values))
    for learned in chain.from_iterable(combinations(places, n + 1) for n in places):
        yield [value.detach().requires_grad_(i in learned) for i, value in enumerate(values)]


@pytest.mark.parametrize("name", list(FUSED)[:-1])
def test_gradients_are_those_of_finite_differences(name):
    for inputs in inputs_of(name):
        assert torch.autograd.gradcheck(FUSED[name][0], inputs)
        assert torch.autograd.gradgradcheck(FUSED[name][0], inputs)


@pytest.mark.parametrize("name", FUSED)
def test_first_and_second_derivatives_are_those_of_plain_operations(name):
    for inputs in inputs_of(name):
        learned, found = [value for value in inputs if value.requires_grad], []
        for function in FUSED[name]:
            loss = function(*inputs).pow(3).sum()
            quick = torch.autograd.grad(loss, learned, retain_graph=True)
            firsts = torch.autograd.grad(loss, learned, create_graph=True)
            total = sum(first.square().sum() for first in firsts)
            found.append([*quick, *firsts, *torch.autograd.grad(total, learned)])
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs)
