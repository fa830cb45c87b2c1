import pytest

from tests.data.reading.photos import draw_photo


@pytest.fixture
def photo():
    """Smooth, so that JPEG keeps it, and different in all four corners."""
    return draw_photo()
