"""Drawings that are no digits, for the dense network of the first page to be undecided about.

A drawing is a list of strokes, each of them points (n, 2) in any unit. `normalise` turns it into an image
as the drawing pad of the page does: scaled into a box of 20 x 20 pixels, its centre of mass in the middle.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SIDE, BOX, CORE, EDGE = 28, 20, 0.5, 1.8  # as in pad.js
LETTERS = {  # strokes of letters and signs on a square from 0 to 1, y downwards
    "A": [[(0, 1), (0.5, 0), (1, 1)], [(0.2, 0.6), (0.8, 0.6)]],
    "E": [[(1, 0), (0, 0), (0, 1), (1, 1)], [(0, 0.5), (0.8, 0.5)]],
    "H": [[(0, 0), (0, 1)], [(1, 0), (1, 1)], [(0, 0.5), (1, 0.5)]],
    "K": [[(0, 0), (0, 1)], [(1, 0), (0, 0.5), (1, 1)]],
    "M": [[(0, 1), (0.1, 0), (0.5, 0.6), (0.9, 0), (1, 1)]],
    "N": [[(0, 1), (0, 0), (1, 1), (1, 0)]],
    "R": [[(0, 1), (0, 0), (0.8, 0.1), (0.9, 0.4), (0, 0.5), (1, 1)]],
    "T": [[(0, 0), (1, 0)], [(0.5, 0), (0.5, 1)]],
    "W": [[(0, 0), (0.25, 1), (0.5, 0.4), (0.75, 1), (1, 0)]],
    "X": [[(0, 0), (1, 1)], [(1, 0), (0, 1)]],
    "Y": [[(0, 0), (0.5, 0.5), (1, 0)], [(0.5, 0.5), (0.5, 1)]],
    "+": [[(0, 0.5), (1, 0.5)], [(0.5, 0), (0.5, 1)]],
    "#": [[(0.3, 0), (0.3, 1)], [(0.7, 0), (0.7, 1)], [(0, 0.3), (1, 0.3)], [(0, 0.7), (1, 0.7)]],
    "*": [[(0.5, 0), (0.5, 1)], [(0, 0.2), (1, 0.8)], [(1, 0.2), (0, 0.8)]],
    "=": [[(0, 0.2), (1, 0.2)], [(0, 0.6), (1, 0.6)]],
    "arrow": [[(0, 0.5), (1, 0.5)], [(0.6, 0.1), (1, 0.5), (0.6, 0.9)]],
    "house": [[(0, 1), (0, 0.4), (0.5, 0), (1, 0.4), (1, 1), (0, 1)]],
    "triangle": [[(0, 1), (0.5, 0), (1, 1), (0, 1)]],
    "star": [[(0.2, 1), (0.5, 0), (0.8, 1), (0, 0.35), (1, 0.35), (0.2, 1)]],
    "heart": [[(0.5, 1), (0, 0.4), (0.1, 0.1), (0.35, 0.05), (0.5, 0.3), (0.65, 0.05), (0.9, 0.1), (1, 0.4),
               (0.5, 1)]],
    "square": [[(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]],
    "face": [[(0.3, 0.3), (0.3, 0.35)], [(0.7, 0.3), (0.7, 0.35)], [(0.2, 0.6), (0.5, 0.8), (0.8, 0.6)],
             [(0.5, 0), (0.15, 0.15), (0, 0.5), (0.15, 0.85), (0.5, 1), (0.85, 0.85), (1, 0.5), (0.85, 0.15),
              (0.5, 0)]],
}  # fmt: skip


def paint(strokes: list[Tensor]) -> Tensor:
    """Return strokes, in pixels, as an image (28, 28): each pixel by its distance to the nearest stroke."""
    starts = torch.cat([stroke[:-1] if len(stroke) > 1 else stroke for stroke in strokes])
    along = torch.cat([stroke.diff(dim=0) if len(stroke) > 1 else 0 * stroke for stroke in strokes])
    middle = torch.arange(SIDE) + 0.5
    pixels = torch.cartesian_prod(middle, middle).flip(1)[:, None]  # (784, 1, 2), x before y
    away = pixels - starts
    share = ((away * along).sum(2) / along.square().sum(1).clamp(min=1e-12)).clamp(0, 1)
    distance = (away - share[..., None] * along).square().sum(2).sqrt().amin(1)
    return ((EDGE - distance) / (EDGE - CORE)).clamp(0, 1).view(SIDE, SIDE)


def normalise(strokes: list[Tensor]) -> Tensor:
    """Return strokes as an image as MNIST has them: in a box of 20 x 20, the centre of mass in the middle."""
    points = torch.cat(strokes)
    low, high = points.amin(0), points.amax(0)
    size = float((high - low).max())
    scale = min(4.0, (BOX - CORE - EDGE) / size) if size else 1.0
    strokes = [(stroke - (low + high) / 2) * scale + SIDE / 2 for stroke in strokes]
    grey = paint(strokes)
    place = torch.arange(SIDE).float()
    centre = torch.stack([(grey.sum(axis) * place).sum() for axis in (0, 1)]) / grey.sum()
    return paint([stroke + 14 - centre for stroke in strokes])


def scribbles(count: int, seed: int) -> Tensor:
    """Return images (count, 1, 28, 28) of curves, zigzags, loose strokes, spirals, hatchings and letters."""
    draw = torch.Generator().manual_seed(seed)
    kinds = (_curve, _zigzag, _loose, _spiral, _hatching, _letter, _letter)
    chosen = torch.randint(len(kinds), (count,), generator=draw).tolist()
    return torch.stack([normalise(_turned(kinds[kind](draw), draw)) for kind in chosen])[:, None]


def _rand(draw: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=draw)


def _turned(strokes: list[Tensor], draw: torch.Generator) -> list[Tensor]:
    angle, (wide, high) = 0.35 * (2 * float(_rand(draw, 1)) - 1), (0.6 + 0.8 * _rand(draw, 2)).tolist()
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return [28 * stroke * torch.tensor([wide, high]) @ turn for stroke in strokes]


def _curve(draw: torch.Generator) -> list[Tensor]:
    """Draw a smooth curve that crosses itself several times."""
    t, waves = torch.linspace(0, 1, 60), 3 + int(5 * _rand(draw, 1))
    orders = torch.arange(1, waves + 1)
    size, phase = _rand(draw, 2, waves) / orders.sqrt(), 2 * math.pi * _rand(draw, 2, waves)
    angles = 2 * math.pi * t[:, None, None] * orders + phase
    return [(size * angles.sin()).sum(2)]


def _zigzag(draw: torch.Generator) -> list[Tensor]:
    return [_rand(draw, 6 + int(12 * _rand(draw, 1)), 2)]


def _loose(draw: torch.Generator) -> list[Tensor]:
    """Draw some short lines or dots that do not meet."""
    count, length = 3 + int(7 * _rand(draw, 1)), 0.5 * float(_rand(draw, 1))
    starts = _rand(draw, count, 2)
    ends = starts + length * (2 * _rand(draw, count, 2) - 1)
    return list(torch.stack([starts, ends], 1))


def _spiral(draw: torch.Generator) -> list[Tensor]:
    turns, t = 2 + 2 * float(_rand(draw, 1)), torch.linspace(0.05, 1, 80)[:, None]
    angle = 2 * math.pi * turns * t * (1 if float(_rand(draw, 1)) < 0.5 else -1)
    return [t * torch.cat([angle.cos(), angle.sin()], 1)]


def _hatching(draw: torch.Generator) -> list[Tensor]:
    """Draw lines back and forth, as one fills an area."""
    lines = 4 + int(6 * _rand(draw, 1))
    y = torch.arange(lines) / lines
    ends = torch.stack([0.2 * _rand(draw, lines), 1 - 0.2 * _rand(draw, lines)], 1)
    return [torch.stack([ends, y[:, None].expand(lines, 2)], 2).flatten(0, 1)]


def _letter(draw: torch.Generator) -> list[Tensor]:
    strokes = list(LETTERS.values())[int(len(LETTERS) * _rand(draw, 1))]
    return [torch.tensor(stroke) + 0.08 * (2 * _rand(draw, len(stroke), 2) - 1) for stroke in strokes]
