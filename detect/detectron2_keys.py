"""Every key of Detectron2's config: who reads it here, or which key of ours does what it would do.

A key is in exactly one of READ, OURS and UNREAD (a test walks all of Detectron2's defaults), so none is taken and does
nothing. What READ and OURS say holds for the heads they name; for another head the key has no effect, and is refused.
"""

from collections.abc import Callable, Mapping

from detect.heads import HEADS, Head, heads_that

_ALL = tuple(HEADS)
_REGIONS = heads_that(lambda head: head.roi_heads)
_PYRAMIDS = heads_that(lambda head: head.pyramid)
_BOX_HEADS = heads_that(lambda head: head.box_head)
_CASCADES = heads_that(lambda head: head.roi_heads == "CascadeROIHeads")
_STANDARD = heads_that(lambda head: head.roi_heads == "StandardROIHeads")
_MASKED = heads_that(lambda head: head.masks)
_DENSE = heads_that(lambda head: not head.roi_heads)


def _keys(heads: tuple[str, ...], node: str, names: str) -> dict[str, tuple[str, ...]]:
    return {f"{node}.{name}" if node else name: heads for name in names.split()}


# read by Detectron2's own modules or by detect/, with the heads that read them
READ: dict[str, tuple[str, ...]] = {
    **_keys(_ALL, "", "VERSION VIS_PERIOD"),
    **_keys(_ALL, "MODEL", "KEYPOINT_ON LOAD_PROPOSALS"),
    **_keys(_ALL, "MODEL.ANCHOR_GENERATOR", "NAME OFFSET"),
    **_keys(_PYRAMIDS, "MODEL.FPN", "NORM FUSE_TYPE"),
    **_keys(_REGIONS, "MODEL.PROPOSAL_GENERATOR", "NAME MIN_SIZE"),
    **_keys(
        _REGIONS,
        "MODEL.RPN",
        "HEAD_NAME IN_FEATURES BOUNDARY_THRESH IOU_THRESHOLDS IOU_LABELS POSITIVE_FRACTION BBOX_REG_LOSS_TYPE"
        " BBOX_REG_LOSS_WEIGHT BBOX_REG_WEIGHTS SMOOTH_L1_BETA LOSS_WEIGHT NMS_THRESH CONV_DIMS",
    ),
    **_keys(
        _REGIONS,
        "MODEL.ROI_HEADS",
        "IN_FEATURES IOU_THRESHOLDS IOU_LABELS POSITIVE_FRACTION SCORE_THRESH_TEST NMS_THRESH_TEST PROPOSAL_APPEND_GT",
    ),
    **_keys(
        _REGIONS,
        "MODEL.ROI_BOX_HEAD",
        "BBOX_REG_LOSS_TYPE BBOX_REG_LOSS_WEIGHT SMOOTH_L1_BETA POOLER_RESOLUTION POOLER_SAMPLING_RATIO POOLER_TYPE"
        " CLS_AGNOSTIC_BBOX_REG USE_FED_LOSS USE_SIGMOID_CE",
    ),
    **_keys(tuple(h for h in _REGIONS if h not in _CASCADES), "MODEL.ROI_BOX_HEAD", "BBOX_REG_WEIGHTS"),
    **_keys(_STANDARD, "MODEL.ROI_BOX_HEAD", "TRAIN_ON_PRED_BOXES"),
    **_keys(_BOX_HEADS, "MODEL.ROI_BOX_HEAD", "NAME NUM_FC NUM_CONV CONV_DIM NORM"),
    **_keys(_CASCADES, "MODEL.ROI_BOX_CASCADE_HEAD", "BBOX_REG_WEIGHTS IOUS"),
    **_keys(
        _MASKED,
        "MODEL.ROI_MASK_HEAD",
        "NAME POOLER_RESOLUTION POOLER_SAMPLING_RATIO NUM_CONV CONV_DIM NORM CLS_AGNOSTIC_MASK POOLER_TYPE",
    ),
    **_keys(
        _DENSE,
        "MODEL.RETINANET",
        "IN_FEATURES NUM_CONVS IOU_THRESHOLDS IOU_LABELS PRIOR_PROB SCORE_THRESH_TEST TOPK_CANDIDATES_TEST"
        " NMS_THRESH_TEST BBOX_REG_WEIGHTS FOCAL_LOSS_GAMMA FOCAL_LOSS_ALPHA SMOOTH_L1_LOSS_BETA BBOX_REG_LOSS_TYPE"
        " NORM",
    ),
    **_keys(_ALL, "INPUT", "MIN_SIZE_TRAIN_SAMPLING FORMAT CROP.ENABLED CROP.TYPE CROP.SIZE"),
    **_keys(_ALL, "DATALOADER", "FILTER_EMPTY_ANNOTATIONS"),
    **_keys(_ALL, "SOLVER", "REFERENCE_WORLD_SIZE"),
    **_keys(_ALL, "TEST", "DETECTIONS_PER_IMAGE"),
    **_keys(_REGIONS, "TEST.AUG", "ENABLED MIN_SIZES MAX_SIZE FLIP"),
}

