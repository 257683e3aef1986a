"""Params, multiply-adds and Scratch-B epochs of the study's networks: each integer stands here once.

Source: the released code of Liu et al., Rethinking the Value of Network Pruning (ICLR 2019), run on current PyTorch.
"""

# params and MACs of the unpruned networks for ten classes at 32 pixels
CIFAR10 = {
    "resnet20": (269_722, 40_551_040),
    "resnet32": (464_154, 68_862_592),
    "resnet56": (853_018, 125_485_696),
    "resnet110": (1_727_962, 252_887_680),
    "vgg16_l1": (14_987_722, 313_463_808),
    "vgg16_slim": (14_724_042, 313_201_664),
    "vgg19_slim": (20_035_018, 398_136_320),
    "preresnet110": (1_146_842, 167_430_656),
    "preresnet164": (1_703_258, 247_646_720),
    "densenet40": (1_059_298, 282_917_328),
    "densenet_bc100": (769_162, 287_929_692),
}
# the same for a hundred classes
CIFAR100 = {
    "vgg16_slim": (14_770_212, 313_247_744),
    "preresnet110": (1_169_972, 167_453_696),
    "densenet40": (1_100_428, 282_958_368),
    "densenet_bc100": (800_032, 287_960_472),
}
# params alone
CIFAR100_PARAMS = {name: params for name, (params, _) in CIFAR100.items()} | {
    "resnet56": 858_868,
    "vgg19_slim": 20_081_188,
    "preresnet164": 1_726_388,
}
MNIST_PARAMS = {"lenet_300_100": 266_610, "lenet5": 431_080}
CONV_BIAS_PARAMS = {"vgg19_slim": 20_040_522, "vgg16_slim": 14_728_266}  # on CIFAR-10, as magnitude prunes them
# a thousand classes at 224 pixels
IMAGENET = {
    "resnet34": (21_797_672, 3_663_761_408),
    "resnet50": (25_557_032, 4_089_184_256),
    "preresnet50": (25_549_480, 4_089_184_256),
    "vgg16": (138_357_544, 15_470_264_320),
    "vgg16_bn": (138_365_992, 15_470_264_320),
    "vgg11_slim_imagenet": (132_885_224, 7_609_090_048),
}
PROJECTION_BIASES = 256 + 512 + 1024 + 2048  # of the released ResNet-50s; a pruned one has as many
RESNET50_WITH_BIASES = (IMAGENET["resnet50"][0] + PROJECTION_BIASES, IMAGENET["resnet50"][1])

# target: params, MACs, Scratch-B epochs
TARGETS = {
    "vgg16-A": (5_397_034, 206_279_680, 243),
    "resnet56-A": (773_336, 112_435_840, 178),
    "resnet56-B": (735_712, 90_907_264, 220),
    "resnet110-A": (1_688_522, 212_779_648, 190),
    "resnet110-B": (1_168_424, 155_124_352, 260),
    "resnet34-A": (20_151_764, 3_100_184_576, 106),
    "resnet34-B": (19_469_372, 2_782_269_440, 118),
    "thinet-vgg16-conv": (131_452_552, 4_791_205_888, 180),
    "thinet-vgg16-gap": (8_322_696, 4_668_084_224, 180),
    "thinet-vgg16-tiny": (1_325_368, 1_004_578_816, 180),
    "thinet-resnet50-30": (8_669_158, 1_166_283_835, 180),
    "thinet-resnet50-50": (12_385_704, 1_822_031_872, 180),
    "thinet-resnet50-70": (16_949_086, 2_601_392_356, 141),
    "vgg16-5x": (130_879_294, 3_515_283_520, 180),
    "resnet50-2x": (19_697_424, 2_730_129_076, 134),
    "sss-resnet41": (25_351_080, 3_472_621_568, 117),
    "sss-resnet32": (14_261_928, 2_817_523_712, 145),
    "sss-resnet26": (14_915_496, 2_278_031_360, 179),
}
TARGETS_CIFAR100 = {"vgg16-A": (5_443_204, 206_325_760), "resnet56-B": (741_562, 90_913_024)}

# output channels of the convolutions, in order
VGG16_A_WIDTHS = [32, 64, 128, 128, 256, 256, 256, 256, 256, 256, 256, 256, 256]
# by bottleneck: channels that the first convolution reads, its own, and the second one's
RESNET50_2X_WIDTHS = [
    *(35, 64, 55, 101, 51, 39, 97, 50, 37),
    *(144, 128, 106, 205, 105, 72, 198, 105, 72, 288, 128, 110),
    *(278, 256, 225, 418, 209, 147, 407, 204, 158, 423, 212, 155, 412, 211, 148, 595, 256, 213),
    *(606, 512, 433, 1222, 512, 437, 1147, 512, 440),
]
