import base64
import io

import numpy as np
import pytest
from PIL import Image

from ramstrans.evaluation.report.photographs import (
    MARKUP,
    THUMB_MARKUP,
    encoded,
    picture_of,
    seen_pictures,
    thumbnails,
    with_saliency,
)
from ramstrans.evaluation.views import ScaleViews
from tests.evaluation.builders import FakeSource, noise


def decoded(uri):
    assert uri.startswith("data:image/webp;base64,")
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_a_photograph_becomes_smaller_until_it_fits():
    image = noise(0, (512, 384))
    sizes = []
    for limit in (100_000, 20_000, 9_000, 4_500):
        uri = encoded(image, limit)
        assert len(uri) <= limit
        sizes.append(decoded(uri).size)
    assert sizes[0] == (256, 192)
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 4
    assert encoded(image, 300) is None


def test_a_small_photograph_is_not_enlarged():
    assert decoded(encoded(noise(0, (17, 13)), 9999)).size == (17, 13)


@pytest.mark.parametrize(("max_bytes", "most", "classes"), [(400_000, 3, 20), (58_000, 1, 20), (9_000, 1, 9)])
def test_photographs_of_classes_share_what_there_is(max_bytes, most, classes):
    """First fewer of each class, then smaller ones, and in the end only of the first classes."""
    chosen = {label: [3 * label, 3 * label + 1, 3 * label + 2] for label in range(20, 0, -1)}
    found = thumbnails(FakeSource(), chosen, max_bytes)
    assert max(len(pictures) for pictures in found.values()) == most
    assert list(found) == list(chosen)[: len(found)]
    assert len(found) <= classes
    assert sum(len(uri) + THUMB_MARKUP for pictures in found.values() for _, uri in pictures) <= max_bytes
    assert all(pictures[0][0] == 3 * label for label, pictures in found.items())


def test_pictures_of_all_scales_and_photographs_stay_within_their_limit():
    for limit in (40_000, 400_000):
        found = seen_pictures(FakeSource(), [0, 1], [1, 2, 2], limit)
        assert list(found) == [0, 1, 2]
        assert found[2].saliency is None
        assert len(found[0].crops) == 1
        uris = [seen.photograph for seen in found.values()]
        uris += [uri for index in (0, 1) for uri in (found[index].saliency, *found[index].crops[0])]
        assert sum(map(len, uris)) + MARKUP * len(uris) <= limit
        assert decoded(found[0].photograph).size[0] > decoded(found[0].photograph).size[1]
    assert seen_pictures(FakeSource(), [0], [], 2000) == {}


def test_one_scale_has_a_photograph_and_a_saliency():
    image = noise(0, (40, 30))
    views = ScaleViews(image, (80, 60), (image,), ((0.0, 0.0, 80.0, 60.0),), (np.eye(3),))
    seen = picture_of(views, 99_999)
    assert seen.saliency
    assert seen.crops == ()


def test_saliency_is_bright_where_it_is_high_and_grey_where_it_is_not_finite():
    image = Image.new("RGB", (40, 40), (90, 90, 90))
    values = np.zeros((4, 4))
    values[0, 3] = 1
    drawn = np.asarray(with_saliency(image, values)).astype(int)
    assert drawn[3, 36].sum() > 1.5 * drawn[36, 3].sum()
    assert (np.asarray(with_saliency(image, np.full((4, 4), np.nan))) == 90).all()
    assert np.asarray(with_saliency(image, np.zeros((4, 4)))).std() < 60  # no division by zero
