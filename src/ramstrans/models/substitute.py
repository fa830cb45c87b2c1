"""Call a module with other tensors in place of its own."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


def call_with(module: nn.Module, tensor_for: Callable[[Tensor], Tensor], *arguments: Any) -> Any:  # noqa: ANN401
    """Call a module with other tensors in place of its parameters and buffers, which it has again afterwards.

    Each module gets them once, also one that is part of several others, such as the position encodings of
    CoaT-Lite: `functional_call` with tied weights (PyTorch 2.14) would swap its tensors twice, and leave the
    other ones in it.

    Args:
        module: Called once. Not one that another thread uses.
        tensor_for: Gives the other tensor for one of the module's.
        arguments: Of the call.
    """
    tensors = {
        f"{prefix}.{name}" if prefix else name: tensor_for(tensor)
        for prefix, part in module.named_modules()
        for name, tensor in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False))
    }
    return functional_call(module, tensors, arguments, tie_weights=False)
