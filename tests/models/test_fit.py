import pytest
import timm
import torch

from ramstrans.models import pretrained
from ramstrans.models.fit import fit, head_names, needed_names
from ramstrans.models.pretrained import WeightsError, load_pretrained

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


@pytest.fixture(autouse=True)
def no_hint(monkeypatch):
    monkeypatch.setattr(pretrained, "closest", lambda *_: "the hint")


def random_model(name, seed=1, num_classes=3, **options):
    torch.manual_seed(seed)
    model = timm.create_model(name, num_classes=num_classes, **options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def loaded(tmp_path, donor, model, name):
    torch.save(donor.state_dict(), tmp_path / "w.pth")
    return load_pretrained(model, name, tmp_path / "w.pth")


SWIN = {"embed_dim": 8, "depths": (2, 1), "num_heads": (2, 2)}
RESIZED = {
    "BEiT": ("beit_base_patch16_224", VIT, {"img_size": (64, 32)}, "relative_position_bias_table"),
    "Swin, another window": (
        *("swin_tiny_patch4_window7_224", SWIN | {"img_size": 32, "window_size": 4}),
        *({"img_size": 64, "window_size": (8, 4)}, "relative_position_bias_table"),
    ),
    "EVA-02": ("eva02_tiny_patch14_224", VIT | {"mlp_ratio": 4}, {"img_size": (32, 64)}, "pos_embed"),
    "NaFlex": (
        *("naflexvit_base_patch16_siglip", VIT | {"pos_embed_grid_size": (4, 4)}),
        *({"pos_embed_grid_size": (8, 6)}, "embeds.pos_embed"),
    ),
    "SigLIP": ("vit_base_patch16_siglip_224", VIT, {"img_size": (64, 32)}, "pos_embed"),
    "PiT": ("pit_ti_224", {"img_size": 64}, {"img_size": 96}, "pos_embed"),
    "LeViT": ("levit_128s", {"img_size": 64}, {"img_size": 128}, "attention_biases"),
    "MViT": ("mvitv2_tiny", {"img_size": 64}, {"img_size": 96}, "rel_pos_h|rel_pos_w"),
    "CaiT": ("cait_xxs24_224", {"img_size": 32, "depth": 1}, {"img_size": 64}, "pos_embed"),
}


@pytest.mark.parametrize("case", RESIZED)
def test_what_follows_the_image_size_is_resampled_and_the_rest_is_equal(tmp_path, case):
    name, options, change, pattern = RESIZED[case]
    donor, model = random_model(name, 1, **options), random_model(name, 2, **options | change)
    endings = tuple(pattern.split("|"))
    with torch.no_grad():
        for key, parameter in donor.named_parameters():
            if key.endswith(endings):
                parameter.fill_(0.75)  # resampling keeps constants
    report = loaded(tmp_path, donor, model, name)
    assert report.resampled
    assert all(key.endswith(endings) for key in report.resampled)
    theirs = donor.state_dict()
    for key, tensor in model.named_parameters():
        if key.endswith(endings):
            torch.testing.assert_close(tensor, torch.full_like(tensor, 0.75))
        else:
            assert torch.equal(tensor, theirs[key])


@pytest.mark.parametrize(
    ("name", "options", "heads"),
    [
        ("efficientnet_lite0", {}, ("classifier.", "head_dist.")),
        (
            "swin_tiny_patch4_window7_224",
            SWIN | {"window_size": 4, "img_size": 32},
            ("head.fc.", "head_dist."),
        ),
        ("deit_tiny_distilled_patch16_224", {"depth": 1}, ("head.", "head_dist.")),
        ("levit_128s", {}, ("head.", "head.linear.", "head_dist.", "head_dist.linear.")),
        ("resnet18", {}, ("fc.", "head_dist.")),
    ],
)
def test_a_head_of_other_classes_stays_random_whatever_its_name(tmp_path, name, options, heads):
    donor, model = random_model(name, 1, 3, **options), random_model(name, 2, 5, **options)
    assert head_names(model) == heads
    report = loaded(tmp_path, donor, model, name)
    assert report.missing
    assert all(key.startswith(heads) for key in (*report.missing, *report.unused))
    assert len(report.loaded) + len(report.missing) == len(model.state_dict())


def test_what_follows_from_sizes_need_not_be_in_a_file(tmp_path):
    name, options = "swinv2_tiny_window8_256", SWIN | {"img_size": 32, "window_size": 4}
    donor, model = random_model(name, 1, **options), random_model(name, 2, **options)
    for module in (donor, model):
        module.layers[0].register_buffer("attn_mask", torch.ones(3))
    needed = needed_names(model, model.state_dict())
    assert "layers.0.attn_mask" not in needed
    tensors = {key: donor.state_dict()[key] for key in needed}
    torch.save(tensors, tmp_path / "w.pth")
    report = load_pretrained(model, name, tmp_path / "w.pth")
    assert set(report.missing) == {"layers.0.attn_mask", "head.fc.weight", "head.fc.bias"}


def test_statistics_of_batch_norm_are_needed(tmp_path):
    tensors = random_model("resnet18").state_dict()
    del tensors["layer1.0.bn1.running_var"]
    torch.save(tensors, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"layer1\.0\.bn1\.running_var \(64,\) is missing; the hint"):
        load_pretrained(random_model("resnet18"), "resnet18", tmp_path / "w.pth")


@pytest.mark.parametrize(("theirs", "ours"), [("token", "avg"), ("avg", "token")])
def test_the_last_norm_moves_with_the_pooling(tmp_path, theirs, ours):
    name = "vit_tiny_patch16_224"
    donor = random_model(name, 1, global_pool=theirs, **VIT)
    model = random_model(name, 2, global_pool=ours, **VIT)
    report = loaded(tmp_path, donor, model, name)
    norm, fc_norm = (
        net.norm if pool == "token" else net.fc_norm for net, pool in ((donor, theirs), (model, ours))
    )
    assert torch.equal(norm.weight, fc_norm.weight)
    assert len(report.converted) == 2
    assert report.unused == report.missing == ()


def test_positions_without_a_class_row_get_a_zero_one(tmp_path):
    name = "vit_tiny_patch16_224"
    donor, model = random_model(name, 1, no_embed_class=True, **VIT), random_model(name, 2, **VIT)
    loaded(tmp_path, donor, model, name)
    image = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(model(image), donor(image), atol=1e-6, rtol=1e-6)


def test_a_file_with_a_class_token_starts_a_backbone_without_one(tmp_path):
    name = "vit_base_patch16_siglip_gap_224"
    donor, model = random_model("vit_tiny_patch16_224", 1, **VIT), random_model(name, 2, **VIT)
    report = loaded(tmp_path, donor, model, name)
    assert report.unused == ("cls_token",)
    assert torch.equal(model.pos_embed, donor.pos_embed[:, 1:])


def test_linear_layers_become_convolutions_of_one_pixel(tmp_path):
    options = {"dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1)}
    donor, model = (
        random_model("convnext_tiny", 1, **options),
        random_model("convnext_tiny", 2, conv_mlp=True, **options),
    )
    report = loaded(tmp_path, donor, model, "convnext_tiny")
    assert report.resampled == ()
    image = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(model(image), donor(image), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("theirs", "ours"), [("resnet34", "resnet18"), ("convnext_pico", "convnext_pico_shallow")]
)
def test_a_deeper_network_is_not_cut_off(tmp_path, theirs, ours):
    shallow = {"depths": (1, 1, 1, 1)} if "convnext" in ours else {}
    name = ours.removesuffix("_shallow")
    torch.save(random_model(theirs).state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"has no place in the model; .* more; the hint"):
        load_pretrained(random_model(name, 2, **shallow), name, tmp_path / "w.pth")


@pytest.mark.slow
@pytest.mark.parametrize("module", timm.list_modules())
def test_weights_of_every_family_fit_with_other_classes(module):
    name, *_ = timm.list_models(module=module)
    with torch.device("meta"):
        published = dict(timm.create_model(name).state_dict())
        result = fit(published, timm.create_model(name, num_classes=7), "the file")
    assert result.is_complete
