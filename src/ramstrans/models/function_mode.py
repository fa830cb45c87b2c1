"""Another computation in place of one of torch's functions, for what is called in a `with` block."""

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor
from torch.overrides import TorchFunctionMode


class FunctionMode(TorchFunctionMode):
    """Call `_replacement` in place of every call of `function` inside, in this thread alone.

    Attributes:
        function: What is replaced, as a static method.
    """

    function: ClassVar[Callable[..., Tensor]]

    def _replacement(self, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        """Compute what is returned instead, from the arguments of `function`."""
        raise NotImplementedError

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401 - any function of torch
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """See torch's modes."""
        return (self._replacement if func is self.function else func)(*args, **(kwargs or {}))
