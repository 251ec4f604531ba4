"""Eq. 1 to 7, each compared with a naive loop written only from the paper."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from spinet.config import COCO_R50, ObjectiveConfig
from spinet.data.label_space import IGNORE, LabelSpace
from spinet.objective.auxiliary import InterClassContour, IntraClassTriplet, distance
from spinet.objective.losses import bootstrapped_cross_entropy, class_loss, dice, focal, multi_class_dice, thing_loss
from spinet.objective.objective import Objective
from spinet.objective.targets import BACKGROUND, TargetBuilder, Targets


def noise(*shape, seed=0, scale=2.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_equal_with_gradient(function, naive, *inputs):
    """Value and gradients in single precision equal those of the naive loop in double precision."""
    ours = [x.clone().requires_grad_() for x in inputs]
    theirs = [x.double().requires_grad_() for x in inputs]
    value, expected = function(*ours), naive(*theirs)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-7)
    gradients, wanted = torch.autograd.grad(value, ours), torch.autograd.grad(expected, theirs)
    for gradient, want in zip(gradients, wanted, strict=True):
        assert want.abs().max() > 1e-4  # a zero gradient would prove nothing
        torch.testing.assert_close(gradient.double(), want, rtol=1e-4, atol=1e-5 * float(want.abs().max()))


# --- Eq. 1: L_t = DICE(y_t, σ(ŷ_t)) -----------------------------------------------------------------------------------


def naive_dice(p, y, square=True, eps=1e-5):
    """V-Net's dice loss of one mask, pixel by pixel."""
    overlap, size = 0.0, 0.0
    for p_i, y_i in zip(p.flatten(), y.flatten(), strict=True):
        overlap = overlap + p_i * y_i
        size = size + (p_i**2 + y_i**2 if square else p_i + y_i)
    return 1 - (2 * overlap + eps) / (size + eps)


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 5)])
def test_eq1_thing_dice(shape, square):
    logits = noise(*shape)
    masks = (noise(*shape, seed=1) > 0).float()
    masks[0, 0, 0] = 0.25  # a cell that the instance partly covers

    def naive(x):
        return sum(naive_dice(1 / (1 + torch.exp(-logit)), y, square) for logit, y in zip(x, masks, strict=True))

    assert_equal_with_gradient(lambda x: thing_loss(x, masks, square=square), naive, logits)


def test_eq1_dice_knows_right_from_wrong():
    left, right = torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    assert float(dice(left, left)) == pytest.approx(0, abs=1e-6)
    assert float(dice(left, right)) == pytest.approx(1, abs=1e-4)
    half = torch.full((1, 4), 0.5)
    assert float(dice(half, torch.ones(1, 4))) == pytest.approx(1 - 2 * 0.5 / (0.25 + 1), abs=1e-5)
    assert float(dice(half, torch.ones(1, 4), square=False)) == pytest.approx(1 - 2 * 0.5 / (0.5 + 1), abs=1e-5)


def test_eq1_is_a_sum_over_instances_and_zero_without_any():
    logits, masks = noise(3, 4, 5), (noise(3, 4, 5, seed=1) > 0).float()
    parts = sum(thing_loss(logits[i : i + 1], masks[i : i + 1]) for i in range(3))
    torch.testing.assert_close(thing_loss(logits, masks), parts, rtol=1e-6, atol=1e-6)
    nothing = logits[:0].clone().requires_grad_()
    loss = thing_loss(nothing, masks[:0])
    loss.backward()
    assert loss.item() == 0


def test_eq1_gradient():
    p, y = torch.rand(2, 6, dtype=torch.float64, requires_grad=True), torch.randint(0, 2, (2, 6)).double()
    for square in (True, False):
        assert gradcheck(lambda p, square=square: dice(p, y, square=square), p)


# --- Eq. 2: L_md = DICE(y_s, ψ(ŷ_s)), ψ the softmax over stuff classes ------------------------------------------------


def naive_multi_class_dice(logits, labels, present):
    total = 0.0
    for image in range(logits.shape[0]):
        pixels = [(i, j) for i in range(labels.shape[1]) for j in range(labels.shape[2]) if labels[image, i, j] >= 0]
        for c in range(logits.shape[1]):
            if present[image, c]:
                p = [torch.exp(logits[image, c, i, j]) / torch.exp(logits[image, :, i, j]).sum() for i, j in pixels]
                y = [(labels[image, i, j] == c).double() for i, j in pixels]
                total = total + naive_dice(torch.stack(p), torch.stack(y))
    return total


