"""One file that is served, and how it must lie there once it has come."""

import hashlib
import random

CONTENT = random.Random(0).randbytes(3_000_017)
OTHER = random.Random(1).randbytes(3_000_017)
SIZE = len(CONTENT)
CHECKSUMS = {"md5": hashlib.md5(CONTENT).hexdigest(), "sha256": hashlib.sha256(CONTENT).hexdigest()}
WHOLE = "/birds/photographs.tgz?download=1"


def assert_whole(path, content=CONTENT):
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]
