import io
import json
import random
import re
import warnings
from argparse import Namespace
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save
from timm.models.resnetv2 import ResNetV2

from ramstrans.errors import WeightsError
from ramstrans.models.convert import WRAPPERS, read_weights
from ramstrans.models.pretrained import load_pretrained

MODEL = torch.nn.Identity()  # only archives of other networks than plain ViTs need one
ROOT = "patch_embed.proj.weight"
TENSORS = {ROOT: torch.randn(5, 3, 2, 2), "cls_token": torch.randn(1, 1, 5), "norm.weight": torch.randn(5)}


def google_twin(vit, num_heads):
    """A ViT's tensors in Google's format: the inverse mapping, in NumPy."""
    s = {key: tensor.numpy() for key, tensor in vit.state_dict().items()}
    dim = s["norm.weight"].shape[0]
    out = {
        **({"cls": s["cls_token"]} if "cls_token" in s else {}),
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
    assert report.unused == report.missing == report.resampled == ()
    assert {"norm.weight", "norm.bias"} <= set(report.loaded)
    image = torch.randn(2, 3, 48, 48)
    torch.testing.assert_close(vit(image), donor(image), atol=1e-6, rtol=0)


def big_vision_twin(vit, num_heads):
    """A SigLIP's tensors as big_vision has them: layers stacked, a pool, a text tower beside it."""
    old = google_twin(vit, num_heads)
    s = {key: tensor.numpy() for key, tensor in vit.state_dict().items()}
    dim, renamed, layers = s["norm.weight"].shape[0], {}, {}
    for key, array in old.items():
        new = key.replace("MultiHeadDotProductAttention_1", "MultiHeadDotProductAttention_0")
        new = new.replace("LayerNorm_2", "LayerNorm_1").replace("MlpBlock_3", "MlpBlock_0")
        if match := re.match(r"(Transformer/encoderblock)_(\d+)(/.*)", new):
            layers.setdefault(match[1] + match[3], []).append(array)
        else:
            renamed[new.replace("Transformer/posembed_input/", "")] = array
    renamed |= {key: np.stack(arrays) for key, arrays in layers.items()}
    pool, attention = "MAPHead_0", "MAPHead_0/MultiHeadDotProductAttention_0"
    heads = (num_heads, dim // num_heads)
    parts = {"query": s["attn_pool.q.weight"], "key": s["attn_pool.kv.weight"][:dim]}
    parts["value"] = s["attn_pool.kv.weight"][dim:]
    biases = {"query": s["attn_pool.q.bias"], "key": s["attn_pool.kv.bias"][:dim]}
    biases["value"] = s["attn_pool.kv.bias"][dim:]
    for part, weight in parts.items():
        renamed[f"{attention}/{part}/kernel"] = weight.T.reshape(dim, *heads)
        renamed[f"{attention}/{part}/bias"] = biases[part].reshape(heads)
    renamed[f"{attention}/out/kernel"] = s["attn_pool.proj.weight"].T.reshape(*heads, dim)
    renamed[f"{attention}/out/bias"] = s["attn_pool.proj.bias"]
    renamed[f"{pool}/probe"] = s["attn_pool.latent"]
    renamed[f"{pool}/LayerNorm_0/scale"] = s["attn_pool.norm.weight"]
    renamed[f"{pool}/LayerNorm_0/bias"] = s["attn_pool.norm.bias"]
    for layer in range(2):
        renamed[f"{pool}/MlpBlock_0/Dense_{layer}/kernel"] = s[f"attn_pool.mlp.fc{layer + 1}.weight"].T
        renamed[f"{pool}/MlpBlock_0/Dense_{layer}/bias"] = s[f"attn_pool.mlp.fc{layer + 1}.bias"]
    text = {"params/txt/head/kernel": np.zeros((2, 2)), "params/t": np.zeros(1), "params/b": np.zeros(1)}
    return {f"params/img/{key}": array for key, array in renamed.items()} | text


def test_big_visions_siglip_gives_the_same_function(tmp_path):
    def siglip(seed):
        torch.manual_seed(seed)
        options = {"img_size": 48, "depth": 2, "embed_dim": 33, "num_heads": 3, "mlp_ratio": 3.74}
        vit = timm.create_model("vit_base_patch16_siglip_224", num_classes=7, **options)
        for parameter in vit.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        return vit.eval()

    donor, vit = siglip(1), siglip(2)
    arrays = big_vision_twin(donor, 3)
    np.savez(tmp_path / "siglip.npz", **arrays)
    report = load_pretrained(vit, "vit_base_patch16_siglip_224", tmp_path / "siglip.npz")
    assert set(report.unused) == {"params/txt/head/kernel", "params/t", "params/b"}
    assert report.missing == report.resampled == ()
    image = torch.randn(2, 3, 48, 48)
    torch.testing.assert_close(vit(image), donor(image), atol=1e-6, rtol=0)


def test_an_archive_of_bit_is_read_by_timm_into_its_resnet(tmp_path):
    def bit(seed):
        torch.manual_seed(seed)
        return ResNetV2((1, 1), (128, 256), stem_chs=32, num_classes=3, stem_type="fixed").eval()

    donor, model = bit(1), bit(2)
    arrays = bit_twin(donor)
    np.savez(tmp_path / "bit.npz", **arrays)
    report = load_pretrained(model, "resnetv2_50x1_bit", tmp_path / "bit.npz")
    assert report.missing == ()
    assert all(torch.equal(tensor, donor.state_dict()[key]) for key, tensor in model.state_dict().items())


def bit_twin(model):
    """A ResNetV2's tensors as BiT has them."""
    s = {key: tensor.numpy() for key, tensor in model.state_dict().items()}

    def kernel(name):
        return s[f"{name}.weight"].transpose(2, 3, 1, 0)

    out = {"root_block/standardized_conv2d/kernel": kernel("stem.conv")}
    out |= {"group_norm/gamma": s["norm.weight"], "group_norm/beta": s["norm.bias"]}
    out |= {"head/conv2d/kernel": kernel("head.fc"), "head/conv2d/bias": s["head.fc.bias"]}
    for stage in range(2):
        ours, theirs = f"stages.{stage}.blocks.0", f"block{stage + 1}/unit01"
        for number, letter in enumerate("abc", start=1):
            out[f"{theirs}/{letter}/standardized_conv2d/kernel"] = kernel(f"{ours}.conv{number}")
            out[f"{theirs}/{letter}/group_norm/gamma"] = s[f"{ours}.norm{number}.weight"]
            out[f"{theirs}/{letter}/group_norm/beta"] = s[f"{ours}.norm{number}.bias"]
        out[f"{theirs}/a/proj/standardized_conv2d/kernel"] = kernel(f"{ours}.downsample.conv")
    return {f"resnet/{key}": array for key, array in out.items()}


def test_an_archive_for_a_network_that_timm_reads_none_into(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.zeros(3))
    with pytest.raises(WeightsError, match=r"timm reads no \.npz archive into a Identity"):
        read_weights(tmp_path / "w.npz", MODEL)


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


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt", ".pth.tar"])
@pytest.mark.parametrize("wrapper", [None, *WRAPPERS])
def test_wrappers_are_taken_off(tmp_path, suffix, wrapper):
    torch.save({wrapper: TENSORS, "epoch": 3} if wrapper else TENSORS, tmp_path / f"w{suffix}")
    source, tensors = read_weights(tmp_path / f"w{suffix}", MODEL)
    assert set(tensors) == set(TENSORS)
    assert all(torch.equal(tensors[key], TENSORS[key]) for key in TENSORS)
    assert source.endswith(f" [{wrapper}]" if wrapper else suffix)


def test_wrappers_in_wrappers_and_empty_averages(tmp_path):
    content = {"model_ema": None, "optimizer": {"state": {}}, "teacher": {"backbone": {"module": TENSORS}}}
    torch.save(content, tmp_path / "w.pth")
    source, tensors = read_weights(tmp_path / "w.pth", MODEL)
    assert source.endswith("w.pth [teacher] [backbone] [module]")
    assert set(tensors) == set(TENSORS)


def test_settings_under_the_name_of_a_wrapper_are_no_weights(tmp_path):
    torch.save({"state_dict": TENSORS, "ema": {"decay": 0.999, "of": {"steps": 10}}}, tmp_path / "w.pth")
    assert set(read_weights(tmp_path / "w.pth", MODEL)[1]) == set(TENSORS)


def test_the_only_state_dict_under_an_unknown_key_is_taken(tmp_path):
    torch.save({"epoch": 3, "params_of_run_7": TENSORS, "log": {"loss": 1.0}}, tmp_path / "w.pth")
    assert set(read_weights(tmp_path / "w.pth", MODEL)[1]) == set(TENSORS)


def test_averaged_weights_come_first(tmp_path):
    torch.save({"model": {"a": torch.zeros(1)}, "model_ema": {"a": torch.ones(1)}}, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth", MODEL)[1]["a"].item() == 1


def test_names_lose_what_compilation_checkpointing_and_fsdp_write_into_them(tmp_path):
    content = {"_orig_mod.blocks.0._checkpoint_wrapped_module.norm1.weight": torch.ones(2)}
    content["base_model.model._fsdp_wrapped_module.cls_token"] = torch.ones(2)
    torch.save(content, tmp_path / "w.pth")
    assert set(read_weights(tmp_path / "w.pth", MODEL)[1]) == {"blocks.0.norm1.weight", "cls_token"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_every_precision_becomes_float32_and_counters_stay(tmp_path, dtype, suffix):
    values = {"a": torch.tensor([0.5, -3.0], dtype=dtype), "bn.num_batches_tracked": torch.tensor(7)}
    path = tmp_path / f"w{suffix}"
    path.write_bytes(save(values)) if suffix == ".safetensors" else torch.save(values, path)
    tensors = read_weights(path, MODEL)[1]
    assert tensors["a"].dtype == torch.float32
    assert tensors["a"].tolist() == [0.5, -3.0]
    assert tensors["bn.num_batches_tracked"].dtype == torch.int64


def test_the_files_of_an_index_are_read_together(tmp_path):
    (tmp_path / "m-1.safetensors").write_bytes(save({"a": torch.ones(1)}))
    (tmp_path / "m-2.safetensors").write_bytes(save({"b": torch.ones(2)}))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}))
    assert set(read_weights(index, MODEL)[1]) == {"a", "b"}
    index.write_text(json.dumps({"weight_map": {"a": "../m-1.safetensors"}}))
    with pytest.raises(WeightsError, match="cannot be read"):
        read_weights(index, MODEL)


def test_a_folder_of_the_hub_is_its_file(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(save(TENSORS))
    source, tensors = read_weights(tmp_path, MODEL)
    assert source == str(tmp_path / "model.safetensors")
    assert set(tensors) == set(TENSORS)


def test_adapters_that_are_not_merged_are_told(tmp_path):
    torch.save({"blocks.0.attn.qkv.lora_A.default.weight": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="LoRA adapters that are not merged; save"):
        read_weights(tmp_path / "w.pth", MODEL)


def test_a_torchscript_program_is_not_run(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripting is deprecated
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "clip.pt")
    with pytest.raises(WeightsError, match=r"TorchScript program, not weights, .*torch\.jit\.load"):
        read_weights(tmp_path / "clip.pt", MODEL)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.pth", "does not exist"),
        (".", "is a folder without weights"),
        ("w.onnx", "has an unknown format"),
    ],
)
def test_paths_that_cannot_be_weights(tmp_path, name, message):
    (tmp_path / "w.onnx").touch()
    with pytest.raises(WeightsError, match=rf"{message}; give .*\.safetensors.*\.npz"):
        read_weights(tmp_path / name, MODEL)


def test_python_objects_are_refused(tmp_path):
    torch.save({"model": TENSORS, "args": SimpleNamespace(lr=1)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"holds more than tensors \(types.SimpleNamespace\)"):
        read_weights(tmp_path / "w.pth", MODEL)


def test_options_of_argparse_are_harmless(tmp_path):
    torch.save({"model": TENSORS, "args": Namespace(lr=1)}, tmp_path / "w.pth")
    assert set(read_weights(tmp_path / "w.pth", MODEL)[1]) == set(TENSORS)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"model": None}, TENSORS["cls_token"]])
def test_no_state_dict_is_an_error(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="no named tensors"):
        read_weights(tmp_path / "w.pth", MODEL)


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
            read_weights(path, MODEL)
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(chance.randrange(1, 20)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        with suppress(WeightsError):  # damage to a value alone cannot be seen
            read_weights(path, MODEL)
