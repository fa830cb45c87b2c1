import io
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from threading import Barrier

import numpy as np
import pytest
import torch
from PIL import Image

from ramstrans.data.loading.dataset import ImageDataset, to_example
from ramstrans.data.loading.loader import build_loader
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.reading import decode as decoding
from ramstrans.data.records import Record
from ramstrans.errors import UnreadableImageError, UsageError
from ramstrans.evaluation.predict import predict_split
from ramstrans.inference.inputs import read_input
from ramstrans.inference.predictor import Predictor
from ramstrans.inference.writers import to_row
from ramstrans.saved.metadata import EarlyExit
from ramstrans.saved.model import load_metadata, save_metadata
from tests.inference.builders import NAMES, draw, make_folder

SIZES = [(97, 71), (71, 97), (300, 61), (64, 64), (59, 173), (41, 43), (211, 101)]


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return Predictor.load(make_folder(tmp_path_factory.mktemp("run")), "cpu")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return [draw(folder / f"{i}.png", *size, seed=i) for i, size in enumerate(SIZES)]


def assert_same(one, other, *, tolerance=1e-5):
    assert one.labels == other.labels
    np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=tolerance)
    for a, b in zip(one.scales, other.scales, strict=True):
        assert (a.labels, a.has_region) == (b.labels, b.has_region)
        assert (a.box is None) == (b.box is None)
        if a.box is not None:
            np.testing.assert_allclose(a.box, b.box, atol=1e-3)


def view_of(predictor, path):
    """The view of a file that the predictor's model sees."""
    preprocessing = predictor.metadata.preprocessing
    resized = read_input(path, preprocessing, predictor.max_pixels)
    return to_example(resized, preprocessing, predictor.model.image_size).view


