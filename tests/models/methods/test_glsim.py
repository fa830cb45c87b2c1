"""GLSim: two looks, one answer."""

import pytest
import torch

from ramstrans.errors import ConfigError
from ramstrans.models.zoom import zoom
from tests.models.builders import SIZE, noise, other_model, tiny_model
from tests.models.oracles import similar_box_twin


def test_the_crop_by_hand():
    model = tiny_model(method="glsim", num_tokens=2)
    saliency = torch.zeros(1, 3, 5)
    saliency[0, 0, 1], saliency[0, 2, 2], saliency[0, 1, 4] = 0.9, 0.8, 0.7
    boxes, has_region = model.propose(saliency, 0)
    assert boxes.tolist() == [[16, 0, 48, 48]]  # columns 1 and 2, rows 0 to 2
    assert has_region.tolist() == [True]
    boxes, has_region = model.propose(torch.full((1, 3, 5), torch.nan), 0)
    assert (boxes.tolist(), has_region.tolist()) == ([[0, 0, 80, 48]], [False])
    assert model.propose(torch.zeros(1, 3, 5), 0).boxes.tolist() == [[0, 0, 32, 16]]  # equal ones in order


def test_a_model_equals_its_slow_twin():
    model = tiny_model(method="glsim", num_tokens=3)
    vit, images = model.encoder.model, noise(5, 3, *SIZE)
    with torch.no_grad():
        (stage,) = model(images).scales
        for row, image in enumerate(images):
            tokens = vit.forward_features(image[None])[0]
            box = similar_box_twin(tokens[0], tokens[1:], (3, 5), 16, 3)
            assert stage.boxes[row].tolist() == pytest.approx(box)
            crop = zoom(image[None], torch.tensor([box]), SIZE)
            both = torch.stack([tokens[0], vit.forward_features(crop)[0, 0]])[None]
            block, norm = model.aggregator
            logits = vit.head(norm(block(both))[:, 0])
            torch.testing.assert_close(stage.logits[row], logits[0], rtol=1e-3, atol=1e-3)


def test_it_has_one_scale_that_looks_twice_in_training_too():
    model = tiny_model(method="glsim")
    assert (model.num_scales, model.num_trained, model.num_looks) == (1, 1, 2)
    seen = []
    model.encoder.register_forward_hook(lambda _module, _inputs, output: seen.append(output.pooled))
    model.train()
    (stage,) = model(noise(2, 3, *SIZE)).scales
    stage.logits.sum().backward()
    assert [one.requires_grad for one in seen] == [True, True]
    assert stage.boxes is None
    assert all(parameter.grad is not None for parameter in model.aggregator.parameters())


def test_the_loss_reaches_both_looks():
    model, images = tiny_model(method="glsim"), noise(2, 3, *SIZE)

    def gradient(*looks):
        """Of the patch embedding, through some looks alone."""
        model.zero_grad()
        count, handle = [], None

        def cut(_module, _inputs, output):
            count.append(1)
            return output if len(count) in looks else output._replace(pooled=output.pooled.detach())

        handle = model.encoder.register_forward_hook(cut)
        model(images).scales[0].logits.square().sum().backward()
        handle.remove()
        return model.encoder.model.patch_embed.proj.weight.grad.clone()

    first, second, both = gradient(1), gradient(2), gradient(1, 2)
    assert min(first.abs().max(), second.abs().max()) > 1e-3
    torch.testing.assert_close(first + second, both, rtol=1e-3, atol=1e-3)


def test_the_crop_is_cut_from_high_resolution():
    model = tiny_model(method="glsim", zoom_source="full")
    images, high_res = noise(2, 3, *SIZE), noise(2, 3, 96, 160, seed=1)
    with torch.no_grad():
        stage = model(images, high_res).scales[0]
        features = model.encoder(images, 0)
        local = model.encoder(zoom(high_res, 2 * stage.boxes, SIZE), 0)
        refined = model.aggregator(torch.stack([features.pooled, local.pooled], dim=1))[:, 0]
    torch.testing.assert_close(stage.logits, model.encoder.forward_head(refined), rtol=1e-4, atol=1e-4)
    assert model.needs_high_res


@pytest.mark.parametrize("name", ["CNN", "CNN with norms", "Eva"])
def test_any_backbone_can_have_it(name):
    model = other_model(name, method="glsim")
    with torch.no_grad():
        stage = model(noise(2, 3, *model.image_size)).scales[0]
    assert stage.logits.shape == (2, 5)
    assert stage.has_region.all()


def test_a_map_of_one_location_is_refused():
    with pytest.raises(ConfigError, match="have one location, which tells no region"):
        other_model("CNN", method="glsim", image_size=(32, 32))


@pytest.mark.slow
def test_compiles_into_one_graph():
    model, images = tiny_model(method="glsim"), noise(2, 3, *SIZE)
    with torch.no_grad():
        expected = model(images).scales[0]
        found = torch.compile(model, fullgraph=True, backend="eager")(images).scales[0]
    for got, value in zip(found, expected, strict=True):
        torch.testing.assert_close(got, value, rtol=1e-4, atol=1e-4)
