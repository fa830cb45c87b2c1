"""The method, in order of flow: backbone -> rollout -> regions -> zoom -> rams."""