def test_load_needs_only_the_folder(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was used")

    folder = make_folder(tmp_path / "run")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    predictor = Predictor.load(str(folder), "cpu")
    assert predictor.class_names == NAMES
    assert predictor.metadata.model.num_scales == 2


@pytest.mark.parametrize("zoom_source", ["input", "full", "native"])
@pytest.mark.parametrize("num_scales", [1, 2, 3])
def test_predicts_what_the_evaluation_predicts(tmp_path, paths, zoom_source, num_scales):
    preprocessing = Preprocessing(61, (53, 37), zoom_pixels=5000 if zoom_source == "native" else None)
    folder = make_folder(
        tmp_path, zoom_source=zoom_source, num_scales=num_scales, preprocessing=preprocessing
    )
    predictor = Predictor.load(folder, "cpu")
    preprocessing, size = predictor.metadata.preprocessing, predictor.model.image_size
    dataset = ImageDataset([Record(path, 0, "test") for path in paths], preprocessing, size)
    for index, path in enumerate(paths):
        ours, theirs = view_of(predictor, path), dataset[0, index].view
        assert torch.equal(ours.image, theirs.image)
        assert torch.equal(ours.high_res, theirs.high_res)
        assert ours.geometry == theirs.geometry
    with_high_res = predictor.metadata.model.needs_high_res
    loader = build_loader(dataset, 3, shuffle=False, with_high_res=with_high_res)
    expected = predict_split(predictor.model, loader)
    for i, prediction in enumerate(predictor(paths, top_k=len(NAMES), batch_size=3)):
        scores = [*expected.probabilities[:, i], expected.fused[i]]
        for ours, theirs in zip([*prediction.scales, prediction], scores, strict=True):
            by_name = dict(zip(ours.labels, ours.probabilities, strict=True))
            assert [by_name[name] for name in NAMES] == pytest.approx(theirs, abs=1e-7)
            assert list(ours.probabilities) == sorted(ours.probabilities, reverse=True)
        *before, last = prediction.scales
        assert (last.box, last.has_region) == (None, None)  # no look follows
        boxes = [scale.box for scale in before]
        if before:
            np.testing.assert_allclose(boxes, expected.boxes[:, i], atol=1e-3)
            assert [scale.has_region for scale in before] == expected.has_region[:, i].tolist()
        for x0, y0, x1, y1 in boxes:
            assert 0 <= x0 < x1 <= expected.image_sizes[i, 0]
            assert 0 <= y0 < y1 <= expected.image_sizes[i, 1]


@pytest.mark.parametrize("method", ["plain", "rams", "transfg", "ffvt", "glsim", "calcrop"])
def test_one_look_has_no_region_however_it_is_asked(tmp_path, paths, method):
    """A region counts where a look follows, here in `glsim` alone; predicted, in a batch and explained."""
    more = {"num_scales": 1} if method == "rams" else {}
    if method in ("transfg", "ffvt", "glsim"):
        more = {"image_size": 32}
    predictor = Predictor.load(make_folder(tmp_path, method=method, zoom_source="input", **more), "cpu")
    explained = [predictor.explain(path).prediction for path in paths[:3]]
    found = [*map(predictor, paths[:3]), *predictor(paths[:3])]
    for one, other in zip(found, 2 * explained, strict=True):
        assert_same(one, other)
        assert (one.scales[0].box is not None) == (method == "glsim")
        assert (to_row(one, 1)["has_region"] is not None) == (method == "glsim")


@pytest.mark.parametrize("orientation", [1, 6])
def test_large_jpegs_are_reduced_as_in_the_evaluation_and_decoded_once(
    predictor, tmp_path, monkeypatch, orientation
):
    exif, decoded, decode = Image.Exif(), [], decoding.decode_reduced
    exif[0x0112] = orientation

    def recorded(*args, **options):
        decoded.append(decode(*args, **options))
        return decoded[-1]

    path = draw(tmp_path / "large.jpg", 1201, 977, exif=exif)
    preprocessing, size = predictor.metadata.preprocessing, predictor.model.image_size
    theirs = ImageDataset([Record(path, 0, "test")], preprocessing, size)[0, 0].view
    monkeypatch.setattr(decoding, "decode_reduced", recorded)
    explanation = predictor.explain(path)
    assert [sorted(result.image.size) for result in decoded] == [[123, 151]]
    ours = view_of(predictor, path)
    assert torch.equal(ours.image, theirs.image)
    assert torch.equal(ours.high_res, theirs.high_res)
    assert ours.geometry == theirs.geometry
    assert explanation.views.size == ((1201, 977) if orientation == 1 else (977, 1201))
    assert (explanation.views.image.width > explanation.views.image.height) == (orientation == 1)
    assert np.array_equal(np.asarray(explanation.views.crops[0]), ours.image.permute(1, 2, 0).numpy())
    first = predictor(path).scales[0].box
    assert first == explanation.prediction.scales[0].box
    assert max(first) > 151


@pytest.mark.parametrize("zoom_source", ["input", "full", "native"])
def test_regions_within_regions_in_original_pixels(tmp_path, zoom_source):
    # 200 x 100 -> 100 x 50 -> its middle 50 x 50, which is (50, 0, 150, 100) of the original -> 32 x 32.
    preprocessing = Preprocessing(50, (50, 50), zoom_pixels=10**6 if zoom_source == "native" else None)
    folder = make_folder(
        tmp_path / "run", preprocessing=preprocessing, image_size=32, num_scales=3, zoom_source=zoom_source
    )
    predictor = Predictor.load(folder, "cpu")
    maps = iter(torch.tensor([[[[0.0, 9], [0, 0]]], [[[9.0, 0], [0, 0]]], [[[1.0, 1], [1, 1]]]]))
    predictor.model.saliency = lambda _: next(maps)
    explanation = predictor.explain(draw(tmp_path / "wide.png", 200, 100))
    first, second, third = explanation.prediction.scales
    assert first.box == pytest.approx((100, 0, 150, 50))
    assert second.box == pytest.approx((100, 0, 125, 25))
    assert (first.has_region, second.has_region) == (True, True)
    assert (third.box, third.has_region) == (None, None)  # a region that no scale sees
    assert explanation.views.crop_boxes == (pytest.approx((50, 0, 150, 100)), first.box, second.box)
    assert [saliency.tolist() for saliency in explanation.views.saliencies][1] == [[9, 0], [0, 0]]


@pytest.mark.parametrize(("zoom_source", "zoom_pixels"), [("full", None), ("native", 5000)])
def test_crops_are_what_the_model_saw(tmp_path, paths, zoom_source, zoom_pixels):
    preprocessing = Preprocessing(61, (53, 37), zoom_pixels=zoom_pixels)
    folder = make_folder(tmp_path, zoom_source=zoom_source, num_scales=3, preprocessing=preprocessing)
    predictor = Predictor.load(folder, "cpu")
    seen = []
    predictor.model.encoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0][0]))
    explanation = predictor.explain(paths[0])
    mean = torch.tensor(predictor.model.encoder.mean)[:, None, None]
    std = torch.tensor(predictor.model.encoder.std)[:, None, None]
    assert len(seen) == len(explanation.views.crops) == 3
    for tensor, crop in zip(seen, explanation.views.crops, strict=True):
        pixels = ((tensor * std + mean) * 255).permute(1, 2, 0).numpy()
        np.testing.assert_allclose(np.asarray(crop), pixels, atol=0.51)
    assert explanation.views.size == SIZES[0]
    assert_same(explanation.prediction, predictor(paths[0]))
    assert [saliency.shape for saliency in explanation.views.saliencies] == [(3, 2)] * 3


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_order_is_kept_whatever_the_batch(predictor, paths, batch_size):
    many = [paths[i] for i in (3, 0, 6, 1, 1, 5, 2, 4, 0)]
    predictions = predictor(many, batch_size=batch_size)
    assert [prediction.path for prediction in predictions] == many
    for path, prediction in zip(many, predictions, strict=True):
        assert_same(prediction, predictor(path))
    assert predictor([]) == []


