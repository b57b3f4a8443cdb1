"""What `import prunebook` brings into a fresh process: torch, and little on top of it."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = (
    "IPython",
    "dask",
    "distributed",
    "ipywidgets",
    "matplotlib",
    "pandas",
    "scipy",
    "seaborn",
    "sklearn",
    "torch_pruning",
    "torchvision",
)
MOST = 45  # its own modules included
LOADED = """
import json, sys
import torch
before = set(sys.modules)
import prunebook
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_the_library_is_light():
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert not {name.split(".")[0] for name in loaded} & set(HEAVY)
    assert len(loaded) <= MOST, loaded
