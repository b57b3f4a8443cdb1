"""The settings that did best in the search, by method and density: those of all runs of the comparison.

Each did best on the validation split among six, from a seed that is in no other table. `python -m prunebook
search` fills the table that they are read from.

Chapter: book/comparison.ipynb
"""

from collections.abc import Mapping

CHOSEN: dict[str, dict[float, Mapping[str, float]]] = {
    "dense": {
        1: {"lr": 0.004},
    },
    "linear classifier": {
        0.0015: {"end": 0.5, "lr": 0.0125},
        0.005: {"end": 0.5, "lr": 0.0125},
        0.05: {"end": 0.5, "lr": 0.002},
    },
    "small dense": {
        0.0015: {"side": 6, "lr": 0.01},
        0.005: {"side": 9, "lr": 0.01},
        0.05: {"side": 9, "lr": 0.025},
    },
    "random": {
        0.0015: {"lr": 0.002},
        0.005: {"lr": 0.002},
        0.05: {"lr": 0.016},
    },
    "SNIP": {
        0.0015: {"lr": 0.008},
        0.005: {"lr": 0.032},
        0.05: {"lr": 0.016},
    },
    "RigL": {
        0.0015: {"drop": 0.5, "lr": 0.005},
        0.005: {"drop": 0.5, "lr": 0.0125},
        0.05: {"drop": 0.5, "lr": 0.0125},
    },
    "magnitude, layer, one-shot": {
        0.0015: {"before": 0.4, "lr": 0.001},
        0.005: {"before": 0.6, "lr": 0.001},
        0.05: {"before": 0.4, "lr": 0.003},
    },
    "magnitude, global, one-shot": {
        0.0015: {"before": 0.2, "lr": 0.001},
        0.005: {"before": 0.2, "lr": 0.001},
        0.05: {"before": 0.4, "lr": 0.003},
    },
    "magnitude, global, gradual": {
        0.0015: {"end": 0.5, "lr": 0.0025},
        0.005: {"end": 0.5, "lr": 0.0025},
        0.05: {"end": 0.5, "lr": 0.0025},
    },
    "iterative, rewinding": {
        0.0015: {"rounds": 7, "lr": 0.015},
        0.005: {"rounds": 7, "lr": 0.006},
        0.05: {"rounds": 2, "lr": 0.006},
    },
    "soft mask": {
        0.0015: {"tau": 0.5, "lr": 0.006},
        0.005: {"tau": 0.5, "lr": 0.0025},
        0.05: {"tau": 0.1, "lr": 0.006},
    },
    "adaptive": {
        0.0015: {"lr_r": 0.03, "lr": 0.001},
        0.005: {"lr_r": 0.01, "lr": 0.001},
        0.05: {"lr_r": 0.01, "lr": 0.003},
    },
    "gumbel": {
        0.0015: {"lr_gates": 0.03, "lr": 0.006},
        0.005: {"lr_gates": 0.03, "lr": 0.012},
        0.05: {"lr_gates": 0.06, "lr": 0.006},
    },
    "gumbel, then exchange": {
        0.0015: {"lr_gates": 0.03, "lr": 0.006, "swap": 0.12},
        0.005: {"lr_gates": 0.03, "lr": 0.006, "swap": 0.12},
        0.05: {"lr_gates": 0.06, "lr": 0.006, "swap": 0.12},
    },
    "gradual, then exchange": {
        0.0015: {"swap": 0.12, "lr": 0.005},
        0.005: {"swap": 0.12, "lr": 0.005},
        0.05: {"swap": 0.03, "lr": 0.002},
    },
    "soft, then exchange": {
        0.0015: {"tau": 0.5, "lr": 0.005, "swap": 0.12},
        0.005: {"tau": 0.5, "lr": 0.005, "swap": 0.12},
        0.05: {"tau": 0.1, "lr": 0.005, "swap": 0.12},
    },
    "random, then exchange": {
        0.0015: {"swap": 0.12, "lr": 0.0125},
        0.005: {"swap": 0.4, "lr": 0.005},
        0.05: {"swap": 0.03, "lr": 0.005},
    },
    "unit norm": {
        0.05: {"before": 0.4, "lr": 0.0025},
    },
    "gumbel units": {
        0.05: {"lr_gates": 0.06, "lr": 0.0025},
    },
}