def stuff_example(batch=2, classes=3, height=3, width=4):
    labels = torch.randint(-1, classes, (batch, height, width), generator=torch.Generator().manual_seed(4))
    assert (labels == IGNORE).any()
    assert (labels >= 0).any()
    return noise(batch, classes, height, width), labels


def test_eq2_multi_class_dice():
    logits, labels = stuff_example()
    present = torch.tensor([[True, True, False], [True, False, True]])
    assert_equal_with_gradient(
        lambda x: multi_class_dice(x, labels, present),
        lambda x: naive_multi_class_dice(x, labels, present),
        logits,
    )


def test_eq2_perfect_and_wrong_predictions():
    labels = torch.tensor([[[0, 0], [1, IGNORE]]])
    present = torch.tensor([[True, True]])
    right = 40 * torch.tensor([[[[1.0, 1.0], [-1.0, 5.0]], [[-1.0, -1.0], [1.0, -5.0]]]])
    assert float(multi_class_dice(right, labels, present)) == pytest.approx(0, abs=1e-6)
    assert float(multi_class_dice(-right, labels, present)) == pytest.approx(2, abs=1e-4)


@pytest.mark.parametrize("labels", [torch.full((1, 2, 2), IGNORE), torch.tensor([[[1]]])], ids=["void", "one pixel"])
def test_eq2_without_anything_to_compare(labels):
    logits = noise(1, 3, *labels.shape[1:]).requires_grad_()
    present = torch.stack([(labels == c).any() for c in range(3)])[None]
    loss = multi_class_dice(logits, labels, present)
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    assert (loss.item() > 0) == bool(present.any())


# --- L_ce: bootstrapped cross entropy [41] ----------------------------------------------------------------------------


def naive_cross_entropy(logits, labels, top):
    total = 0.0
    for image in range(logits.shape[0]):
        losses = []
        for i in range(labels.shape[1]):
            for j in range(labels.shape[2]):
                label = int(labels[image, i, j])
                softmax = torch.exp(logits[image, :, i, j]) / torch.exp(logits[image, :, i, j]).sum()
                if label >= 0:
                    losses.append(-torch.log(softmax[label]))
        hardest = sorted(losses, key=torch.Tensor.item, reverse=True)[: max(1, round(top * len(losses)))]
        total = total + len(losses) * sum(hardest) / len(hardest)
    return total


@pytest.mark.parametrize("top", [0.01, 0.2, 0.5, 1.0])
def test_bootstrapped_cross_entropy(top):
    logits, labels = stuff_example()
    assert_equal_with_gradient(
        lambda x: bootstrapped_cross_entropy(x, labels, top=top),
        lambda x: naive_cross_entropy(x, labels, top),
        logits,
    )


def test_bootstrapped_cross_entropy_trains_the_hardest_pixels_alone():
    logits, labels = noise(1, 3, 10, 10).requires_grad_(), torch.zeros(1, 10, 10, dtype=torch.long)
    loss = bootstrapped_cross_entropy(logits, labels, top=0.2) / 100
    loss.backward()
    trained = logits.grad.abs().sum(1)[0] > 0
    single = F.cross_entropy(logits.detach(), labels, reduction="none")[0]
    assert trained.sum() == 20
    assert single[trained].min() > single[~trained].max()
    assert loss.item() == pytest.approx(float(single[trained].mean()), rel=1e-6)


@pytest.mark.parametrize("top", [0.2, 1.0])
def test_void_around_a_picture_changes_no_cross_entropy(top):
    logits, labels = stuff_example()
    wider = F.pad(labels, (0, 5, 0, 4), value=IGNORE)
    loss = bootstrapped_cross_entropy(F.pad(logits, (0, 5, 0, 4), value=3.0), wider, top=top)
    assert loss.item() == pytest.approx(bootstrapped_cross_entropy(logits, labels, top=top).item(), rel=1e-6)


def test_general_cross_entropy_is_pytorchs():
    logits, labels = stuff_example()
    mean = bootstrapped_cross_entropy(logits, labels, top=1.0) / (labels != IGNORE).sum()
    assert mean.item() == pytest.approx(F.cross_entropy(logits, labels, ignore_index=IGNORE).item(), rel=1e-6)