# Detectron2's key -> the key of ours that sets the same, below `detector`; read where ours is not set, with these heads
OURS: dict[str, tuple[str, tuple[str, ...]]] = {
    "MODEL.META_ARCHITECTURE": ("model.head", _ALL),
    "MODEL.ROI_HEADS.NAME": ("model.head", _REGIONS),
    "MODEL.MASK_ON": ("model.head", _ALL),
    "MODEL.FPN.IN_FEATURES": ("model.strides", _PYRAMIDS),
    "MODEL.RESNETS.OUT_FEATURES": ("model.strides", _ALL),
    "MODEL.ROI_HEADS.NUM_CLASSES": ("dataset: number of classes", _REGIONS),
    "MODEL.RETINANET.NUM_CLASSES": ("dataset: number of classes", _DENSE),
    "MODEL.RESNETS.NORM": ("model.norm", _ALL),
    "MODEL.BACKBONE.FREEZE_AT": ("model.freeze_at", _ALL),
    "MODEL.FPN.OUT_CHANNELS": ("model.fpn_channels", _PYRAMIDS),
    "MODEL.ANCHOR_GENERATOR.SIZES": ("model.anchor_sizes", _ALL),
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": ("model.anchor_ratios", _ALL),
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": ("model.rpn_batch_size", _REGIONS),
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": ("model.pre_nms_topk", _REGIONS),
    "MODEL.RPN.PRE_NMS_TOPK_TEST": ("model.pre_nms_topk", _REGIONS),
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": ("model.train_proposals", _REGIONS),
    "MODEL.RPN.POST_NMS_TOPK_TEST": ("model.test_proposals", _REGIONS),
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": ("model.roi_batch_size", _REGIONS),
    "MODEL.ROI_BOX_HEAD.FC_DIM": ("model.box_head_dim", _BOX_HEADS),
    "INPUT.MIN_SIZE_TRAIN": ("model.image_size", _ALL),
    "INPUT.MIN_SIZE_TEST": ("model.image_size", _ALL),
    "INPUT.MAX_SIZE_TRAIN": ("model.max_image_size", _ALL),
    "INPUT.MAX_SIZE_TEST": ("model.max_image_size", _ALL),
    "INPUT.RANDOM_FLIP": ("train.flip", _ALL),
    "DATALOADER.ASPECT_RATIO_GROUPING": ("train.group_by_aspect", _ALL),
}

_NOTHING = "nothing here reads it"
_KEYPOINTS = "detectors predict boxes and masks, no keypoints"
_SEGMENTS = "detectors predict boxes and masks, no segments"
_CLASSIFIER = "the backbone is the classifier: set classifier.arch and classifier.options"
_PROPOSALS = "proposals are the detector's own, none are read from files"
_DATA = "set detector.dataset"
_SOLVER = "the learning rate of all parameters follows detector.train.schedule"


def _unread(why: str, node: str, names: str) -> dict[str, str]:
    return {f"{node}.{name}" if node else name: why for name in names.split()}


