"""The systems that the paper compares with (Tables 1 and 2, §5.4), in SPINet's interface: network, losses, a rule.

- Panoptic-FPN (`panoptic_fpn.py`, `mask_rcnn.py`, `merge.py`): FPN, Mask R-CNN and its losses from torchvision.
- Panoptic-DeepLab (`panoptic_deeplab.py`): ASPP from torchvision; stem 64-64-128, C5 at stride 16.
- UPSNet (`upsnet.py`, `mask_rcnn.py`): as Panoptic-FPN; deformable convolution and NMS from torchvision.
- CondInst + semantic branch (`condinst.py`, `fcos.py`, `merge.py`): FPN, FCOS heads, GIoU loss, NMS from torchvision.

All have timm's ResNet-50. Train them by::

    spinet train --system panoptic_fpn     --preset cityscapes_r50 --data data/cityscapes --out runs/panoptic_fpn
    spinet train --system panoptic_deeplab --preset cityscapes_r50 --data data/cityscapes --out runs/panoptic_deeplab
    spinet train --system upsnet           --preset cityscapes_r50 --data data/cityscapes --out runs/upsnet
    spinet train --system condinst         --preset cityscapes_r50 --data data/cityscapes --out runs/condinst

Each trains in every preset, with its data, schedule and optimiser, so that systems can be compared at the same budget;
the authors' own are options, such as `--train.optimizer adamw --train.learning-rate 1e-3 --train.schedule poly`, near
Panoptic-DeepLab's. A system's own numbers are `--baseline.…` (`config.py`). `spinet evaluate`, `spinet predict` and
`validate` take the weights as they are; `spinet info --system …` counts parameters.

What the systems have in common here and not in their authors' code: the backbone and its norm are the preset's, in the
ResNet-50 presets the authors' stem; nearest-neighbour resizing where an image is scaled for the network, after the map
is read at the network's resolution; crowds are void; images of a batch have one size. What else differs stands in the
docstring of its class.
"""
