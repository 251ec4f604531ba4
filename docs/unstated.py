"""Writes docs/unstated.md, the choices that the paper leaves open, from spinet/config/schema.py: `make docs`."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spinet.paper import URL
from spinet.report.grid import Grid

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "spinet" / "config" / "schema.py"
PAGE = ROOT / "docs" / "unstated.md"

UNSTATED, BEYOND = "unstated", "beyond the paper"
"""Marks of fields in spinet/config/schema.py."""

BEYOND_HEAD = """
## Beyond the paper

The method of the paper does not have these options. All are off in `cityscapes_r50` and `coco_r50`; `tiny` and `small`
switch some on. `spinet sweep --groups learning` measures their effect.

"""

CODE = {
    "§3.1": "spinet/model/fpn.py",
    "§3.2": "spinet/model/filter_sampling.py",
    "§3.3": "spinet/model/panoptic_feature.py",
    "§3.4": "spinet/model/single_shot.py",
    "§4": "spinet/objective/auxiliary.py",
    "Eq. 1": "spinet/objective/losses.py",
    "Eq. 2": "spinet/objective/losses.py",
    "Eq. 7": "spinet/objective/objective.py",
}
"""Link targets for sections and equations on the page."""

HEAD = f"""# What the paper leaves open

This page lists every choice that a re-implementation has to make because
[the paper]({URL}) does not say it. `make docs` generates the page from the comments in
[spinet/config/schema.py](../spinet/config/schema.py); change them there. Sections and equations are links to their
code. Where the paper gives no hint, the default is that of "similar systems": Panoptic-FPN, CondInst, SOLOv2,
Panoptic-DeepLab and others.
"""

PINNED_HEAD = """
## Pinned by the paper's own tables

The text does not state these details, but Tables 2, 3 and 5 publish sizes: 42.2 M parameters, 46.6 M with two
generators, and 0.81 and 0.96 · 10¹² operations. The operations only fit as multiply-accumulates (MACs) at 1024×2048.
`spinet.speed.accounting` counts 96 designs. The design below is the nearest. It still lacks about 0.29 M parameters,
which nothing in the text explains.