@pytest.mark.parametrize("top", [0.2, 1.0])
def test_cross_entropy_of_void_is_zero(top):
    logits = noise(2, 3, 4, 4).requires_grad_()
    loss = bootstrapped_cross_entropy(logits, torch.full((2, 4, 4), IGNORE), top=top)
    loss.backward()
    assert loss.item() == 0
    assert float(logits.grad.abs().max()) == 0


def test_cross_entropy_gradient():
    labels = stuff_example()[1]
    logits = noise(2, 3, 3, 4).double().requires_grad_()
    assert gradcheck(lambda x: bootstrapped_cross_entropy(x, labels, top=0.2), logits)


# --- L_cls: focal loss [20] -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.6, 0.5), (0.25, 0.0)])
def test_focal_is_torchvisions_for_hard_targets(alpha, gamma):
    logits, target = noise(50, scale=4), (noise(50, seed=1) > 0).float()
    expected = sigmoid_focal_loss(logits, target, alpha=alpha, gamma=gamma)
    torch.testing.assert_close(focal(logits, target, alpha=alpha, gamma=gamma), expected, rtol=1e-5, atol=1e-7)


def test_focal_of_a_soft_target_is_least_there():
    y = torch.full((201,), 0.3)
    p = torch.linspace(0.01, 0.99, 201)
    loss = focal(torch.logit(p), y, alpha=0.5)
    assert float(p[loss.argmin()]) == pytest.approx(0.3, abs=0.005)
    assert float(focal(torch.logit(y[:1]), y[:1])) == pytest.approx(0, abs=1e-9)


def test_focal_gradient():
    logits = noise(12).double().requires_grad_()
    target = torch.rand(12, dtype=torch.float64)
    assert gradcheck(lambda x: focal(x, target), logits)
    assert gradcheck(lambda x: focal(x, target.round()), logits)


def naive_class_loss(logits, labels, alpha=0.25, gamma=2.0):
    total = 0.0
    for level, label in zip(logits, labels, strict=True):
        for b, c, i, j in itertools.product(*map(range, level.shape)):
            if label[b, i, j] == IGNORE:
                continue
            p = 1 / (1 + torch.exp(-level[b, c, i, j]))
            if label[b, i, j] == c:
                total = total - alpha * (1 - p) ** gamma * torch.log(p)
            else:
                total = total - (1 - alpha) * p**gamma * torch.log(1 - p)
    return total


def test_class_loss():
    sizes = [(3, 4), (2, 2)]
    labels = [torch.randint(-2, 3, (2, *size), generator=torch.Generator().manual_seed(3)) for size in sizes]
    assert {BACKGROUND, IGNORE, 0} <= set(labels[0].unique().tolist())
    assert_equal_with_gradient(
        lambda *x: class_loss(list(x), labels),
        lambda *x: naive_class_loss(x, labels),
        *(noise(2, 3, *size, seed=i) for i, size in enumerate(sizes)),
    )


def test_class_loss_of_ignored_places_is_zero_but_not_of_background():
    logits = [noise(1, 3, 2, 2)]
    assert float(class_loss(logits, [torch.full((1, 2, 2), IGNORE)])) == 0
    assert float(class_loss(logits, [torch.full((1, 2, 2), BACKGROUND)])) > 0.1


# --- Eq. 3: M_k = m_k ⊙ m_r, M'_k = m_k ⊙ ~m_r ------------------------------------------------------------------------


def image_targets(scene, draw_seed=0, scene_seed=0, **options):
    segment_map, labels, crowd = scene(scene_seed, **options)
    builder = TargetBuilder(strides=[8, 8, 16, 32], space=LabelSpace("all", 3, 4))
    return builder(segment_map[None], [labels], [crowd], [draw_seed]).images[0]


def test_eq3_halves_partition_the_mask(scene):
    image = image_targets(scene)
    m_k = image.masks > 0.5
    for k in range(len(m_k)):
        for i, j in itertools.product(*map(range, m_k.shape[1:])):
            halves = [bool(image.halves[0, k, i, j]), bool(image.halves[1, k, i, j])]
            assert sum(halves) == int(m_k[k, i, j])