def test_unreadable_files_keep_their_position(predictor, paths, tmp_path):
    broken, missing = tmp_path / "broken.jpg", tmp_path / "missing.jpg"
    broken.write_bytes(draw(tmp_path / "whole.jpg", 97, 83).read_bytes()[:200])
    empty = tmp_path / "empty.png"
    empty.touch()
    thread = draw(tmp_path / "thread.png", 1, 60_000)
    mixed = [broken, paths[0], missing, empty, paths[1], tmp_path, thread]
    predictions = predictor([str(path) for path in mixed], batch_size=2)
    assert [prediction.path for prediction in predictions] == mixed
    errors = [prediction.error for prediction in predictions]
    assert errors[1] is None
    assert errors[4] is None
    for index, word in ((0, "file|damaged"), (2, "no such"), (3, "empty"), (5, "folder"), (6, "elongated")):
        assert any(part in errors[index] for part in word.split("|")), errors
        assert predictions[index][1:4] == ((), (), ())
    assert_same(predictions[4], predictor(paths[1]))
    with pytest.raises(UnreadableImageError, match="empty"):
        predictor.explain(empty)


def test_images_in_memory(predictor, paths, tmp_path):
    in_memory = predictor(Image.open(paths[2]))
    assert in_memory.path is None
    assert_same(in_memory, predictor(paths[2]))
    deep = Image.fromarray(np.arange(97 * 71, dtype=np.uint16).reshape(71, 97) * 9)
    deep.save(tmp_path / "deep.png")
    assert_same(predictor(deep), predictor(tmp_path / "deep.png"))
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(paths[2].read_bytes()[:-300])
    with Image.open(damaged) as unread:
        assert "damaged" in predictor(unread).error


def test_every_kind_of_image_is_predicted_alike(predictor, paths):
    expected = predictor(paths[3])
    pixels = np.asarray(Image.open(paths[3]))
    assert pixels.shape == (64, 64, 3)
    content = paths[3].read_bytes()
    opaque = np.concatenate([pixels, np.full((64, 64, 1), 255, np.uint8)], axis=2)
    kinds = [str(paths[3]), pixels, opaque, torch.from_numpy(pixels.copy()).permute(2, 0, 1), content]
    kinds += [bytearray(content), memoryview(content), io.BytesIO(content), np.asfortranarray(pixels)]
    for image, prediction in zip(kinds, predictor(kinds, batch_size=2), strict=True):
        assert_same(prediction, expected)
        assert prediction.path == (paths[3] if isinstance(image, str) else None)
    with paths[3].open("rb") as file:
        assert_same(predictor(file), expected)
    assert predictor.explain(content).prediction.labels == expected.labels
    with paths[2].open("rb") as file:  # what was read before is not seen again
        file.read(9)
        assert "known format" in predictor(file).error


def test_the_bytes_of_a_large_jpeg_are_read_as_its_file(predictor, tmp_path):
    path = draw(tmp_path / "large.jpg", 1201, 977)
    in_memory = predictor(path.read_bytes())
    assert in_memory._replace(path=path) == predictor(path)
    assert predictor(path.read_bytes()[:2000]).error
    assert predictor(b"").error == "empty file"


