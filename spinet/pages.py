"""Interactive figures of pages without a kernel, in plain HTML with a short script."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from IPython.display import HTML
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from PIL import Image, ImageSequence

from spinet.figures.style import to_png


def flipbook(
    books: Mapping[str, Sequence[tuple[str, Figure | Image.Image]]],
    *,
    description: str,
    first: Mapping[str, int] | None = None,
) -> HTML:
    """Series of figures with a slider in plain HTML, without a kernel, for pages and JupyterLab.

    Args:
        books: named series of figures or images, each with its title. The reader chooses a series if there are several.
        description: text alternative of the images.
        first: index of the first figure to show of each series; by default 0.
    """
    pictures: dict[str, int] = {}  # a setting that changes nothing repeats a picture, which the page holds once
    series = {
        name: {
            "first": (first or {}).get(name, 0),
            "frames": [
                {"title": title, "picture": pictures.setdefault(_encoded(_image(frame)), len(pictures))}
                for title, frame in frames
            ],
        }
        for name, frames in books.items()
    }
    options = "".join(f"<option>{html.escape(name)}</option>" for name in series)
    return HTML(
        FLIPBOOK.replace("OPTIONS", options)
        .replace("MANY", "" if len(series) > 1 else "hidden")
        .replace("DESCRIPTION", html.escape(description, quote=True))
        .replace("WIDTH", str(round(max(_width(frame) for frames in books.values() for _, frame in frames))))
        .replace("SERIES", json.dumps(list(series.values())).replace("</", "<\\/"))
        .replace("PICTURES", json.dumps(list(pictures)))
    )


def film(path: str | Path, *, description: str) -> HTML:
    """The frames of an animated image with a slider."""
    with Image.open(path) as movie:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(movie)]
    titled = [(f"{number} of {len(frames)}", frame) for number, frame in enumerate(frames, start=1)]
    return flipbook({"film": titled}, description=description)


FLIPBOOK = """
<div class="spinet-flipbook">
  <select aria-label="what to change" MANY>OPTIONS</select>
  <input type="range" min="0" value="0" step="1" aria-label="DESCRIPTION">
  <output></output><br>
  <img alt="DESCRIPTION" style="width: WIDTHpx; max-width: 100%">
  <script>
    (() => {
      const book = document.currentScript.parentElement, series = SERIES;
      const pictures = PICTURES;
      const [select, range, output, image] = ["select", "input", "output", "img"].map(tag => book.querySelector(tag));
      const show = () => {
        const frame = series[select.selectedIndex].frames[range.value];
        output.textContent = frame.title;
        image.src = "data:image/webp;base64," + pictures[frame.picture];
      };
      const open = () => {
        const { first, frames } = series[select.selectedIndex];
        range.max = frames.length - 1;
        range.value = first;
        show();
      };
      select.addEventListener("change", open);
      range.addEventListener("input", show);
      open();
    })();
  </script>