# what nothing reads -> what to do instead
UNREAD: dict[str, str] = {
    **_unread("set machine.device", "MODEL", "DEVICE"),
    **_unread("set classifier.weights", "MODEL", "WEIGHTS"),
    **_unread("pixels are normalised as the classifier's", "MODEL", "PIXEL_MEAN PIXEL_STD"),
    **_unread("boxes are not rotated", "MODEL", "ANCHOR_GENERATOR.ANGLES"),
    **_unread(
        "the federated loss needs a data set registered with Detectron2",
        "MODEL.ROI_BOX_HEAD",
        "FED_LOSS_FREQ_WEIGHT_POWER FED_LOSS_NUM_CLASSES",
    ),
    **_unread(
        "masks are polygons, or bitmaps where outlines are run lengths or images are cropped", "INPUT", "MASK_FORMAT"
    ),
    **_unread(
        _KEYPOINTS,
        "MODEL.ROI_KEYPOINT_HEAD",
        "NAME POOLER_RESOLUTION POOLER_SAMPLING_RATIO CONV_DIMS NUM_KEYPOINTS MIN_KEYPOINTS_PER_IMAGE"
        " NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS LOSS_WEIGHT POOLER_TYPE",
    ),
    **_unread(_KEYPOINTS, "TEST", "KEYPOINT_OKS_SIGMAS"),
    **_unread(
        _SEGMENTS,
        "MODEL.SEM_SEG_HEAD",
        "NAME IN_FEATURES IGNORE_VALUE NUM_CLASSES CONVS_DIM COMMON_STRIDE NORM LOSS_WEIGHT",
    ),
    **_unread(
        _SEGMENTS,
        "MODEL.PANOPTIC_FPN",
        "INSTANCE_LOSS_WEIGHT COMBINE.ENABLED COMBINE.OVERLAP_THRESH COMBINE.STUFF_AREA_LIMIT"
        " COMBINE.INSTANCES_CONFIDENCE_THRESH",
    ),
    **_unread(_CLASSIFIER, "MODEL", "BACKBONE.NAME"),
    **_unread(
        _CLASSIFIER,
        "MODEL.RESNETS",
        "DEPTH NUM_GROUPS WIDTH_PER_GROUP STRIDE_IN_1X1 RES5_DILATION RES2_OUT_CHANNELS STEM_OUT_CHANNELS"
        " DEFORM_ON_PER_STAGE DEFORM_MODULATED DEFORM_NUM_GROUPS",
    ),
    **_unread(_DATA, "DATASETS", "TRAIN TEST"),
    **_unread(
        _PROPOSALS,
        "DATASETS",
        "PROPOSAL_FILES_TRAIN PRECOMPUTED_PROPOSAL_TOPK_TRAIN PROPOSAL_FILES_TEST PRECOMPUTED_PROPOSAL_TOPK_TEST",
    ),
    **_unread("set machine.workers", "DATALOADER", "NUM_WORKERS"),
    **_unread(
        "set detector.train.repeat_threshold, whose factors are square roots",
        "DATALOADER",
        "SAMPLER_TRAIN REPEAT_THRESHOLD REPEAT_SQRT",
    ),
    **_unread("set detector.train.iterations", "SOLVER", "MAX_ITER"),
    **_unread("set detector.train.lr", "SOLVER", "BASE_LR"),
    **_unread("set detector.train.batch_size", "SOLVER", "IMS_PER_BATCH"),
    **_unread("set detector.train.momentum", "SOLVER", "MOMENTUM"),
    **_unread("set detector.train.weight_decay", "SOLVER", "WEIGHT_DECAY"),
    **_unread("set detector.train.gamma", "SOLVER", "GAMMA"),
    **_unread("set detector.train.milestones", "SOLVER", "STEPS NUM_DECAYS"),
    **_unread("set detector.train.schedule", "SOLVER", "LR_SCHEDULER_NAME BASE_LR_END RESCALE_INTERVAL"),
    **_unread("set detector.train.warmup", "SOLVER", "WARMUP_ITERS WARMUP_FACTOR WARMUP_METHOD"),
    **_unread(
        "set detector.train.clip_norm",
        "SOLVER.CLIP_GRADIENTS",
        "ENABLED CLIP_TYPE CLIP_VALUE NORM_TYPE",
    ),
    **_unread("set machine.precision", "SOLVER", "AMP.ENABLED"),
    **_unread("set machine.precision", "", "FLOAT32_PRECISION"),  # of Detectron2 since 2024, which our wheel lacks
    **_unread("set machine.checkpoint_minutes", "SOLVER", "CHECKPOINT_PERIOD"),
    **_unread("SGD is without Nesterov's momentum", "SOLVER", "NESTEROV"),
    **_unread("normalisation layers do not decay", "SOLVER", "WEIGHT_DECAY_NORM"),
    **_unread(_SOLVER, "SOLVER", "BIAS_LR_FACTOR"),
    **_unread("set detector.train.weight_decay, which biases share", "SOLVER", "WEIGHT_DECAY_BIAS"),
    **_unread("a detector is evaluated once, at the end", "TEST", "EXPECTED_RESULTS EVAL_PERIOD"),
    **_unread("batch statistics are those of training", "TEST", "PRECISE_BN.ENABLED PRECISE_BN.NUM_ITER"),
    **_unread("set --runs", "", "OUTPUT_DIR"),
    **_unread("set seeds (of a study) or seed (of one detector)", "", "SEED"),
    **_unread(_NOTHING, "", "CUDNN_BENCHMARK GLOBAL.HACK"),
}

