"""Tiny data sets in the published formats, with their file names, separators and quirks.

Each has 3 classes of 5 training and 2 test images, and 2 validation images if there is such a split.
`FAKES` has a maker for each format with marker files; a new one is tested by being added.
"""

from tests.data.fakes.fgvc_aircraft import make_fgvc_aircraft
from tests.data.fakes.flowers102 import make_flowers102
from tests.data.fakes.food101 import make_food101
from tests.data.fakes.inaturalist import make_inaturalist2017, make_inaturalist2018, make_inaturalist2021
from tests.data.fakes.nabirds import make_nabirds
from tests.data.fakes.oxford_pets import make_oxford_pets
from tests.data.fakes.stanford_cars import make_stanford_cars
from tests.data.fakes.stanford_dogs import make_stanford_dogs

FAKES = {
    "nabirds": make_nabirds,
    "stanford_dogs": make_stanford_dogs,
    "stanford_cars": make_stanford_cars,
    "fgvc_aircraft": make_fgvc_aircraft,
    "inaturalist": make_inaturalist2018,
    "flowers102": make_flowers102,
    "oxford_pets": make_oxford_pets,
    "food101": make_food101,
}

__all__ = [
    "FAKES",
    "make_fgvc_aircraft",
    "make_flowers102",
    "make_food101",
    "make_inaturalist2017",
    "make_inaturalist2018",
    "make_inaturalist2021",
    "make_nabirds",
    "make_oxford_pets",
    "make_stanford_cars",
    "make_stanford_dogs",
]