def test_eq3_is_a_fair_coin_for_each_cell_and_new_for_each_seed(scene):
    draws = torch.stack([image_targets(scene, draw_seed=seed).halves for seed in range(200)])
    inside = draws[0].any(0)
    share = draws[:, 0].float().mean(0)[inside]  # of the 200 draws, for each cell of each instance
    assert float(share.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(share.std()) == pytest.approx(0.5 / math.sqrt(200), rel=0.2)
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == 200
    assert torch.equal(draws[7], image_targets(scene, draw_seed=7).halves)


# --- Eq. 4: v^c = 1/N_M Σ M ⊙ φ^c, V = FC(v) --------------------------------------------------------------------------


def naive_representation(phi, mask, fc):
    channels, height, width = phi.shape
    cells = [(i, j) for i in range(height) for j in range(width) if mask[i, j]]
    v = [sum(phi[c, i, j] for i, j in cells) / max(len(cells), 1) for c in range(channels)]
    return [
        sum(fc.weight[o, c].double() * v[c] for c in range(channels)) + fc.bias[o].double() for o in range(channels)
    ]


def triplet_example(instances=3, channels=4, height=3, width=5):
    torch.manual_seed(0)
    module = IntraClassTriplet(feature_channels=channels)
    return module, noise(channels, height, width), noise(2, instances, height, width, seed=1) > 0


def test_eq4_representation():
    module, phi, halves = triplet_example()
    halves[1, 2] = False  # an empty half
    found = module.representations(phi, halves)
    for half, k in itertools.product(range(2), range(3)):
        expected = torch.stack(naive_representation(phi.double(), halves[half, k], module.fc))
        torch.testing.assert_close(found[half, k].double(), expected, rtol=1e-5, atol=1e-6)
    assert found[0].std(0).min() > 1e-3


def test_eq4_sees_its_mask_alone():
    module, phi, halves = triplet_example()
    other = torch.where(halves[0, 0], phi, noise(*phi.shape, seed=9))
    assert torch.equal(module.representations(phi, halves)[0, 0], module.representations(other, halves)[0, 0])
    assert not torch.equal(module.representations(phi, halves)[0, 1], module.representations(other, halves)[0, 1])


# --- Eq. 5: L_intra = −log(e^dp / (e^dp + e^dn)), d = −DIST -----------------------------------------------------------


class Given(IntraClassTriplet):
    """The loss for given representations, [2, K, D]: anchors and positives."""

    def __init__(self, representations):
        nn.Module.__init__(self)
        self.given = representations

    def representations(self, phi, halves):
        return self.given


def eq5(anchor, positive, negative):
    """The loss of a single triplet."""
    loss = Given(torch.stack([torch.stack([anchor, negative]), torch.stack([positive, negative])]))
    return loss(torch.zeros(1), None, torch.tensor([[False, True], [False, False]]))


def test_eq5_sign():
    """The loss is small near the positive and far from the negative, and large otherwise."""
    here, there = torch.tensor([0.0, 0.0]), torch.tensor([3.0, 4.0])  # distance 5
    good, bad, even = eq5(here, here, there), eq5(here, there, here), eq5(here, there, -there)
    assert float(good) == pytest.approx(math.log(1 + math.exp(-5)), abs=1e-3)
    assert float(bad) == pytest.approx(math.log(1 + math.exp(5)), abs=1e-3)
    assert float(even) == pytest.approx(math.log(2), abs=1e-6)


def test_eq5_pulls_the_positive_and_pushes_the_negative():
    anchor, positive, negative = (noise(3, seed=seed).requires_grad_() for seed in range(3))
    eq5(anchor, positive, negative).backward()
    assert (positive.grad @ (positive - anchor)).item() > 0  # descent goes towards the anchor
    assert (negative.grad @ (negative - anchor)).item() < 0


def test_eq5_is_finite_at_distance_zero_and_far_away():
    same = torch.ones(4, requires_grad=True)
    loss = eq5(same, same, same)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert torch.isfinite(same.grad).all()
    assert float(eq5(torch.zeros(1), torch.tensor([1000.0]), torch.zeros(1))) == pytest.approx(1000, rel=1e-5)


def naive_triplets(phi, halves, negatives, fc):
    total, count = 0.0, halves.shape[1]
    V = [naive_representation(phi, halves[0, k], fc) for k in range(count)]
    V_prime = [naive_representation(phi, halves[1, k], fc) for k in range(count)]

    def dist(a, b):
        return torch.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) + 1e-6)

    for a, n in itertools.product(range(count), repeat=2):
        if negatives[a, n]:
            d_p, d_n = -dist(V[a], V_prime[a]), -dist(V[a], V[n])
            total = total - torch.log(torch.exp(d_p) / (torch.exp(d_p) + torch.exp(d_n)))
    return total