"""

PINNED = (
    ("k, kernel of the single-shot convolution", "3", "k = 1 leaves 36.7 M parameters in all"),
    ("D_f, channels of the filter features", "256", "128 leaves 39.0 M"),
    ("D_φ, channels of the Panoptic-Feature", "256", "stated (§3.3), and 128 leaves 39.2 M"),
    (
        "fully connected layer (§3.2)",
        "from all k²D_f numbers to all k²D_φ, with bias",
        "it has 5.3 M parameters; without them the total is far off",
    ),
    (
        "spatial pooling of filters (§3.2)",
        "the k×k neighbourhood without averaging, zeros outside the border",
        "an average would not keep k²D_f numbers",
    ),
    (
        "heads (§3.2)",
        "four 3×3 convolutions of 256 channels, each with group norm of 32 groups and ReLU, then a linear 3×3"
        " convolution; all levels share them",
        "the total number of parameters",
    ),
    (
        "levels in the generator (§3.3)",
        "resized to stride 8, then convolved: one convolution for P2, P3 and P4, two for P5",
        "a second generator costs 0.15 · 10¹² MACs; this one 0.144, convolving before resizing 0.097",
    ),
    (
        "end of the generator (§3.3)",
        "two 3×3 convolutions, a 2×2 deconvolution of stride 2",
        "a second generator costs 4.4 M parameters; this one 4.40 M, with a 4×4 deconvolution 5.19 M",
    ),
    (
        "norm in the generator (§3.3)",
        "group norm of 32 groups and ReLU after each convolution, none after the deconvolution",
        "too small to count; as in Panoptic-FPN",
    ),
    (
        "strides of the pyramid (§3.1)",
        "8, 8, 16, 32 and, on COCO, 32 again; C2 is halved, bilinearly, after its 1×1 convolution; P6 has its"
        " own 1×1 and 3×3 convolution on C5",
        "the text gives the stride of P6 and says that C2 is halved",
    ),
    (
        "stem (§5.2)",
        "32-32-64",
        "the cited paper's; 64-64-64 fits as well; 64-64-128 with a learned halving of C2 and 12 stuff outputs has the"
        " published parameters, but 4.7 % too many MACs (notebook 55)",
    ),
    (
        "biases of the single-shot convolution (§3.4)",
        "one for each stuff class, none for things",
        "a thing has k²D_φ numbers, without a bias",
    ),
)
"""Detail, value here, evidence."""

SETTLED = (
    ("initial confidence of the class head (§3.2)", "0.01, RetinaNet's"),
    (
        "divisors of the losses (Eq. 7)",
        "the number of their items (positives, filters, classes, triplets, pixels) in the whole step, over all devices",
    ),
    (
        "bootstrapped cross entropy (§5.2)",
        "the hardest share of each image's labelled pixels, as in the cited definition; the weight of an image is the"
        " number of its labelled pixels, so a share of 1 is the plain cross entropy used on COCO",
    ),
    ("dice losses (Eq. 1, Eq. 2)", "10⁻⁵ is added to numerator and denominator, so an empty mask has a loss"),
    (
        "masks of things at the start (§3.4)",
        "no prior for empty masks: things have no bias, so every pixel starts near a probability of one half",
    ),
    (
        "focal loss of soft contours (§4)",
        "the power γ of the distance between target and prediction; α is interpolated between its two values",
    ),
    (
        "contour (§4)",
        "pixels with a 4-neighbour of another class, except void; decreases as a Gaussian of the distance",
    ),
    (
        "random mask (§4)",
        "each pixel with probability 1/2; one draw per image, because instances do not overlap; an instance with"
        " an empty half is not used",
    ),
    ("negatives (§4)", "the other instances of the class in the image; if there is none, all other instances"),
    (
        "fully connected layer of the triplets (§4)",
        "D_φ to D_φ: with the contour head 0.07 M parameters, as in Table 3",
    ),
    ("distance (§4)", "L2 with 10⁻⁶ under the root, for a finite gradient at 0"),
    (
        "overlapping masks (§5.2)",
        "panoptic maps have none. With `input.whole_masks` the masks of COCO's detection task show where things"
        " overlap, and the smaller one gets the location. Filters must still produce the masks of the panoptic map",
    ),
    ("crowds", "ignored by every loss, like void and padding"),
    (
        "contour loss (Eq. 6)",
        "a mean over the pixels that are neither void nor crowd; in void and crowds the true contour is unknown",
    ),
    (
        "score of an instance",
        "confidence × mean probability inside its mask × the factor of the duplicate removal (matrix NMS)",
    ),
)
"""Detail, value here: choices without a field in the configuration."""


@dataclass(frozen=True)
class Choice:
    """A field of the configuration whose value is not in the paper."""

    section: str  # of `Config`
    field: str
    default: str
    alternatives: tuple[str, ...]  # the other values, if the type lists them
    reason: str


def choices(source: str, mark: str = UNSTATED) -> list[Choice]:
    """The fields marked "unstated", in their order, from the source of a module like spinet/config/schema.py.

    The mark is in the comment after the field. The order and names of the classes come from the fields of `Config`. The
    mark "beyond the paper" selects options that the method of the paper does not have.
    """
    tree = ast.parse(source)
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    aliases = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = []
    for section, class_name, _ in _fields(classes["Config"]):
        if class_name not in classes:  # the baselines' settings belong to other papers
            continue
        for name, annotation, node in _fields(classes[class_name]):
            comment = comments.get(node.end_lineno or node.lineno, "")
            if mark not in comment or node.value is None:
                continue
            default = ast.get_source_segment(source, node.value) or ""
            values = _values(source, aliases.get(annotation, node.annotation))
            others = tuple(value for value in values if value != default)
            found.append(Choice(section, name, default, others, _reason(comment)))
    return found


def page(source: str) -> str:
    """The content of docs/unstated.md."""
    rows = choices(source)
    parts = [
        HEAD,
        PINNED_HEAD,
        _table(("detail", "here", "evidence"), PINNED),
        "\n## Settled in the code, without a switch\n\n",
        _table(("detail", "here"), SETTLED),
        "\n## Fields of the configuration\n\nThe defaults are those of `cityscapes_r50`.\n",
    ]
    for section in dict.fromkeys(row.section for row in rows):
        parts.append(f"\n### {section}\n\n")
        parts.append(_fields_table([row for row in rows if row.section == section], row_name="reason"))
    if extras := choices(source, BEYOND):
        parts.append(BEYOND_HEAD)
        parts.append(_fields_table(extras, row_name="what it does"))
    return _linked("".join(parts))


def _fields_table(rows: Sequence[Choice], row_name: str) -> str:
    return _table(
        ("field", "default", "alternatives", row_name),
        [
            (f"`{row.field}`", f"`{row.default}`", ", ".join(f"`{v}`" for v in row.alternatives), row.reason)
            for row in rows
        ],
    )


def _fields(node: ast.ClassDef) -> list[tuple[str, str, ast.AnnAssign]]:
    """Name, annotation and node of each field of a dataclass."""
    return [
        (item.target.id, ast.unparse(item.annotation), item)
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    ]


def _values(source: str, annotation: ast.expr) -> list[str]:
    """All values of a Literal or a bool; an empty list for other types."""
    if isinstance(annotation, ast.Name) and annotation.id == "bool":
        return ["True", "False"]
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        inner = annotation.slice
        values = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        return [ast.get_source_segment(source, value) or "" for value in values]
    return []


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return Grid([("", name) for name in head], [list(row) for row in rows]).markdown()


def _reason(comment: str) -> str:
    """The comment without a leading mark: "unstated (§4): why" becomes "§4: why"."""
    mark = re.match(rf"(?:{UNSTATED}|{BEYOND})(?: \(([^)]*)\))?[:;] *", comment)
    if mark is None:
        return comment
    return (f"{mark[1]}: " if mark[1] else "") + comment[mark.end() :]


def _linked(text: str) -> str:
    """The text with links for sections and equations."""
    names = "|".join(re.escape(name) for name in CODE)
    return re.sub(rf"(?:{names})(?![\d.]*\d)", lambda match: f"[{match[0]}](../{CODE[match[0]]})", text)


if __name__ == "__main__":
    PAGE.write_text(page(CONFIG.read_text(encoding="utf-8")), encoding="utf-8")
