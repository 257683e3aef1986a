"""Grey of 16 bits loses its lower half, and does not turn white; what has 32 bits is refused."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from classify.data.decode import Crop, centre, random_part, to_rgb


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_the_upper_8_of_16_bits(order):
    image = Image.fromarray(np.array([[0, 255, 256, 65535]], dtype=np.uint16))
    if order == ">u2":
        raw = np.array([[0, 255, 256, 65535]], dtype=order).tobytes()
        image = Image.frombytes("I;16B", (4, 1), raw)
    assert np.asarray(to_rgb(image))[0].tolist() == [[0] * 3, [0] * 3, [1] * 3, [255] * 3]


def test_classifiers_see_them_so():
    content = BytesIO()
    Image.fromarray(np.full((40, 40), 0x8081, dtype=np.uint16)).save(content, "PNG")
    image = Image.open(content)
    assert centre(image, Crop.of(32)).unique().tolist() == [0x80]
    assert random_part(image, 32, seed=0).unique().tolist() == [0x80]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bits_are_refused(mode):
    with pytest.raises(ValueError, match=f"mode {mode} has 32 bits a pixel"):
        to_rgb(Image.new(mode, (2, 2)))