def test_eq5_over_all_triplets():
    module, phi, halves = triplet_example()
    negatives = torch.tensor([[False, True, True], [True, False, False], [False, False, False]])
    assert_equal_with_gradient(
        lambda x: module(x, halves, negatives),
        lambda x: naive_triplets(x, halves, negatives, module.fc),
        phi,
    )


def test_eq5_distance_gradient():
    a, b = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert gradcheck(distance, (a, b))


@pytest.mark.parametrize("things", [0, 1])
def test_eq5_one_instance_makes_no_triplet(scene, things):
    image = image_targets(scene, things=things)
    assert image.halves.shape[1] == things
    phi = noise(4, *image.masks.shape[1:]).requires_grad_()
    loss = IntraClassTriplet(feature_channels=4)(phi, image.halves, image.negatives)
    loss.backward()
    assert loss.item() == 0
    assert float(phi.grad.abs().max()) == 0


# --- Eq. 6: L_inter = 1/(H W) Σ FOCAL(y, ŷ) ---------------------------------------------------------------------------


def naive_contour_logits(phi, conv):
    """Channel 4·a + b of the 1×1 convolution at a cell is the pixel in row a, column b of the cell's 4×4 pixels."""
    batch, _, height, width = phi.shape
    out = torch.zeros(batch, 4 * height, 4 * width, dtype=phi.dtype)
    for n, i, j, a, b in itertools.product(range(batch), range(height), range(width), range(4), range(4)):
        weight, bias = conv.weight[4 * a + b, :, 0, 0].to(phi.dtype), conv.bias[4 * a + b].to(phi.dtype)
        out[n, 4 * i + a, 4 * j + b] = (weight * phi[n, :, i, j]).sum() + bias
    return out


def naive_contour_loss(phi, contour, conv, alpha=0.25, gamma=2.0):
    logits, total = naive_contour_logits(phi, conv), 0.0
    for n in range(len(logits)):
        loss = 0.0
        for i, j in itertools.product(*map(range, logits.shape[1:])):
            p, y = 1 / (1 + torch.exp(-logits[n, i, j])), contour[n, i, j]
            if y == IGNORE:
                continue
            entropy = -(y * torch.log(p) + (1 - y) * torch.log(1 - p))
            loss = loss + (alpha * y + (1 - alpha) * (1 - y)) * (y - p).abs() ** gamma * entropy
        total = total + loss
    return total


def contour_example():
    torch.manual_seed(0)
    module = InterClassContour(feature_channels=5)
    nn.init.normal_(module.conv.weight)
    nn.init.normal_(module.conv.bias)
    contour = torch.rand(2, 8, 12, generator=torch.Generator().manual_seed(1))
    contour[0, :4] = 0.0
    contour[0, 4:] = 1.0
    contour[1, 3:6, 2:7] = IGNORE
    return module, noise(2, 5, 2, 3), contour


def test_eq6_contour_loss():
    module, phi, contour = contour_example()
    assert_equal_with_gradient(
        lambda x: module(x, contour), lambda x: naive_contour_loss(x, contour.double(), module.conv), phi
    )


def test_eq6_sixteen_channels_are_the_sixteen_pixels_of_a_cell():
    module, phi, _ = contour_example()
    torch.testing.assert_close(module.logits(phi), naive_contour_logits(phi, module.conv), rtol=1e-5, atol=1e-6)
    assert module.conv.out_channels == 16
    channel = 6  # row 1, column 2
    nn.init.zeros_(module.conv.weight)
    module.conv.bias.data = (torch.arange(16) == channel).float()
    lit = module.logits(phi)[0].nonzero().tolist()
    assert lit == [[4 * i + 1, 4 * j + 2] for i in range(2) for j in range(3)]


def test_eq6_rewards_the_right_contour():
    module, phi, _ = contour_example()
    logits = module.logits(phi)
    truth, wrong = (logits > 0).float(), (logits <= 0).float()
    assert module(phi, truth).item() < 0.2 * module(phi, wrong).item()


