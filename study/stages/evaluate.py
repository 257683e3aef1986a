"""The stage that scores a detector."""

from detect.cost import detector_params, part_macs
from detect.data import DetectionDataset, class_names
from detect.data.check import check_split, shared_images
from detect.data.loader import mean_image_size
from detect.data.open import image_memory, open_detection, open_for
from detect.evaluate import METRICS, evaluate_detector
from detect.marks import MIN_IOU, MIN_SCORE
from detect.mask_metrics import MASK_METRICS
from detect.pictures import draw_scenes
from detect.voc_metrics import VOC_METRICS
from pruning.errors import Refusal
from study.stages.detector import load_detector, trained_by
from study.stages.settings import Evaluate
from study.stages.stage import Context
from training.distributed import is_main


def run_evaluate(context: Context) -> dict[str, object]:
    """COCO's and VOC's metrics on the test split (`val` where rates are chosen), costs at its image size, pictures.

    Artifacts: detections.json.gz, pr.json (precision by recall at IoU 0.5), errors.json, matches.npz, detections/.
    """
    settings, parent = context.stage.read(Evaluate), context.stage.parents[0]
    if settings.classes is None:
        dataset = open_detection(settings.data, settings.split, context.data)
    else:
        dataset = open_for(settings.classes, settings.data, context.data)
    network, detector, cfg = load_detector(parent, context.runs, len(class_names(dataset)), device=context.device)
    scores = evaluate_detector(detector, cfg, dataset=dataset, out_dir=context.run.path)
    # the others have scored their share of the images, which is all that they are for
    if not is_main():
        return {}
    if settings.scenes:
        pictures = context.run.path / "detections"
        draw_scenes(detector, cfg, dataset=dataset, out_dir=pictures, count=settings.scenes)
    size = mean_image_size(dataset, cfg)
    macs = part_macs(detector, image_size=size, masks=network.masks).evaluation(cfg)
    backbone_params, params = detector_params(detector, network.masks)
    summary = dataset.split.summary()
    return {
        "metrics": {name: scores[name] for name in (*METRICS, *VOC_METRICS, *MASK_METRICS) if name in scores},
        "per_class": scores["per_class"],
        "voc_per_class": scores.get("voc_per_class"),
        "data": summary | {"notes": [*summary["notes"], *_shared_images(context, dataset)]},
        "evaluation": {
            "split": settings.split,
            "images": scores["images"],
            "boxes": scores["boxes"],
            "detections": scores["detections"],
            "image_size": list(size),
            "metric": scores["metric"],
        },
        **({"pictures": {"min_score": MIN_SCORE, "iou": MIN_IOU}} if settings.scenes else {}),
        "costs": {
            "backbone_params": backbone_params,
            "backbone_macs": macs.backbone,
            "detector_params": params,
            "detector_macs": macs.total,
        },
        "train_macs": 0,
    }


def _shared_images(context: Context, dataset: DetectionDataset) -> list[str]:
    """What a result has to say about images that were trained on; without `allow_shared` there are none."""
    settings = context.stage.read(Evaluate)
    data = settings.data
    if not data.get("allow_shared"):
        return []
    memory = image_memory(context.data)
    trained_on = data if settings.classes is None else trained_by(context.stage.parents[0]).settings["data"]
    try:
        train = check_split(open_detection(trained_on, "train", context.data).split, memory)
    except (Refusal, OSError) as error:
        return [f"how many images of the {settings.split} split are in training too is not known: {error}"]
    shared = sum(1 for _ in shared_images(train, check_split(dataset.split, memory)))
    there = f"{len(dataset.split.images)} images of the {settings.split} split"
    return [f"{shared} of {there} are in training too"] if shared else []
