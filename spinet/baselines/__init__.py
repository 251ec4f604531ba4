"""The systems that the paper compares with (Tables 1 and 2, §5.4), in SPINet's interface.

- Panoptic-FPN (`panoptic_fpn.py`, `mask_rcnn.py`, `merge.py`): FPN, Mask R-CNN and its losses from torchvision.
- Panoptic-DeepLab (`panoptic_deeplab.py`): ASPP from torchvision; stem 64-64-128, C5 at stride 16.
- UPSNet (`upsnet.py`, `mask_rcnn.py`): as Panoptic-FPN; deformable convolution and NMS from torchvision.
- CondInst + semantic branch (`condinst.py`, `fcos.py`, `merge.py`): FPN, FCOS heads, GIoU loss, NMS from torchvision.

All have timm's ResNet-50. Train them by::

    spinet train --system panoptic_fpn     --preset cityscapes_r50 --data data/cityscapes --out runs/panoptic_fpn
    spinet train --system panoptic_deeplab --preset cityscapes_r50 --data data/cityscapes --out runs/panoptic_deeplab
    spinet train --system upsnet           --preset cityscapes_r50 --data data/cityscapes --out runs/upsnet
    spinet train --system condinst         --preset cityscapes_r50 --data data/cityscapes --out runs/condinst

Each system trains in every preset, with its data, schedule and optimiser, so systems can be compared at the same
budget. The authors' own schedules are options: `--train.optimizer adamw --train.learning-rate 1e-3
--train.schedule poly` is close to Panoptic-DeepLab's. A system's own settings are `--baseline.…`
(`spinet/config/baselines.py`). `spinet evaluate`, `spinet predict` and `validate` work with the weights of any system;
`spinet info --system …` counts parameters.

All systems differ here from their authors' code in these points. Backbone and norm are the preset's; the ResNet-50
presets have the authors' stem. If an image was scaled for the network, the map is made at the network's resolution and
resized by nearest neighbours. Crowds are void. Images of a batch have one size. The docstring of each class lists other
differences.
"""
