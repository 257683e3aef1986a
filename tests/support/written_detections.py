"""The detections that an evaluation left in its folder."""

import gzip
import json

from detect.evaluate import DETECTIONS


def written_detections(folder):
    return json.loads(gzip.decompress((folder / DETECTIONS).read_bytes()))
