"""A page of photos for a person to look through: one self-contained HTML file, which saves what was decided as CSV."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jinja2 import Environment
from PIL import Image


@dataclass(frozen=True)
class Shown:
    """One photo on the sheet: its id, the class it is taken for, how probable that is, and the picture as data URI."""

    id: str
    class_name: str
    probability: float
    picture: str


def thumbnail(image: np.ndarray, long_side: int) -> str:
    """uint8 [H, W, 3] as a small WebP data URI, never enlarged."""
    small = Image.fromarray(image)
    small.thumbnail((long_side, long_side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    small.save(buffer, format="WEBP", quality=75, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def contact_sheet(title: str, photos: Sequence[Shown], n_candidates: int, class_names: Sequence[str]) -> str:
    """The page: photos in the given order, those with a probability of at least 0.5 kept until a person drops them.

    Parameters
    ----------
    n_candidates
        Number of all candidates, of which `photos` are the first.
    """
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(PAGE)
    return page.render(title=title, photos=photos, n_candidates=n_candidates, class_names=class_names)


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title }}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 90rem; padding: 1rem 1.25rem 4rem; }
  h1 { font-size: 1.2rem; margin: 0 0 .25rem; }
  p { margin: .25rem 0; max-width: 75ch; }
  .tools { align-items: center; background: Canvas; border-bottom: 1px solid #8886; display: flex; flex-wrap: wrap;
           gap: .5rem 1.25rem; padding: .6rem 0; position: sticky; top: 0; }
  .tools input { width: 5rem; }
  ol { display: grid; gap: .9rem; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); list-style: none;
       padding: 0; }
  li label { cursor: pointer; display: block; }
  img { border-radius: 4px; display: block; height: 9rem; object-fit: contain; object-position: left; width: 100%; }
  .id { color: GrayText; display: block; font-size: .8rem; overflow-wrap: anywhere; }
  li:not(:has(:checked)) img { filter: grayscale(1); opacity: .35; }
  li:not(:has(:checked)) .class { text-decoration: line-through; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p>Photos that the classifier takes for one of its classes, the surest first. <strong>Drop every photo that does show
one of them</strong> by a click on it, and keep those that only look like it.</p>
<p>Classes: {{ class_names | join(", ") }}.</p>
{% if photos | length < n_candidates %}
<p>These are the first {{ photos | length }} of {{ n_candidates }} candidates; the others count as dropped.</p>
{% endif %}
<div class="tools">
  <span><label for="least">Keep from p =</label>
  <input id="least" type="number" min="0" max="1" step="0.05" value="0.5">
  <button id="apply" type="button">Apply to all</button></span>
  <output id="count"></output>
  <button id="save" type="button">Save reviewed CSV</button>
</div>
<ol>
{% for photo in photos %}
  <li><label><img src="{{ photo.picture }}" alt="{{ photo.id }}" loading="lazy">
    <input type="checkbox" data-id="{{ photo.id }}" data-class="{{ photo.class_name }}"
     data-p="{{ '%.6f' % photo.probability }}"{{ " checked" if photo.probability >= 0.5 }}>
    <span class="class">{{ photo.class_name }} {{ '%.3f' % photo.probability }}</span>
    <span class="id">{{ photo.id }}</span></label></li>
{% endfor %}
</ol>
<script>
  const boxes = [...document.querySelectorAll("input[data-id]")];
  const quoted = text => '"' + text.replaceAll('"', '""') + '"';
  const count = () => {
    document.getElementById("count").value = boxes.filter(box => box.checked).length + " of " + boxes.length + " kept";
  };
  document.addEventListener("change", count);
  document.getElementById("apply").addEventListener("click", () => {
    const least = Number(document.getElementById("least").value);
    for (const box of boxes) box.checked = Number(box.dataset.p) >= least;
    count();
  });
  document.getElementById("save").addEventListener("click", () => {
    const rows = boxes.map(box =>
      [box.checked ? "1" : "0", quoted(box.dataset.id), quoted(box.dataset.class), box.dataset.p].join(","));
    const text = ["keep,id,class,probability", ...rows, ""].join("\\n");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], {type: "text/csv"}));
    link.download = "reviewed.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  });
  count();
</script>
</body>
</html>
"""