def test_eq6_void_does_not_judge_the_contour():
    """Neither the head's outputs at ignored pixels nor their number change the loss."""
    module, phi, contour = contour_example()
    before = module(phi, contour).item()
    wider = F.pad(contour, (0, 4, 0, 8), value=IGNORE)
    assert module(F.pad(phi, (0, 1, 0, 2), value=3.0), wider).item() == pytest.approx(before, rel=1e-6)
    assert module(phi, torch.full_like(contour, IGNORE)).item() == 0


# --- Eq. 7: L = λ_0 L_cls + λ_1 L_s + λ_2 L_t + λ_3 L_inter + λ_4 L_intra ---------------------------------------------

CHANNELS = 8
TABLE_3 = [  # multi-class dice, L_inter, L_intra
    (False, False, False),
    (True, False, False),
    (True, True, False),
    (False, True, True),
    (True, True, True),
]
HEADS = {"contour": 256 * 16 + 16, "triplet": 256 * 256 + 256}  # parameters of the 1×1 convolution and of the FC


def build_targets(scenes, config=None, seeds=None):
    config = config or ObjectiveConfig()
    builder = TargetBuilder(
        strides=[8, 8, 16, 32],
        space=LabelSpace(config.semantic_classes, 3, 4),
        semantic_stride=config.semantic_stride,
        samples_per_image=9,
    )
    maps, labels, crowd = zip(*scenes, strict=True)
    return builder(torch.stack(maps), list(labels), list(crowd), seeds or list(range(len(maps))))


def build_outputs(targets, config=None, seed=0):
    """Random network outputs as arguments of the objective."""
    kind = (config or ObjectiveConfig()).semantic_classes
    batch, size = len(targets.images), targets.images[0].masks.shape[1:]
    outputs = LabelSpace(kind, 3, 4).num_outputs
    return {
        "class_logits": [noise(batch, 3, *c.shape[1:], seed=seed + i) for i, c in enumerate(targets.classes)],
        "thing_logits": [
            noise(len(t.sample_instance), *size, seed=seed + 10 + i) for i, t in enumerate(targets.images)
        ],
        "stuff_logits": noise(batch, outputs, *size, seed=seed + 30),
        "phi": noise(batch, CHANNELS, *size, seed=seed + 40),
    }


def part(arguments, targets, images):
    """The outputs and targets of some images of a batch."""
    arguments = {
        name: [value[i] for i in images]
        if name == "thing_logits"
        else [level[images] for level in value]
        if name == "class_logits"
        else value[images]
        for name, value in arguments.items()
    }
    return arguments, Targets(
        classes=[level[images] for level in targets.classes],
        semantic=targets.semantic[images],
        present=targets.present[images],
        contour=targets.contour[images],
        images=[targets.images[i] for i in images],
    )


@pytest.fixture
def scenes(scene):
    """Four images with 4, 0, 1 and 6 instances; the last has a crowd."""
    return [scene(0), scene(1, things=0), scene(2, things=1), scene(3, things=6, crowd=1)]


@pytest.mark.parametrize("preset", [ObjectiveConfig(), COCO_R50.objective], ids=["cityscapes", "coco"])
def test_eq7_total(scenes, preset):
    """Every term from the functions above, with the paper's coefficients (§5.2)."""
    targets = build_targets(scenes, preset)
    x, counts = build_outputs(targets, preset), targets.counts()
    torch.manual_seed(0)
    objective = Objective(config=preset, feature_channels=CHANNELS)
    losses = objective(**x, targets=targets, counts=counts)
    weights = {"cityscapes": (1, 1, 5, 20, 1), "coco": (1, 0.5, 3, 0, 1)}
    w = weights["coco" if preset is COCO_R50.objective else "cityscapes"]

    positives = sum(int((level >= 0).sum()) for level in targets.classes)
    samples = sum(len(image.sample_instance) for image in targets.images)
    stuff = F.interpolate(x["stuff_logits"], scale_factor=4, mode="bilinear", align_corners=False)
    top, labelled = {1: 0.2, 0.5: 1.0}[w[1]], int((targets.semantic != IGNORE).sum())
    assert labelled < targets.semantic.numel()
    seen = [logits.masked_fill(~t.valid, -1e4) for logits, t in zip(x["thing_logits"], targets.images, strict=True)]
    things = sum(thing_loss(seen[i], t.masks[t.sample_instance]) for i, t in enumerate(targets.images))
    expected = {
        "class": w[0] * class_loss(x["class_logits"], targets.classes) / positives,
        "cross_entropy": w[1] * bootstrapped_cross_entropy(stuff, targets.semantic, top=top) / labelled,
        "stuff_dice": w[1] * multi_class_dice(stuff, targets.semantic, targets.present) / targets.present.sum(),
        "things": w[2] * things / samples,
        "triplet": w[4]
        * sum(objective.intra(x["phi"][i], t.halves, t.negatives) for i, t in enumerate(targets.images))
        / sum(int(t.negatives.sum()) for t in targets.images),
    }
    if w[3]:
        expected["contour"] = w[3] * objective.inter(x["phi"], targets.contour) / (targets.contour != IGNORE).sum()
    assert losses.keys() == expected.keys() | {"total"}
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-5), name
        assert value.item() > 1e-3, name
    assert losses["total"].item() == pytest.approx(sum(value.item() for value in expected.values()), rel=1e-6)