# Values of unread keys that ask for what is done anyway
AS_IT_IS: Mapping[str, object] = {
    "DATALOADER.SAMPLER_TRAIN": "TrainingSampler",
    "DATALOADER.REPEAT_THRESHOLD": 0.0,
    "SOLVER.NESTEROV": False,
    "SOLVER.WEIGHT_DECAY_NORM": 0.0,
    "SOLVER.BIAS_LR_FACTOR": 1.0,
    "TEST.EVAL_PERIOD": 0,
    "TEST.PRECISE_BN.ENABLED": False,
}

_NORMS = ("", "BN", "SyncBN", "FrozenBN", "GN", "LN")
_BOX_LOSSES = ("smooth_l1", "giou", "diou", "ciou")

# The values that a key that is read may have, where Detectron2 would say nothing, or fail late
CHOICES: dict[str, tuple[object, ...]] = {
    "VERSION": (2,),
    "VIS_PERIOD": (0,),
    "MODEL.KEYPOINT_ON": (False,),
    "MODEL.LOAD_PROPOSALS": (False,),
    "MODEL.META_ARCHITECTURE": ("GeneralizedRCNN", "RetinaNet"),
    "MODEL.PROPOSAL_GENERATOR.NAME": ("RPN", "BatchedRPN"),
    "MODEL.ANCHOR_GENERATOR.NAME": ("DefaultAnchorGenerator",),
    "MODEL.RPN.HEAD_NAME": ("StandardRPNHead",),
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": _BOX_LOSSES,
    "MODEL.ROI_HEADS.NAME": ("StandardROIHeads", "CascadeROIHeads", "Res5ROIHeads"),
    "MODEL.ROI_BOX_HEAD.NAME": ("FastRCNNConvFCHead", "ConvolvedBoxHead"),
    "MODEL.ROI_MASK_HEAD.NAME": ("MaskRCNNConvUpsampleHead",),
    "MODEL.ROI_MASK_HEAD.NORM": _NORMS,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": ("ROIAlignV2", "ROIAlign", "ROIPool"),
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": ("ROIAlignV2", "ROIAlign", "ROIPool"),
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": _BOX_LOSSES,
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": (False,),
    "MODEL.ROI_BOX_HEAD.NORM": _NORMS,
    "MODEL.RETINANET.NORM": _NORMS,
    "MODEL.RETINANET.BBOX_REG_LOSS_TYPE": _BOX_LOSSES,
    "MODEL.FPN.NORM": _NORMS,
    "MODEL.FPN.FUSE_TYPE": ("sum", "avg"),
    "MODEL.RESNETS.NORM": ("FrozenBN", "BN", "SyncBN", "GN"),
    "INPUT.FORMAT": ("RGB",),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": ("choice", "range"),
    "INPUT.CROP.TYPE": ("relative", "relative_range", "absolute", "absolute_range"),
    "INPUT.RANDOM_FLIP": ("none", "horizontal", "vertical"),
}

# Why a value outside CHOICES is none, where the choices alone do not say it
BECAUSE: dict[str, str] = {
    "VIS_PERIOD": "pictures are drawn at the end: set evaluate.scenes",
    "MODEL.KEYPOINT_ON": _KEYPOINTS,
    "MODEL.LOAD_PROPOSALS": _PROPOSALS,
    "MODEL.META_ARCHITECTURE": "detectors predict boxes and masks only",
    "MODEL.PROPOSAL_GENERATOR.NAME": "rotated boxes and proposals from files are not supported",
    "MODEL.ANCHOR_GENERATOR.NAME": "boxes are not rotated",
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "boxes are not rotated",
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": "the federated loss needs a data set registered with Detectron2",
    "INPUT.FORMAT": "the classifier was trained on RGB",
}

# what a head is by Detectron2's names
HEAD_BY: dict[str, Callable[[Head], object]] = {
    "MODEL.META_ARCHITECTURE": lambda head: "GeneralizedRCNN" if head.roi_heads else "RetinaNet",
    "MODEL.ROI_HEADS.NAME": lambda head: "Res5ROIHeads" if head.roi_heads == "StageROIHeads" else head.roi_heads,
    "MODEL.MASK_ON": lambda head: head.masks,
}
