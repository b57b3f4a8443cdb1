"""Read a handwritten digit with 399 weights: python digits.py IMAGE.

IMAGE is a PGM file or 784 bytes: 28 x 28 pixels, white ink on black,
the digit scaled and centred as in MNIST. Nothing but Python is needed.
The Pruning Book tells how these weights were found.

NETWORK is compressed. Unpacked, each layer has the number of its units,
the scales of weights and biases, for each unit the number of its weights,
then its bias; for each weight the gap to the source before, then its
value. A gap of 255 or more goes on in the next byte.
"""

import base64
import struct
import sys
import zlib

NETWORK = (
    "eNoNkl9MHFUUxu-9M_fOzO7MzuzsMrM7O7usCzSW5V-X7i4QIJgKjYI0ra1FY0OsNu2Dpk"
    "2M9sUEURKNfbAvijSijTE2xJpGiLYUbflnlrJYBFybgmBYVkFAFghY4st1cl5Oft93zsOX"
    "jylY1j6v2W98V23nGc7G8YQQluUFYmMQSziew5gQzgJ2LPAQN4U-qmt848mGliGD7j9dqZ"
    "WC-ZKWpy_Eq3InV5xlLQWnXmoibbS1kdX9AGugGfUKAV3LHTxBG85TO71a_5wG4PFT1HWu"
    "uAMhCHI-O38wHo-Ot78KAYTNiF72-2HET_HFUu8LB95qrBWLvPQALX1GpYJuHt1BjcCEyK"
    "QNt2CejnI9cZqMYv3Z6HSg3AM1qIcq6JnLs90XKAzFo7TrWK0kyFO08qBulDOno75Yrn6p"
    "gxYXB3yxWCctgU2xYxTXnQumaFOkAkVeG_gipDAGtQXeR0fitVdQeexjZCAAW5zdPiaim1"
    "C9eLbK44lxORAc_YFejcatPx2VEJpHDsfpIcMwvDp8nZ694jNjUJ6Q-8YmH2Uzfjk76Lnj"
    "TgtysLw1Iy4kEgP-gu2AkN359G66S3dMLG5m09L6zfS9MdE59-NPqX0Bx-6fN5ScwBOJ3n"
    "BhfY05OK97RE7Z-2978JsZvLW7JS1qX36lJjYSDo3js-nl6fVRWXDcqbgtTaiGKdpHF397"
    "uCM5U9_6RuZ-_j3hzthWbNJapmv2niCuXNtayirar2tKfkDbU_KW_tF8OXk7O0516b1hXR"
    "r5-t_bq3_bpVu93nFVSa_b3YbiXB2Zm_hE4VeGxhN_OAbarz_YzNNL15fWhn-5lpT1no30"
    "rOhXlYqaM8UfViOAIGYZzBCAGMAgxCLCMtZAiFj8Yrdj77oE2ntahZMnXu5fCDVt913SX4"
    "GHhoM863eLeQAJQHJa54AQLAPAEJkgDmHAqogDTqxyBmOyHgZiL4CKhTAkHmC3QwZjVQYy"
    "waxkagJieQweW_Pk67khWeTLXIIkBK0U5WKXpAdsj1ya4XCbuy4iO9aC4j7DtupWDaIL3q"
    "TLI7ldRcHHJZ4LF2XtunnY7RvXw20pUxJtRf0fVF_tfLua8LzIccRGhN1hqf7mjcXOthAC"
    "AGEHtFmFAQADBvAYApa1KESMJTIAEcRCBIkFWNbKBmPEAoYBkLfqD1gL2yyztVsymAyPRQ"
    "rav888tdATPflm2czdkpJwZkqYKpzbGI30F865UxuFyfyqiZmSB2Wpv56_X_vOw76q5qH1"
    "4-FlPbz3bs396WR5jWNe9q44k5Obdf8DOEcq9w=="
)


def layers(text=NETWORK):
    """Yield the biases of each layer, and its (source, unit, weight)s."""
    data = iter(zlib.decompress(base64.urlsafe_b64decode(text)))

    def take(count):
        return bytes(next(data) for _ in range(count))

    for _ in range(next(data)):
        count = next(data)
        scale, bias_scale = struct.unpack("<2f", take(8))
        numbers = take(count)
        biases = [
            bias_scale * value
            for value in struct.unpack(f"{count}b", take(count))
        ]
        wires = []
        for unit, number in enumerate(numbers):
            source = -1
            for _ in range(number):
                gap = next(data)
                source += gap + 1
                while gap == 255:
                    gap = next(data)
                    source += gap
                wires.append((source, unit))
        values = struct.unpack(f"{len(wires)}b", take(len(wires)))
        pairs = zip(wires, values, strict=True)
        yield biases, [(*wire, scale * value) for wire, value in pairs]


def scores(pixels):
    """Return ten scores, the largest for the digit, of 784 greys 0..255."""
    values = [pixel / 255 for pixel in pixels]
    for biases, wires in layers():
        sums = list(biases)
        for source, unit, weight in wires:
            sums[unit] += weight * values[source]
        values = [max(0, value) for value in sums]
    return sums


def read(pixels):
    """Return the digit on an image of 784 greys 0..255."""
    if len(pixels) != 784:
        raise ValueError(
            f"an image has 28 x 28 = 784 pixels, this one {len(pixels)}"
        )
    found = scores(pixels)
    return found.index(max(found))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1], "rb") as file:
        print(read(file.read()[-784:]))
