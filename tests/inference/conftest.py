import pytest

from tests.inference.builders import make_folder


@pytest.fixture(scope="package")
def run(tmp_path_factory):
    """The folder of a random model, which no test changes."""
    return make_folder(tmp_path_factory.mktemp("run"))