</div>
"""


def similarity_map(
    image: UInt8[np.ndarray, "H W 3"],
    features: Mapping[str, Float[np.ndarray, "D h w"]],
    *,
    point: tuple[float, float],
    description: str,
) -> HTML:
    """An image that shows, after a click, how similar the feature of every cell is to that of the clicked cell.

    The page holds the features in 8 bits, and computes the cosine, the dot product or the distance of the vectors.

    Args:
        features: maps that cover the image, by title.
        point: x and y of the first cell to compare with, pixels of the image.
        description: text alternative.
    """
    maps = []
    for title, values in features.items():
        bits = np.round(values * (127 / max(float(np.abs(values).max()), 1e-12))).astype(np.int8)
        data = base64.b64encode(np.ascontiguousarray(bits).tobytes()).decode()
        maps.append({"title": title, "shape": list(bits.shape), "data": data})
    colors = (matplotlib.colormaps["viridis"](np.arange(256))[:, :3] * 255).astype(np.uint8)
    height, width = image.shape[:2]
    return HTML(
        SIMILARITY.replace("DESCRIPTION", html.escape(description, quote=True))
        .replace("IMAGE", _encoded(Image.fromarray(image)))
        .replace("POINT", json.dumps([float(point[0]) / width, float(point[1]) / height]))
        .replace("COLORS", json.dumps(colors.flatten().tolist(), separators=(",", ":")))
        .replace("MAPS", json.dumps(maps).replace("</", "<\\/"))
    )


SIMILARITY = """
<div class="spinet-similarity">
  <select aria-label="measure of similarity">
    <option>cosine</option><option>dot product</option><option>minus distance</option>
  </select>
  <output></output>
  <div style="display: flex; flex-wrap: wrap; gap: 8px">
    <figure style="margin: 0; flex: 1 1 300px; max-width: 450px; position: relative">
      <figcaption>click here</figcaption>
      <img alt="DESCRIPTION" src="data:image/webp;base64,IMAGE" style="width: 100%; cursor: crosshair"
        draggable="false">
      <span style="position: absolute; translate: -50% -50%; color: white; text-shadow: 0 0 3px black;
        font-size: 24px; line-height: 1; pointer-events: none">+</span>
    </figure>
  </div>
  <script>
    (() => {
      const root = document.currentScript.parentElement, maps = MAPS, colors = COLORS;
      let [x, y] = POINT;
      const [select, output, image, cross] = ["select", "output", "img", "span"].map(tag => root.querySelector(tag));
      for (const map of maps) {
        const [depth, height, width] = map.shape;
        map.values = Int8Array.from(atob(map.data), letter => letter.charCodeAt(0));
        const figure = document.createElement("figure"), title = document.createElement("figcaption");
        figure.style = "margin: 0; flex: 1 1 300px; max-width: 450px";
        title.textContent = map.title + " (bright: similar)";
        map.canvas = document.createElement("canvas");
        Object.assign(map.canvas, { width, height, style: "width: 100%; image-rendering: pixelated" });
        map.canvas.setAttribute("role", "img");
        map.canvas.setAttribute("aria-label", "DESCRIPTION: " + map.title);
        figure.append(title, map.canvas);
        root.querySelector("div").append(figure);
      }
      const similarity = (values, cells, depth, cell, measure) => {
        const result = new Float64Array(cells);
        let own = 0;
        for (let d = 0; d < depth; d++) own += values[d * cells + cell] ** 2;
        for (let i = 0; i < cells; i++) {
          let dot = 0, length = 0, apart = 0;
          for (let d = 0; d < depth; d++) {
            const a = values[d * cells + i], b = values[d * cells + cell];
            dot += a * b;
            length += a * a;
            apart += (a - b) ** 2;
          }
          if (measure === "cosine") result[i] = dot / Math.max(Math.sqrt(own * length), 1e-9);
          else result[i] = measure === "dot product" ? dot : -Math.sqrt(apart);
        }
        return result;
      };
      const show = () => {
        for (const { shape: [depth, height, width], values, canvas } of maps) {
          const column = Math.min(Math.floor(x * width), width - 1), row = Math.min(Math.floor(y * height), height - 1);
          const found = similarity(values, height * width, depth, row * width + column, select.value);
          const low = Math.min(...found), span = Math.max(...found) - low || 1;
          const pixels = new ImageData(width, height);
          found.forEach((value, i) => {
            const color = 3 * Math.round(255 * (value - low) / span);
            pixels.data.set([colors[color], colors[color + 1], colors[color + 2], 255], 4 * i);
          });
          canvas.getContext("2d").putImageData(pixels, 0, 0);
          output.textContent = `row ${row}, column ${column} of φ`;
        }
        cross.style.left = `${100 * x}%`;
        cross.style.top = `${image.offsetTop + y * image.offsetHeight}px`;
      };
      image.addEventListener("click", event => {
        const box = image.getBoundingClientRect();
        [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
        show();
      });
      select.addEventListener("change", show);
      window.addEventListener("resize", show);
      image.decode().then(show);
    })();
  </script>
</div>
"""


def power_calculator(*, gap: float, spread: float, seeds: int, critical: Sequence[float], description: str) -> HTML:
    """How often a paired t-test over seeds sees a gap between two settings, computed in the page.

    For n seeds the statistic has a noncentral t-distribution; the page integrates over the sample's standard deviation.

    Args:
        gap: first difference of the settings, PQ.
        spread: first standard deviation of a setting over its seeds, PQ.
        seeds: first number of seeds.
        critical: critical values of the two-sided test for 2, 3, … seeds.
        description: text alternative.
    """
    return HTML(
        POWER.replace("DESCRIPTION", html.escape(description, quote=True))
        .replace("START", json.dumps([gap, spread, seeds]))
        .replace("MOST", str(len(critical) + 1))
        .replace("CRITICAL", json.dumps([round(value, 6) for value in critical]))
    )


POWER = """
<div class="spinet-power">
  <label>gap, PQ <input type="range" min="0" max="3" step="0.1"> <output></output></label><br>
  <label>spread, PQ <input type="range" min="0.1" max="2" step="0.1"> <output></output></label><br>
  <label>seeds <input type="range" min="2" max="MOST" step="1"> <output></output></label>
  <p role="status"></p>
  <svg viewBox="0 0 400 170" role="img" aria-label="DESCRIPTION"
    style="width: 100%; max-width: 640px; font: 9px sans-serif">
    <path d="M40 10V140H390" fill="none" stroke="currentColor"/>
    <text x="36" y="14" text-anchor="end">100 %</text><text x="36" y="143" text-anchor="end">0 %</text>
    <text x="40" y="153">2</text><text x="390" y="153" text-anchor="end">MOST</text>
    <text x="215" y="165" text-anchor="middle">seeds of each setting</text>
    <line y1="10" y2="140" stroke="grey"/><polyline fill="none" stroke="#0072B2" stroke-width="2"/>
  </svg>
  <script>
    (() => {
      const root = document.currentScript.parentElement, critical = CRITICAL;
      const inputs = [...root.querySelectorAll("input")], outputs = [...root.querySelectorAll("output")];
      START.forEach((value, index) => { inputs[index].value = value; });
      const normal = x => {  // distribution function; Abramowitz and Stegun, 7.1.26
        const z = Math.abs(x) / Math.SQRT2, t = 1 / (1 + 0.3275911 * z);
        const factors = [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592];
        const erf = 1 - factors.reduce((sum, factor) => (sum + factor) * t, 0) * Math.exp(-z * z);
        return x < 0 ? (1 - erf) / 2 : (1 + erf) / 2;
      };
      const power = (gap, spread, seeds) => {
        const freedom = seeds - 1, shift = gap / (spread * Math.SQRT2) * Math.sqrt(seeds), limit = critical[seeds - 2];
        let found = 0, all = 0;
        for (let s = 0.002; s < 6; s += 0.004) {  // sample standard deviation / true one, with its density
          const density = Math.exp((freedom - 1) * Math.log(s) - freedom * (s * s - 1) / 2);
          found += density * normal(shift - limit * s);
          all += density;
        }
        return found / all;
      };
      const show = () => {
        const [gap, spread, seeds] = inputs.map(input => Number(input.value));
        outputs.forEach((output, index) => { output.textContent = inputs[index].value; });
        const share = Math.round(100 * power(gap, spread, seeds));
        root.querySelector("p").textContent = `With ${seeds} seeds ${share} % of such studies see the gap.`;
        const column = count => 40 + 350 * (count - 2) / (MOST - 2);
        const line = critical.map((_, index) => [column(index + 2), 140 - 130 * power(gap, spread, index + 2)]);
        root.querySelector("polyline").setAttribute("points", line.map(point => point.join()).join(" "));
        for (const side of ["x1", "x2"]) root.querySelector("line").setAttribute(side, column(seeds));
      };
      for (const input of inputs) input.addEventListener("input", show);
      show();
    })();
  </script>
</div>
"""


def _image(frame: Figure | Image.Image) -> Image.Image:
    return frame if isinstance(frame, Image.Image) else Image.open(io.BytesIO(to_png(frame))).convert("RGB")


def _width(frame: Figure | Image.Image) -> float:
    """Width on a page, CSS pixels."""
    return frame.width if isinstance(frame, Image.Image) else frame.bbox.width


def _encoded(picture: Image.Image) -> str:
    """An image as WebP, at most 800 pixels wide, in base64."""
    picture.thumbnail((800, 4000))
    buffer = io.BytesIO()
    picture.save(buffer, "webp", quality=68, method=6)
    return base64.b64encode(buffer.getvalue()).decode()