def test_grey_arrays_and_tensors_are_predicted_alike(predictor):
    grey = np.random.default_rng(0).integers(0, 256, (61, 67), dtype=np.uint8)
    expected = predictor(Image.fromarray(grey))
    for image in (grey, grey[..., None], np.dstack([grey] * 3), torch.from_numpy(grey)[None]):
        assert predictor(image) == expected


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (np.zeros((5, 7, 3)), r"an array of shape \(5, 7, 3\) and type float64; give"),
        (np.zeros((3, 5, 7), np.uint8), r"shape \(3, 5, 7\) and type uint8; give"),
        (np.zeros((2, 5, 7, 3), np.uint8), "several images in one: give a list of them"),
        (np.zeros((0, 7, 3), np.uint8), r"shape \(0, 7, 3\)"),
        (np.zeros((), np.uint8), r"shape \(\)"),
        (torch.zeros(5, 7, dtype=torch.uint8), r"a tensor of shape \(5, 7\)"),
        (torch.zeros(3, 5, 7, dtype=torch.bfloat16), "type bfloat16"),
        (torch.zeros(()), r"a tensor of shape \(\)"),
        (io.StringIO("wren"), "a file open in text mode"),
        ([7], "of type int; give a path, a PIL image, a NumPy array"),
        ([None], "of type NoneType"),
        (7, "of type int; give a list, or one: a path"),
        (None, "of type NoneType; give a list"),
        ({}, "of type dict; give a list"),
        ({"wren.jpg": 1}, "of type dict; give a list"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_anything_else_is_an_error_that_lists_what_is_allowed(predictor, image, what):
    with pytest.raises(UsageError, match=what) as caught:
        predictor(image)
    for kind in ("path", "PIL", "uint8, (H, W, 3)", "(C, H, W)", "bytes", "binary mode"):
        assert kind in str(caught.value)


def test_missing_files_say_what_they_seem_to_be(predictor):
    names = ["nowhere.jpg", "https://birds.org/wren.jpg", "photos/*.jpg"]
    reasons = [prediction.error for prediction in predictor(names)]
    assert reasons[0] == "no such file"
    assert "a URL" in reasons[1]
    assert "pattern" in reasons[2]


def test_exif_rotation_is_undone_first(predictor, tmp_path):
    upright = draw(tmp_path / "upright.png", 71, 173)
    exif = Image.Exif()
    exif[0x0112] = 6  # upright after a quarter turn clockwise
    turned = tmp_path / "turned.png"
    Image.open(upright).transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)
    expected = predictor(upright)
    assert_same(predictor(turned), expected)
    assert_same(predictor(Image.open(turned)), expected)
    assert predictor.explain(turned).views.size == (71, 173)
    assert expected.scales[0].box[3] > 71


def test_stream_reads_at_most_two_batches_ahead(predictor, paths):
    taken = count()

    def endless():
        while True:
            next(taken)
            yield paths[0]

    stream = predictor.stream(endless(), batch_size=3)
    for _ in range(7):
        next(stream)
    assert next(taken) <= 9 + 2 * 3  # three batches given to the model, two waiting
    stream.close()


def test_bf16_predicts_nearly_the_same(tmp_path, paths):
    folder = make_folder(tmp_path, num_scales=1)
    exact, coarse = (Predictor.load(folder, "cpu", precision) for precision in ("fp32", "bf16"))
    for one, other in zip(exact(paths, top_k=7), coarse(paths, top_k=7), strict=True):
        ours = dict(zip(one.labels, one.probabilities, strict=True))
        theirs = dict(zip(other.labels, other.probabilities, strict=True))
        assert ours == pytest.approx(theirs, abs=0.05)
        assert ours != theirs


def test_what_is_not_allowed(predictor, paths, tmp_path):
    with pytest.raises(UsageError, match="top_k is 0"):
        predictor.stream(paths, top_k=0)
    with pytest.raises(UsageError, match="batch_size is 0"):
        predictor(paths, batch_size=0)
    folder = make_folder(tmp_path)
    with pytest.raises(UsageError, match="int8"):
        Predictor.load(folder, "cpu", "int8")
    with pytest.raises(UsageError, match="toaster"):
        Predictor.load(folder, "toaster")


def test_too_little_memory_is_a_usage_error(tmp_path, paths):
    predictor = Predictor.load(make_folder(tmp_path), "cpu")

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    predictor.model.forward = full
    with pytest.raises(UsageError, match=r"batch of 3 .* smaller --batch_size"):
        predictor(paths, batch_size=3)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_confident_images_exit_early_and_keep_their_position(tmp_path, paths, batch_size):
    folder = make_folder(tmp_path, num_scales=3)
    whole = Predictor.load(folder, "cpu")(paths, top_k=len(NAMES))
    first = sorted(prediction.scales[0].probabilities[0] for prediction in whole)
    confidence = (first[2] + first[3]) / 2
    predictor = Predictor.load(folder, "cpu", early_exit=confidence)
    used = set()
    for full, brief in zip(whole, predictor(paths, len(NAMES), batch_size), strict=True):
        used.add(len(brief.scales))
        running = [mean_of(full.scales[:count]) for count in (1, 2, 3)]
        expected = next((count for count in (1, 2) if max(running[count - 1]) >= confidence), 3)
        assert len(brief.scales) == expected
        by_name = dict(zip(brief.labels, brief.probabilities, strict=True))
        assert [by_name[name] for name in NAMES] == pytest.approx(running[expected - 1], abs=1e-5)
        *before, last = full.scales[:expected]
        scales = (*before, last._replace(box=None, has_region=None))  # no scale looks at its region
        assert_same(
            brief._replace(labels=(), probabilities=()),
            full._replace(labels=(), probabilities=(), scales=scales),
        )
    assert len(used) > 1
    assert_same(predictor.explain(paths[0], len(NAMES)).prediction, whole[0])


