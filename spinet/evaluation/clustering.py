"""§4 Whether the Panoptic-Feature forms clusters by class and by instance: metrics, and a map in the plane.

Every metric is computed in all D_φ dimensions with the L2 distance of Eq. 5. The map (UMAP) preserves neighbourhoods
only; use it for viewing.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from dataclasses import field as dataclass_field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from spinet.data import VOID, Sample
from spinet.data.label_space import IGNORE
from spinet.data.stream import stable_seed
from spinet.evaluation.borders import BorderScore
from spinet.inference.predict import postprocess, run_network
from spinet.inference.resample import Resampler
from spinet.model.spinet import Features, SPINet
from spinet.objective.auxiliary import InterClassContour, soft_contour
from spinet.system import Model, NetworkOutput

SMALLEST = 4  # cells; smaller segments are skipped
THRESHOLDS = np.linspace(0, 0.95, 20)  # for the contour head's probability; at 0 every pixel is contour


@dataclass
class FeatureMap:
    """The Panoptic-Feature of an image, with the true segment at the centre pixel of each cell."""

    phi: Float[np.ndarray, "D_phi h w"]
    segment_map: Int[np.ndarray, "h w"]  # i + 1 in segment i; `VOID` elsewhere and in crowds
    labels: Int[np.ndarray, "K"]  # class of each segment


@dataclass
class Pixels:
    """n cells of one `FeatureMap`, or of several."""

    phi: Float[np.ndarray, "n D_phi"]
    segment: Int[np.ndarray, "n"]  # index of its segment, from 0; segments of two images have different numbers
    label: Int[np.ndarray, "n"]  # class of its segment
    cell: Int[np.ndarray, "n 2"]  # row and column of the cell
    image: Int[np.ndarray, "n"]  # index of its feature map, from 0

    def __getitem__(self, chosen: Bool[np.ndarray, "n"]) -> Pixels:
        return Pixels(*(getattr(self, each.name)[chosen] for each in fields(self)))


def compute_feature_map(
    model: Model[SPINet], sample: Sample, output: NetworkOutput[Features] | None = None
) -> FeatureMap:
    """Runs the network on a sample unless its `output` is given; cells outside the image are cut off."""
    output = output or run_network(model, sample.pixels)
    stride = model.network.PHI_STRIDE
    height, width = (side // stride for side in output.network_size)
    rows, columns = (
        ((np.arange(cells) + 0.5) * stride * side / scaled).astype(int)
        for cells, side, scaled in zip((height, width), output.size, output.network_size, strict=True)
    )
    known = np.concatenate([[VOID], np.where(sample.crowd, VOID, np.arange(1, len(sample.labels) + 1))])
    return FeatureMap(
        phi=output.features.phi[0, :, :height, :width].float().cpu().numpy(),
        segment_map=known[sample.segment_map.numpy()[np.ix_(rows, columns)]],
        labels=sample.labels.numpy(),
    )


def sample_pixels(field: FeatureMap, *, pixels: int, seed: int, mask: Bool[np.ndarray, "h w"] | None = None) -> Pixels:
    """Draws the same number of cells from every segment, so that large segments do not dominate.

    Args:
        pixels: cells per segment, or all of a smaller segment; segments below `SMALLEST` cells are skipped.
        seed: seed of the draws; the cells depend on it and on `segment_map`, not on φ.
        mask: draw from these cells only.
    """
    generator = np.random.default_rng(seed)
    rank = generator.random(field.segment_map.shape)
    chosen = []
    for segment in range(len(field.labels)):
        inside = field.segment_map == segment + 1
        if np.count_nonzero(inside) >= SMALLEST:
            cells = np.argwhere(inside if mask is None else inside & mask)
            order = rank[cells[:, 0], cells[:, 1]].argsort()[:pixels]
            chosen.append(np.column_stack([cells[order], np.full(len(order), segment)]))
    cell = np.concatenate([np.zeros((0, 3), dtype=int), *chosen])
    row, column, segment = cell.T
    image = np.zeros_like(segment)
    return Pixels(field.phi[:, row, column].T, segment, field.labels[segment], cell[:, :2], image)


def pool(images: Sequence[Pixels]) -> Pixels:
    """The cells of several images in one, with the images and their segments numbered on."""
    first = np.cumsum([0, *(pixels.segment.max(initial=-1) + 1 for pixels in images)])
    numbered = [
        replace(pixels, segment=pixels.segment + start, image=np.full(len(pixels.segment), index))
        for index, (pixels, start) in enumerate(zip(images, first, strict=False))
    ]
    return Pixels(*(np.concatenate([getattr(each, name.name) for each in numbered]) for name in fields(Pixels)))


def purity(vectors: Float[np.ndarray, "n D"], cluster: Int[np.ndarray, "n"], *, neighbors: int = 10) -> float:
    """The share of the nearest neighbours of each vector, the vector itself excluded, that are of its cluster."""
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=neighbors).fit(vectors).kneighbors(return_distance=False)
    return float((cluster[nearest] == cluster[:, None]).mean())


def quarter(field: FeatureMap) -> Bool[np.ndarray, "h w"]:
    """The cells in even rows and even columns.

    φ ends in a 2×2 deconvolution of stride 2 (§3.3). One quarter of its weights computes all these cells; the other
    quarters compute their neighbours. On a map of all cells, this difference dominates.
    """
    row, column = np.indices(field.segment_map.shape)
    return (row % 2 == 0) & (column % 2 == 0)


def feature_metrics(
    model: Model,
    samples: Iterable[Sample],
    *,
    pixels: int = 32,
    seed: int = 0,
    contour: InterClassContour | None = None,
    tolerance: int = 2,
) -> dict[str, float | int | None]:
    """Measures what §4 claims about the Panoptic-Feature, and averages over the images.

    Only cells of one `quarter` of the deconvolution count: differences between quarters are independent of the content.

    Args:
        samples: whole labelled images, such as an open data set.
        pixels: cells drawn from each segment.
        seed: seed of the draws, combined with each image's id.
        contour: the contour head of the objective that the network was trained with, if available.
        tolerance: allowed distance to the true border, in pixels.

    Returns:
        A value other than a count is None if there was nothing to compare.

        - `silhouette_classes`: mean silhouette coefficient (−1 … 1, large is good) of the drawn cells, with classes as
          clusters. `silhouette_instances`: the same for the drawn cells of things, with instances as clusters.
        - `distance_ratio`: mean distance between cells of one instance / mean distance between cells of two instances
          of the same class in the same image (small is good).
        - `triplet_accuracy`: the comparison of Eq. 5 without its fully connected layer, over all pairs of instances of
          one class in one image. It is the share of pairs where the mean of φ over a random half of an instance is
          nearer to the mean over its other half than to the mean over a half of the other instance. Means over many
          cells make this easy.
        - `pixel_accuracy`: the same for single cells. It is the share of cells that are nearer to the mean of φ over
          their own instance (its half without the cell) than to that of any other instance of the class.
          `pixel_chance`: its value for random guesses.
        - `border_f`: F-score of the borders between classes in the stuff path's semantic map. Precision is the share of
          its border pixels within `tolerance` of a true one. Recall is the share of true border pixels within
          `tolerance` of a predicted one. Counts are summed over images first.
        - `contour_f`: the same for the contour head's pixels, at the threshold with the best score on this set. One
          threshold marks every pixel, so the score is at least that of all pixels. None without `contour`.
        - `images`: number of images. `instances`: number of instances with another of their class in the image.
    """
    things_end = model.categories.num_things
    classes, instances, alike = [], [], _Alike()
    borders = BorderScore(tolerance=tolerance)
    contours = BorderScore(tolerance=tolerance, maps=len(THRESHOLDS))
    images = 0
    for images, sample in enumerate(samples, start=1):  # noqa: B007
        output = run_network(model, sample.pixels)
        field = compute_feature_map(model, sample, output)
        field = replace(field, segment_map=np.where(quarter(field), field.segment_map, VOID))
        # Eq. 3: a random mask m_r halves every instance: one half for the anchors, the other for the drawn cells
        draw = stable_seed(seed, "pixels", sample.image_id)
        half = np.random.default_rng([draw, 1]).random(field.segment_map.shape) < 0.5
        drawn = sample_pixels(field, pixels=pixels, seed=draw, mask=~half)
        things = drawn[drawn.label < things_end]
        classes.append(_silhouette(drawn.phi, drawn.label))
        instances.append(_silhouette(things.phi, things.segment))
        for label in np.unique(things.label):
            alike.add(field, things[things.label == label], half)
        segment_map, crowd = sample.segment_map.numpy(), sample.crowd.numpy()
        truth = model.space.ground_truth(segment_map, sample.labels.numpy(), crowd=crowd)
        borders.update(_border(truth), [_border(postprocess(model, output).semantic)], truth == IGNORE)
        if contour is not None:
            label_map = np.concatenate([[IGNORE], np.where(crowd, IGNORE, sample.labels)])[segment_map]
            probability = contour_map(contour, output)
            found = [probability > threshold for threshold in THRESHOLDS]
            contours.update(_border(label_map), found, label_map == IGNORE)
    return {
        "silhouette_classes": _average(classes),
        "silhouette_instances": _average(instances),
        "distance_ratio": sum(alike.within) / sum(alike.between) if any(alike.between) else None,
        "triplet_accuracy": _average(alike.triplets),
        "pixel_accuracy": _average(alike.nearest),
        "pixel_chance": _average(alike.chance),
        "border_f": _best(borders),
        "contour_f": _best(contours),
        "images": images,
        "instances": len(alike.triplets),
    }


@torch.inference_mode()
def contour_map(contour: InterClassContour, output: NetworkOutput[Features]) -> Float[np.ndarray, "H W"]:
    """Probability of a border between classes at each pixel of the image, from the contour head of §4."""
    logits = contour.logits(output.features.all_phi.float())
    return Resampler.of(output, stride=1).whole(logits)[0].sigmoid().cpu().numpy()


def embed(phi: Float[np.ndarray, "n D_phi"], *, neighbors: int = 15, seed: int = 0) -> Float[np.ndarray, "n 2"]:
    """Maps n vectors to the plane by UMAP, reproducibly for a given seed.

    Raises:
        ValueError: the number of vectors is not above the number of neighbours.
    """
    if len(phi) <= neighbors:
        raise ValueError(f"a map of {len(phi)} vectors with {neighbors} neighbours each: give more vectors")
    from sklearn.neighbors import NearestNeighbors
    from umap import UMAP

    distance, index = NearestNeighbors(n_neighbors=neighbors).fit(phi).kneighbors()
    # UMAP counts a vector as its own first neighbour
    index = np.column_stack([np.arange(len(phi)), index[:, :-1]])
    distance = np.column_stack([np.zeros(len(phi)), distance[:, :-1]]).astype(np.float32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="precomputed_knn", category=UserWarning)
        mapper = UMAP(
            n_neighbors=neighbors,
            precomputed_knn=(index, distance),
            force_approximation_algorithm=True,
            random_state=seed,
            n_jobs=1,
        )
        return mapper.fit_transform(phi)


@dataclass
class _Alike:
    """Comparisons between instances of one class in one image, one entry per instance."""

    within: list[float] = dataclass_field(default_factory=list)
    between: list[float] = dataclass_field(default_factory=list)
    triplets: list[Bool[np.ndarray, "K-1"]] = dataclass_field(default_factory=list)
    nearest: list[Bool[np.ndarray, "n"]] = dataclass_field(default_factory=list)
    chance: list[Float[np.ndarray, "n"]] = dataclass_field(default_factory=list)

    def add(self, field: FeatureMap, cells: Pixels, half: Bool[np.ndarray, "h w"]) -> None:
        """Compares the K instances of a class in an image by cells drawn outside `half`."""
        segments, own = np.unique(cells.segment, return_inverse=True)
        masks = [field.segment_map == segment + 1 for segment in segments]
        both = [index for index, mask in enumerate(masks) if (mask & half).any()]  # a small one may lie in one half
        if len(both) < 2:
            return
        anchors, positives = (np.stack([_mean(field, masks[i] & part) for i in both]) for part in (half, ~half))
        apart = _distances(anchors, anchors)
        for row, index in enumerate(both):
            mine, others = cells.phi[own == index], cells.phi[np.isin(own, both) & (own != index)]
            if len(mine) > 1:
                self.within.append(float(_distances(mine, mine).sum()) / (len(mine) * (len(mine) - 1)))
                self.between.append(float(_distances(mine, others).mean()))
            # Eq. 5: is d_p above d_n, both negative distances?
            d_p, d_n = -np.linalg.norm(anchors[row] - positives[row]), -np.delete(apart[row], row)
            self.triplets.append(d_p > d_n)
            self.nearest.append(_distances(mine, anchors).argmin(1) == row)
            self.chance.append(np.full(len(mine), 1 / len(both)))


def _best(score: BorderScore) -> float | None:
    result = score.result()
    return None if result is None else max(result)


def _border(labels: Int[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    return soft_contour(torch.from_numpy(labels), 0).bool().numpy()


def _silhouette(phi: Float[np.ndarray, "n D_phi"], cluster: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    from sklearn.metrics import silhouette_samples

    if not 2 <= len(np.unique(cluster)) < len(cluster):
        return np.zeros(0)
    return np.asarray(silhouette_samples(phi, cluster))


def _mean(field: FeatureMap, mask: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "D_phi"]:
    """Eq. 4: v, the mean of φ over a partial mask."""
    return field.phi[:, mask].mean(1)


def _distances(a: Float[np.ndarray, "n D"], b: Float[np.ndarray, "m D"]) -> Float[np.ndarray, "n m"]:
    return torch.cdist(torch.from_numpy(a)[None], torch.from_numpy(b)[None])[0].numpy()


def _average(parts: list[np.ndarray]) -> float | None:
    values = np.concatenate([np.zeros(0), *parts])
    return float(values.mean()) if len(values) else None
