"""Put the 399 weights of the chapter on pathways into a kilobyte: python book/tools/kilobyte.py.

Of the five networks that are stored, it takes the one that did best on the validation images, rounds its
weights and biases to whole numbers from -127 to 127, and compresses them. The text goes into book/digits.py,
which reads digits with Python alone, and into the script of the page that has the network in its link.
"""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from pathlib import Path

import prunebook as pb
from pandas import read_csv
from prunebook.book.wires import Wires, wires
from prunebook.experiments.gumbel import wired
from torch import Tensor

from demonstration import whole

BOOK = Path(__file__).resolve().parents[1]
PROGRAM, SCRIPT = BOOK / "digits.py", BOOK / "_static" / "kilobyte-data.js"
EXAMPLES = 10


def chosen() -> int:
    """Return the seed of the network with the best accuracy on the validation images."""
    rows = read_csv(BOOK / "results" / "gumbel.csv").query(
        "method == 'gumbel, then exchange' and count == 399"
    )
    return int(rows.set_index("seed")["validation_accuracy"].idxmax())


def text_of(layers: list[Wires]) -> str:
    """Return a network as text; `digits.py` tells its form."""
    data = bytes([len(layers)])
    for layer in layers:
        units = len(layer.bias)
        values, scale = whole(layer.value, keep=True)
        biases, bias_scale = whole(layer.bias)
        data += struct.pack("<B2f", units, scale, bias_scale)
        data += bytes(layer.unit.bincount(minlength=units).tolist()) + biases.numpy().tobytes()
        data += b"".join(gap_bytes(layer.source[layer.unit == unit]) for unit in range(units))
        data += values.numpy().tobytes()
    return base64.urlsafe_b64encode(zlib.compress(data, 9)).decode()


def gap_bytes(sources: Tensor) -> bytes:
    """Return how many sources lie between one and the next, in bytes; after 255 the rest follows."""
    found, last = bytearray(), -1
    for source in sources.tolist():
        full, rest = divmod(source - last - 1, 255)
        found += bytes([255] * full + [rest])
        last = source
    return bytes(found)


def main() -> None:
    """Write the network into both files."""
    data = pb.load_data("mnist")
    net = wired(read_csv(BOOK / "results" / "wires.csv"), chosen())
    text = text_of(wires(net, data))
    lines = "\n".join(f'    "{text[i : i + 70]}"' for i in range(0, len(text), 70))
    PROGRAM.write_text(
        re.sub(r"NETWORK = \(\n.*?\n\)", f"NETWORK = (\n{lines}\n)", PROGRAM.read_text(), flags=re.DOTALL)
    )
    grey = (255 * (data.test.images * data.std + data.mean)).round().clamp(0, 255)
    first = [int((data.test.labels == digit).nonzero()[0]) for digit in range(EXAMPLES)]
    examples = [base64.b64encode(bytes(grey[i].flatten().int().tolist())).decode() for i in first]
    told = json.dumps({"network": text, "examples": examples}, separators=(",", ":"))
    SCRIPT.write_text(f"// Made by book/tools/kilobyte.py.\nconst kilobyte = {told};\n")
    print(f"{len(base64.urlsafe_b64decode(text))} bytes")


if __name__ == "__main__":
    main()
