import io
import random
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save

from ramstrans.errors import WeightsError
from ramstrans.models.convert import ROOT, WRAPPERS, read_weights
from ramstrans.models.pretrained import load_pretrained

TENSORS = {ROOT: torch.randn(5, 3, 2, 2), "cls_token": torch.randn(1, 1, 5), "norm.weight": torch.randn(5)}


def google_twin(vit, num_heads):
    """A ViT's tensors in Google's format: the inverse mapping, in NumPy."""
    s = {key: tensor.numpy() for key, tensor in vit.state_dict().items()}
    dim = s["norm.weight"].shape[0]
    out = {
        "cls": s["cls_token"],
        "embedding/kernel": np.einsum("ochw->hwco", s["patch_embed.proj.weight"]),
        "embedding/bias": s["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": s["pos_embed"],
        "Transformer/encoder_norm/scale": s["norm.weight"],
        "Transformer/encoder_norm/bias": s["norm.bias"],
        "head/kernel": s["head.weight"].T,
        "head/bias": s["head.bias"],
    }
    for i in range(len(vit.blocks)):
        theirs, ours = f"Transformer/encoderblock_{i}", f"blocks.{i}"
        attention = f"{theirs}/MultiHeadDotProductAttention_1"
        weights = s[f"{ours}.attn.qkv.weight"].reshape(3, num_heads, dim // num_heads, dim)
        biases = s[f"{ours}.attn.qkv.bias"].reshape(3, num_heads, dim // num_heads)
        for part, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            out[f"{attention}/{part}/kernel"] = np.einsum("hdi->ihd", weight)
            out[f"{attention}/{part}/bias"] = bias
        projection = s[f"{ours}.attn.proj.weight"].reshape(dim, num_heads, dim // num_heads)
        out[f"{attention}/out/kernel"] = np.einsum("ohd->hdo", projection)
        out[f"{attention}/out/bias"] = s[f"{ours}.attn.proj.bias"]
        for norm, number in (("norm1", 0), ("norm2", 2)):
            out[f"{theirs}/LayerNorm_{number}/scale"] = s[f"{ours}.{norm}.weight"]
            out[f"{theirs}/LayerNorm_{number}/bias"] = s[f"{ours}.{norm}.bias"]
        for layer in range(2):
            dense = f"{theirs}/MlpBlock_3/Dense_{layer}"
            out[f"{dense}/kernel"] = s[f"{ours}.mlp.fc{layer + 1}.weight"].T
            out[f"{dense}/bias"] = s[f"{ours}.mlp.fc{layer + 1}.bias"]
    return out


def random_vit(seed):
    torch.manual_seed(seed)
    vit = timm.create_model(
        "vit_tiny_patch16_224", num_classes=7, img_size=48, depth=2, embed_dim=33, num_heads=3
    )
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return vit.eval()


@pytest.mark.parametrize("prefix", ["", "opt/target/"])
def test_google_npz_gives_the_same_function(tmp_path, prefix):
    donor, vit = random_vit(1), random_vit(2)
    arrays = {prefix + key: array for key, array in google_twin(donor, 3).items()}
    np.savez(tmp_path / "ViT.npz", **arrays)
    report = load_pretrained(vit, "vit_tiny_patch16_224", tmp_path / "ViT.npz")
    assert report.unexpected == report.missing == report.resized == ()
    assert {"norm.weight", "norm.bias"} <= set(report.loaded)
    image = torch.randn(2, 3, 48, 48)
    torch.testing.assert_close(vit(image), donor(image), atol=1e-6, rtol=0)


def test_head_behind_pre_logits_is_left_out_and_no_random_number_is_drawn(tmp_path):
    arrays = google_twin(random_vit(1), 3)
    arrays |= {"pre_logits/kernel": np.zeros((33, 33)), "pre_logits/bias": np.zeros(33)}
    np.savez(tmp_path / "ViT.npz", **arrays)
    vit, state = random_vit(2), torch.get_rng_state()
    report = load_pretrained(vit, "vit_tiny_patch16_224", tmp_path / "ViT.npz")
    assert torch.equal(torch.get_rng_state(), state)
    assert set(report.missing) == {"head.weight", "head.bias"}


def test_google_file_without_final_norm_is_an_error(tmp_path):
    arrays = {key: array for key, array in google_twin(random_vit(1), 3).items() if "encoder_norm" not in key}
    np.savez(tmp_path / "ViT.npz", **arrays)
    with pytest.raises(WeightsError, match=r"KeyError.* it is truncated"):
        load_pretrained(random_vit(2), "vit_tiny_patch16_224", tmp_path / "ViT.npz")


PREFIXES = ("module.", "backbone.", "model.", "state_dict.", "model._orig_mod.")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt", ".pth.tar"])
@pytest.mark.parametrize("wrapper", [None, *WRAPPERS])
@pytest.mark.parametrize("prefix", ["", *PREFIXES, "module.backbone."])
def test_wrappers_and_prefixes_are_taken_off(tmp_path, suffix, wrapper, prefix):
    content = {prefix + key: tensor for key, tensor in TENSORS.items()}
    torch.save({wrapper: content, "epoch": 3} if wrapper else content, tmp_path / f"w{suffix}")
    high_res, tensors = read_weights(tmp_path / f"w{suffix}")
    assert set(tensors) == set(TENSORS)
    assert all(torch.equal(tensors[key], TENSORS[key]) for key in TENSORS)
    assert high_res.endswith(f" [{wrapper}]" if wrapper else suffix)


def test_averaged_weights_come_first(tmp_path):
    torch.save({"model": {"a": torch.zeros(1)}, "model_ema": {"a": torch.ones(1)}}, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth")[1]["a"].item() == 1


def test_a_head_beside_the_vit_loses_only_what_it_shares(tmp_path):
    content = {f"module.backbone.{ROOT}": torch.zeros(1), "module.head.bias": torch.ones(1)}
    torch.save({"state_dict": content}, tmp_path / "last.ckpt")
    assert set(read_weights(tmp_path / "last.ckpt")[1]) == {ROOT, "head.bias"}


def test_several_vits_are_told(tmp_path):
    content = {f"{name}.{ROOT}": torch.zeros(1) for name in ("base_encoder", "momentum_encoder")}
    torch.save(content, tmp_path / "moco.pth.tar")
    with pytest.raises(WeightsError, match=r"several ViTs, base_encoder\., momentum_encoder\.; save"):
        read_weights(tmp_path / "moco.pth.tar")


def test_a_prefix_stays_where_the_short_name_is_taken(tmp_path):
    vit = {f"backbone.{ROOT}": torch.zeros(1)}
    torch.save(vit | {"backbone.head.bias": torch.zeros(1), "head.bias": torch.ones(1)}, tmp_path / "w.pth")
    tensors = read_weights(tmp_path / "w.pth")[1]
    assert tensors["head.bias"].item() == 1
    assert set(tensors) == {ROOT, "head.bias", "backbone.head.bias"}


@pytest.mark.parametrize(
    ("name", "message"),
    [("none.pth", "does not exist"), (".", "is a folder"), ("w.onnx", "has an unknown format")],
)
def test_paths_that_cannot_be_weights(tmp_path, name, message):
    (tmp_path / "w.onnx").touch()
    with pytest.raises(WeightsError, match=rf"{message}; give .*\.safetensors.*\.npz"):
        read_weights(tmp_path / name)


def test_python_objects_are_refused(tmp_path):
    torch.save({"model": TENSORS, "args": SimpleNamespace(lr=1)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="holds more than tensors"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"model": None}, TENSORS["cls_token"]])
def test_no_state_dict_is_an_error(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="no named tensors"):
        read_weights(tmp_path / "w.pth")


def whole_file(suffix):
    buffer = io.BytesIO()
    if suffix == ".safetensors":
        return save(TENSORS)
    if suffix == ".npz":
        np.savez(buffer, **{"embedding/kernel": np.ones((2, 3, 3, 5), np.float32)})
    else:
        torch.save(TENSORS, buffer, _use_new_zipfile_serialization=suffix != ".bin")
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin", ".npz"])
def test_damaged_files_are_weights_errors(tmp_path, suffix):
    whole, chance, path = whole_file(suffix), random.Random(0), tmp_path / f"w{suffix}"
    for cut in [0, 1, 7, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:cut])
        with pytest.raises(WeightsError):
            read_weights(path)
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(chance.randrange(1, 20)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        with suppress(WeightsError):  # damage to a value alone cannot be seen
            read_weights(path)
