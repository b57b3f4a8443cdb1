"""Count the weights that matter: those on a path from an input to an output.

Chapter: book/units.ipynb
"""

import torch
from torch import nn

from prunebook.layers import maskable
from prunebook.shrinking.rules import analyse, matrix
from prunebook.shrinking.slicing import plain


def effective_weights(model: nn.Module) -> int:
    """Return how many weights lie on a path of nonzero weights from an input to an output.

    No path starts at a bias. In a layer that `shrink` would leave whole, every nonzero weight counts.

    Raises:
        ValueError: As `shrink`.

    Source: Vysogorets & Kempe, JMLR 2023, effective sparsity.
    """
    baked = plain(model)
    flow = analyse(baked, borders=False)
    live = {mix.name: (mix.out.live, mix.source.varies) for mix in flow.mixes}
    live |= {name: (out.live, torch.ones(1, dtype=torch.bool, device="cpu")) for name, out in flow.scales}
    layers = {layer.weight: (name, layer) for name, layer in maskable(baked).items()}  # each shared one once
    total = 0
    for name, layer in layers.values():
        rows, columns = live.get(name, (slice(None), slice(None)))
        total += int((matrix(layer)[rows][:, columns] != 0).sum())
    return total
