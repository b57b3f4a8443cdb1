"""Train and store the networks of the first page: python book/tools/demonstration.py, up to an hour.

The page shows one dense LeNet-300-100 and what is left of it when weights go, in three ways:

- the largest weights stay, and nothing is trained again (the page does this by itself, for any count);
- at each count of `LEVELS` the largest stay and are trained on, and where few are left some are exchanged;
- at each of these counts as many are drawn by lot, and trained on for as many epochs.

All read grey values from 0 to 1, so a black pixel is 0 and costs no multiplication. Weights are stored as
whole numbers from -127 to 127, with one scale for each layer and network.
"""

from __future__ import annotations

import base64
import copy
import json
import math
import zlib
from dataclasses import replace
from pathlib import Path

import prunebook as pb
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scribbles import scribbles

FILE = Path(__file__).resolve().parents[1] / "_static" / "first-data.js"
LEVELS = (13310, 9000, 6000, 4000, 2662, 1800, 1331, 900, 666, 500, 399, 320, 250, 200, 150, 100)
SIZES = (784, 300, 100, 10)
TOTAL = 266_200
EXCHANGED_BELOW = 1331  # with more weights, an exchange gains nothing
EPOCHS, EPOCHS_EACH = 30, 20  # of the dense network, and at each level
EXCHANGED = 0.24  # share of the weights that the first exchange of a level swaps; it falls to 0
SEEN = 20_000  # training images on which an exchange measures what a weight is worth
EXAMPLES = 60  # test images to step through
CERTAIN = 0.985  # share of the validation images of which the dense network must be sure


def load() -> pb.Data:
    """Return MNIST with grey values from 0 to 1."""
    data = pb.load_data("mnist", seed=0)
    splits = {name: getattr(data, name) for name in ("train", "valid", "test")}
    grey = {
        name: replace(split, images=split.images * data.std + data.mean) for name, split in splits.items()
    }
    return replace(data, **grey)


def vary(images: Tensor, draw: torch.Generator) -> Tensor:
    """Return the images slightly turned, sheared, scaled, moved, and with thicker or thinner strokes."""
    n = len(images)
    noise = 2 * torch.rand(n, 6, generator=draw) - 1
    angle, shear = 0.25 * noise[:, 0], 0.2 * noise[:, 1]
    wide, high = 1 + 0.15 * noise[:, 2], 1 + 0.15 * noise[:, 3]
    cos, sin = angle.cos(), angle.sin()
    rows = [
        torch.stack([wide * cos, shear - sin, noise[:, 4] / 14], 1),
        torch.stack([sin, high * cos, noise[:, 5] / 14], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, align_corners=False).clamp(0, 1)
    power = torch.exp(0.7 * (2 * torch.rand(n, 1, 1, 1, generator=draw) - 1))
    return moved**power


def train_dense(data: pb.Data, nothing: Tensor) -> nn.Module:
    """Return a dense network that knows digits, and is undecided about drawings that are none."""
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(0)
    net = pb.lenet_300_100()
    steps = EPOCHS * math.ceil(len(data.train) / 128)
    adam = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.2, fused=True)
    falling = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, steps)
    for _ in range(EPOCHS):
        for some in torch.randperm(len(data.train), generator=draw).split(128):
            others = nothing[torch.randint(len(nothing), (48,), generator=draw)]
            digits = net(vary(data.train.images[some], draw))
            blank = net(vary(others, draw)).log_softmax(1).mean()
            loss = F.cross_entropy(digits, data.train.labels[some]) - 0.5 * blank
            adam.zero_grad()
            loss.backward()
            adam.step()
            falling.step()
    return net.eval()


def descend(net: nn.Module, data: pb.Data, chance: bool) -> list[nn.Module]:
    """Return a network for each level, each trained on from the one before, with fewer weights.

    The smallest weights go or, with `chance`, some drawn by lot. Without chance and from `EXCHANGED_BELOW`
    weights on, some are also exchanged after each epoch, fewer and fewer.
    """
    torch.manual_seed(1)
    net, found = copy.deepcopy(net), []
    pb.prune_weights(net, 0)
    shown = torch.randperm(len(data.train))[:SEEN]
    images, labels = data.train.images[shown], data.train.labels[shown]
    for level, count in enumerate(LEVELS):
        if chance:
            pb.set_masks(net, by_lot(pb.masks(net), count))
        else:
            pb.prune_weights(net, 100 * (1 - count / TOTAL), scope="global")
        adam = torch.optim.Adam(net.parameters(), lr=2e-3, fused=True)

        def swap(row: dict[str, float], count: int = count) -> None:
            left = 1 - row["epoch"] / (0.7 * EPOCHS_EACH)
            if left > 0 and not chance and count <= EXCHANGED_BELOW:
                pb.exchange(net, images, labels, round(EXCHANGED * left * count), per_row=1)

        schedule = pb.linear_decay(adam)
        pb.fit(
            net,
            data,
            epochs=EPOCHS_EACH,
            batch_size=256,
            optimizer=adam,
            seed=level,
            schedule=schedule,
            on_epoch=swap,
            progress=False,
        )
        kept, right = round((1 - pb.sparsity(net)) * TOTAL), pb.evaluate(net, data.valid).accuracy
        print(
            f"{'by lot' if chance else 'exchange'} {kept:6,}: {right:.2%} of the validation images",
            flush=True,
        )
        found.append(pb.bake(copy.deepcopy(net)))
    return found