@pytest.mark.parametrize(
    ("field", "term"),
    [
        ("classes", "class"),
        ("stuff", "cross_entropy"),
        ("stuff", "stuff_dice"),
        ("things", "things"),
        ("inter_class_contour", "contour"),
        ("intra_class_triplet", "triplet"),
    ],
)
def test_eq7_weight_scales_its_term_alone(scenes, field, term):
    targets = build_targets(scenes)
    x, values = build_outputs(targets), []
    for factor in (1, 3):
        torch.manual_seed(0)
        config = ObjectiveConfig(**{field: factor * getattr(ObjectiveConfig(), field)})
        values.append(
            Objective(config=config, feature_channels=CHANNELS)(**x, targets=targets, counts=targets.counts())
        )
    related = {"cross_entropy", "stuff_dice"} if field == "stuff" else {term}
    for name in values[0].keys() - {"total"}:
        scale = 3 if name in related else 1
        assert values[1][name].item() == pytest.approx(scale * values[0][name].item(), rel=1e-6), name


@pytest.mark.parametrize(("multi_class_dice", "inter", "intra"), TABLE_3)
def test_eq7_rows_of_table_3(scenes, multi_class_dice, inter, intra):
    """A task that is off has no term and no parameter; the heads are the 0.1 M between 42.2 M and 42.3 M."""
    config = ObjectiveConfig(
        multi_class_dice=multi_class_dice,
        inter_class_contour=20.0 if inter else 0.0,
        intra_class_triplet=1.0 if intra else 0.0,
    )
    targets = build_targets(scenes)
    objective = Objective(config=config, feature_channels=CHANNELS)
    losses = objective(**build_outputs(targets), targets=targets, counts=targets.counts())
    switched = {"stuff_dice": multi_class_dice, "contour": inter, "triplet": intra}
    on = {name for name, value in switched.items() if value}
    assert losses.keys() == {"class", "cross_entropy", "things", "total"} | on
    full = Objective(config=config, feature_channels=256)
    assert sum(p.numel() for p in full.parameters()) == sum(HEADS.get(name, 0) for name in on)
    for parameter in objective.parameters():
        assert torch.autograd.grad(losses["total"], parameter, retain_graph=True)[0].abs().max() > 0


@pytest.mark.parametrize("semantic_stride", [1, 4])
@pytest.mark.parametrize("semantic_classes", ["stuff", "stuff+thing", "all"])
def test_eq7_does_not_depend_on_how_the_step_is_split(scenes, semantic_classes, semantic_stride):
    config = ObjectiveConfig(semantic_classes=semantic_classes, semantic_stride=semantic_stride)
    targets = build_targets(scenes, config)
    x, counts = build_outputs(targets, config), targets.counts()
    torch.manual_seed(0)
    objective = Objective(config=config, feature_channels=CHANNELS)
    whole = objective(**x, targets=targets, counts=counts)
    halves = []
    for images in ([0, 1], [2, 3]):
        arguments, piece = part(x, targets, images)
        halves.append(objective(**arguments, targets=piece, counts=counts))
    for name, value in whole.items():
        assert (halves[0][name] + halves[1][name]).item() == pytest.approx(value.item(), rel=1e-6), name


