"""A backbone so small that measuring takes no time, and a clock that moves only in `sleep`."""

TINY = {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}


class Clock:
    """Seconds that pass only in `sleep`."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