def by_lot(masks: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return masks inside the given ones that keep `count` weights, drawn by lot.

    Layers share the count in proportion to inputs plus outputs (Erdos-Renyi), so that paths remain.
    """
    ends = [sum(mask.shape) for mask in masks.values()]
    shares = [
        min(count * end / sum(ends), mask.sum().item())
        for end, mask in zip(ends, masks.values(), strict=True)
    ]
    counts = [round(share) for share in shares]
    counts[0] += count - sum(counts)
    after = {}
    for (name, mask), number in zip(masks.items(), counts, strict=True):
        places = mask.flatten().nonzero().squeeze(1)
        kept = places[torch.randperm(len(places))[:number]]
        after[name] = torch.zeros(mask.numel(), dtype=torch.bool).index_fill(0, kept, True).view_as(mask)
    return after


def whole(values: Tensor, keep: bool = False) -> tuple[Tensor, float]:
    """Return values as whole numbers from -127 to 127, and their scale; if `keep`, none but 0 becomes 0."""
    scale = float(f"{float(values.abs().max()) / 127 or 1.0:.6g}")
    rounded = (values / scale).round()
    if keep:
        rounded = torch.where((rounded == 0) & (values != 0), values.sign(), rounded)
    return rounded.clamp(-127, 127).to(torch.int8), scale


def layers_of(net: nn.Module) -> list[nn.Linear]:
    """Return the linear layers of a network."""
    return [layer for layer in net.modules() if isinstance(layer, nn.Linear)]


def gap_bytes(gaps: Tensor) -> bytes:
    """Return numbers in bytes of seven bits, the lowest first; the eighth bit says that more follow."""
    found = bytearray()
    for gap in gaps.tolist():
        while gap > 127:
            found.append(gap & 127 | 128)
            gap >>= 7
        found.append(gap)
    return bytes(found)


def pack(dense: nn.Module, trained: dict[str, list[nn.Module]], data: pb.Data, sure: float) -> str:
    """Return the script that holds all networks of the first page, and the test images to step through."""
    layers = [whole(layer.weight.detach().flatten()) for layer in layers_of(dense)]
    parts = [weight.numpy().tobytes() for weight, _ in layers]
    dense_bias = [[float(f"{value:.5g}") for value in layer.bias.tolist()] for layer in layers_of(dense)]
    told: dict[str, object] = {
        "sizes": SIZES,
        "levels": LEVELS,
        "sure": sure,
        "dense": {"scales": [scale for _, scale in layers], "bias": dense_bias},
        "trained": {way: [] for way in trained},
        "labels": data.test.labels[:EXAMPLES].tolist(),
    }
    for way, nets in trained.items():
        for net in nets:
            weights = [whole(layer.weight.detach().flatten(), keep=True) for layer in layers_of(net)]
            biases = [whole(layer.bias.detach()) for layer in layers_of(net)]
            flat = torch.cat([values for values, _ in weights])
            places = flat.nonzero().squeeze(1)
            gaps = places.diff(prepend=torch.tensor([-1])) - 1
            parts += [
                gap_bytes(gaps),
                flat[places].numpy().tobytes(),
                torch.cat([values for values, _ in biases]).numpy().tobytes(),
            ]
            scales = {"weight": [scale for _, scale in weights], "bias": [scale for _, scale in biases]}
            told["trained"][way].append(scales)
    parts.append((255 * data.test.images[:EXAMPLES]).round().to(torch.uint8).numpy().tobytes())
    told["packed"] = base64.b64encode(zlib.compress(b"".join(parts), 9)).decode()
    script = json.dumps(told, separators=(",", ":"))
    return f"// Made by book/tools/demonstration.py.\nconst firstData = {script};\n"


def certain(dense: nn.Module, data: pb.Data) -> float:
    """Return the probability that the answer reaches on a share `CERTAIN` of the validation images."""
    with torch.no_grad():
        top = dense(data.valid.images).softmax(1).amax(1)
    return round(float(top.quantile(1 - CERTAIN)), 3)


def main() -> None:
    """Train all networks, and write the file."""
    data = load()
    dense = train_dense(data, scribbles(20_000, seed=0))
    print(f"dense: {pb.evaluate(dense, data.valid).accuracy:.2%} of the validation images", flush=True)
    trained = {"exchange": descend(dense, data, chance=False), "lot": descend(dense, data, chance=True)}
    FILE.write_text(pack(dense, trained, data, certain(dense, data)))


if __name__ == "__main__":
    main()
