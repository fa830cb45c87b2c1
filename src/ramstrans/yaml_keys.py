"""YAML whose keys are unique."""

from collections.abc import Hashable
from typing import Any

import yaml


class UniqueKeys(yaml.SafeLoader):
    """YAML in which no key may come twice, where PyYAML takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping."""
        names = [self.construct_object(key, deep=deep) for key, _ in node.value]
        for name in names:
            if names.count(name) > 1 and name != "<<":
                raise yaml.YAMLError(
                    f"'{name}' comes twice, the first time in line {node.start_mark.line + 1} or later"
                )
        return super().construct_mapping(node, deep)