def test_eq7_counts_of_the_parts_add_up(scenes):
    targets = build_targets(scenes)
    parts = [part(build_outputs(targets), targets, images)[1].counts() for images in ([0], [1, 2], [3])]
    assert tuple(map(sum, zip(*parts, strict=True))) == targets.counts()


EMPTY = {
    "no instance": {"things": 0},
    "no stuff": {"stuff": 0},
    "one instance": {"things": 1},
    "only a crowd": {"things": 1, "crowd": 1},
    "nothing": {"things": 0, "stuff": 0},
}


@pytest.mark.parametrize("semantic_classes", ["stuff", "stuff+thing", "all"])
@pytest.mark.parametrize("case", EMPTY)
def test_eq7_empty_cases(scene, case, semantic_classes):
    """Every term and its gradient are finite; a term without items is zero."""
    config = ObjectiveConfig(semantic_classes=semantic_classes)
    targets = build_targets([scene(0, **EMPTY[case])], config)
    x = build_outputs(targets, config)
    leaves = [*x["class_logits"], *x["thing_logits"], x["stuff_logits"], x["phi"]]
    for leaf in leaves:
        leaf.requires_grad_()
    objective = Objective(config=config, feature_channels=CHANNELS)
    losses = objective(**x, targets=targets, counts=targets.counts())
    losses["total"].backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves)
    assert losses["triplet"].item() == 0 or EMPTY[case].get("things", 4) > 1
    if EMPTY[case].get("things") == 0 or EMPTY[case].get("crowd"):
        assert losses["things"].item() == 0
    if case == "nothing":
        assert losses["cross_entropy"].item() == losses["stuff_dice"].item() == losses["class"].item() == 0


def test_eq7_an_instance_of_one_pixel():
    segment_map = torch.full((32, 32), 2, dtype=torch.int32)
    segment_map[12, 20] = 1  # the pixel at the centre of a cell of stride 8
    targets = build_targets([(segment_map, torch.tensor([1, 3]), torch.tensor([False, False]))])
    image = targets.images[0]
    assert image.sample_instance.tolist() == [0, 0]  # on both levels of stride 8
    assert float(image.masks.sum()) == 1 / 16
    losses = Objective(config=ObjectiveConfig(), feature_channels=CHANNELS)(
        **build_outputs(targets), targets=targets, counts=targets.counts()
    )
    assert all(torch.isfinite(value) for value in losses.values())
    assert 0.9 < losses["things"].item() / 5 <= 1


def test_eq7_void_and_crowds_do_not_judge_thing_masks(scenes):
    """Void and crowd pixels are ignored in the mask loss; other pixels are not."""
    targets = build_targets(scenes)
    x, counts = build_outputs(targets), targets.counts()
    objective = Objective(config=ObjectiveConfig(), feature_channels=CHANNELS)
    before = objective(**x, targets=targets, counts=counts)["things"].item()
    crowded = targets.images[3]
    assert 0 < int((~crowded.valid).sum()) < crowded.valid.numel()
    for where, same in ((~crowded.valid, True), (crowded.valid, False)):
        changed = dict(x, thing_logits=[*x["thing_logits"][:3], x["thing_logits"][3] + 3.0 * where])
        after = objective(**changed, targets=targets, counts=counts)["things"].item()
        assert (after == before) is same


def test_eq7_ends_with_less_loss_where_the_prediction_is_right(scenes):
    """Logits made from the ground truth give supervised terms near zero."""
    targets = build_targets(scenes, ObjectiveConfig(semantic_stride=4))
    one_hot = torch.stack([targets.semantic == c for c in range(7)], 1).float()
    right = {
        "class_logits": [
            20 * torch.stack([level == c for c in range(3)], 1).float() - 10.0 for level in targets.classes
        ],
        "thing_logits": [20 * (t.masks[t.sample_instance] > 0.5).float() - 10 for t in targets.images],
        "stuff_logits": 20 * one_hot,
        "phi": build_outputs(targets)["phi"],
    }
    objective = Objective(config=ObjectiveConfig(semantic_stride=4), feature_channels=CHANNELS)
    good = objective(**right, targets=targets, counts=targets.counts())
    bad = objective(**build_outputs(targets), targets=targets, counts=targets.counts())
    for name in ("class", "cross_entropy", "stuff_dice", "things"):
        assert good[name].item() < 0.1 * bad[name].item(), name