def mean_of(scales):
    """Mean of the probabilities of some scales, in the order of NAMES."""
    each = [dict(zip(scale.labels, scale.probabilities, strict=True)) for scale in scales]
    return [sum(scale[name] for scale in each) / len(each) for name in NAMES]


def test_early_exit_as_chosen_for_the_model(tmp_path, paths):
    folder = make_folder(tmp_path / "run")
    with pytest.raises(UsageError, match=r"no confidence was chosen .*evaluate RUN --early_exit auto"):
        Predictor.load(folder, "cpu", early_exit="auto")
    save_metadata(folder, replace(load_metadata(folder), early_exit=EarlyExit(1e-6, "val", 7, 0.0, 1.0)))
    assert len(Predictor.load(folder, "cpu", early_exit="auto")(paths[0]).scales) == 1
    assert len(Predictor.load(folder, "cpu")(paths[0]).scales) == 2
    with pytest.raises(UsageError, match="confidence of early exit is 0; give more than 0"):
        Predictor.load(folder, "cpu", early_exit=0)
    with pytest.raises(UsageError, match="--early_exit"):
        Predictor.load(make_folder(tmp_path / "plain", num_scales=1), "cpu", early_exit=0.9)


@pytest.mark.usefixtures("bf16_units")
def test_precision_and_limits_are_those_of_the_training_run(tmp_path, paths):
    folder = make_folder(tmp_path / "run")
    data = {"max_pixels": SIZES[0][0] * SIZES[0][1], "read_timeout": 7.5}
    run = {"training": {"precision": "bf16"}, "data": data}
    save_metadata(folder, replace(load_metadata(folder), training={"run": run}))
    predictor = Predictor.load(folder, "cpu")
    assert predictor.precision == "bf16"
    assert predictor.read_timeout == 7.5
    assert Predictor.load(folder, "cpu", "fp32").precision == "fp32"
    largest = paths[2]  # of all
    with Image.open(largest) as in_memory:
        for image in (largest, in_memory):
            assert "over the limit of 6,887" in predictor(image).error
    assert predictor(paths[0]).error is None
    with pytest.raises(UnreadableImageError, match="over the limit"):
        predictor.explain(largest)


def test_several_threads_may_share_a_predictor(predictor, paths):
    expected = [predictor(path) for path in paths]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert list(pool.map(predictor, paths)) == expected


def test_several_threads_may_load_at_once(tmp_path, paths):
    folder, barrier = make_folder(tmp_path / "run"), Barrier(8)
    expected = Predictor.load(folder, "cpu")(paths[0])

    def load(_):
        barrier.wait(60)
        return Predictor.load(folder, "cpu")(paths[0])

    before = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(load, range(8))) == [expected] * 8
    finally:
        sys.setswitchinterval(before)


def test_the_fingerprint_depends_on_all_that_predictions_depend_on(tmp_path):
    folder = make_folder(tmp_path / "run")
    first = Predictor.load(folder, "cpu").fingerprint()
    chosen = replace(load_metadata(folder), early_exit=EarlyExit(0.9, "val", 7, 0.0, 1.0))
    save_metadata(folder, chosen)
    assert Predictor.load(folder, "cpu").fingerprint() == first  # chosen, but not used
    assert Predictor.load(folder, "cpu", early_exit="auto").fingerprint() == first | {"early_exit": 0.9}
    assert Predictor.load(folder, "cpu", "bf16").fingerprint() == first | {"precision": "bf16"}
    save_metadata(folder, replace(chosen, preprocessing=Preprocessing(67, (53, 37))))
    assert Predictor.load(folder, "cpu").fingerprint()["model"] != first["model"]
    other = Predictor.load(make_folder(tmp_path / "other", seed=1), "cpu").fingerprint()
    assert other["model"] != first["model"]
