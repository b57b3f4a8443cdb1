"""What the frame of a page is made of: formulas, addresses, sizes of pictures, and the files it loads."""

from __future__ import annotations

import pages
import pytest
from address import PLACEHOLDER
from docutils.utils.math import MathError
from mathml import mathml


def test_a_formula_becomes_mathml_on_one_line():
    assert mathml("x^2") == (
        '<math xmlns="http://www.w3.org/1998/Math/MathML"><msup><mi>x</mi><mn>2</mn></msup></math>'
    )
    assert 'display="block"' in mathml(r"\begin{aligned} a &= b \\ c &= d \end{aligned}", block=True)


@pytest.mark.parametrize(
    ("tex", "part"),
    [
        (r"a \iff b", "<mo>⟺</mo>"),
        (r"\big(x\big)", "minsize"),
        (r"\Bigl(\textstyle\sum_i x\Bigr)", 'displaystyle="false"'),
    ],
)
def test_what_docutils_does_not_know_is_said_otherwise(tex, part):
    assert part in mathml(tex)


def test_an_unknown_command_is_an_error():
    with pytest.raises(MathError, match="nosuch"):
        mathml(r"\nosuch{x}")


def test_the_address_of_the_pages_is_that_of_the_repository_or_unknown():
    assert pages.site("https://github.com/Some/name") == "https://some.github.io/name/"
    assert pages.site(PLACEHOLDER) == ""


def test_a_page_loads_what_its_classes_need_once_and_in_order():
    body = '<p>one-page</p><div id="a" class="b one-page"></div><div class="first-page"></div>'
    assert pages.loads(body) == ["pad.js", "onepage.js", "first-data.js", "first.js", "first.css"]
    assert pages.loads('<p class="one-pages">frame-slider</p>') == []


def test_each_file_that_a_page_may_load_stands_in_one_of_the_two_folders():
    for name in {*pages.EVERYWHERE, *(name for files in pages.LOADED.values() for name in files)}:
        assert sum((folder / name).is_file() for folder in (pages.STATIC, pages.PACKAGE)) == 1, name


def test_sizes_of_pictures(tmp_path):
    png, svg, other = (tmp_path / name for name in ("a.png", "b.svg", "c.webp"))
    png.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (640).to_bytes(4, "big") + (480).to_bytes(4, "big"))
    svg.write_text('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64.4 32"></svg>')
    other.write_bytes(b"RIFF")
    assert [pages.size(path) for path in (png, svg, other)] == [(640, 480), (64, 32), (0, 0)]


def test_a_body_loses_inline_scripts_and_keeps_data(tmp_path):
    kept = '<script type="application/json">[1]</script>'
    assert pages.polish(f"<script>\nalert(1)\n</script>{kept}", {}) == kept
    table = pages.polish("<table><tr><th></th><th>k</th></tr></table>\n", {})
    assert table == '<div class="wide"><table><tr><td></td><th>k</th></tr></table></div>\n'


def test_a_line_of_code_is_a_box_of_its_own():
    code = pages.polish('<pre><span></span>a\n  <span class="n">b</span>\n</pre>', {})
    assert (
        code
        == '<pre><span class="line">a\n</span><span class="line">  <span class="n">b</span>\n</span></pre>'
    )


def test_a_picture_has_its_size(tmp_path):
    (tmp_path / "b.svg").write_text('<svg viewBox="0 0 64 32"></svg>')
    image = pages.polish('<img alt="A &gt; b" src="../_images/b.svg" />', {"b.svg": tmp_path / "b.svg"})
    assert image == '<img alt="A &gt; b" src="../_images/b.svg" width="64" height="32" decoding="async">'
    sized = '<img alt="" src="../_images/b.svg" width="9">'
    assert pages.polish(sized, {"b.svg": tmp_path / "b.svg"}) == sized
