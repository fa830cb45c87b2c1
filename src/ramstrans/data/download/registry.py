"""Published data sets: addresses, sizes and checksums of their files, and terms of use.

Sizes, checksums and terms are copied from these sources; nothing here was computed by us:

    publishers    https://github.com/visipedia/inat_comp (README of each year: MD5, terms),
                  https://data.caltech.edu/records/65de6-vp158 (MD5), the archives' own READMEs (terms)
    torchvision   `torchvision.datasets`: MD5 of Food-101, Flowers-102, Pets and iNaturalist
    TFDS          https://github.com/tensorflow/datasets, `checksums.tsv` and `url_checksums/`: bytes and
                  SHA-256 of CUB, Dogs, Flowers-102, Pets, Food-101 and iNaturalist
    mlverse       https://github.com/mlverse/torchvision, `R/dataset-fgvc.R`: MD5 of FGVC-Aircraft; the one on
                  the publisher's page is said to belong to an earlier archive

iNaturalist's READMEs round sizes in binary units: "186GB" are 198,765,436,676 bytes. Files without checksums
have none in any of these sources. TFDS lists the images of 2017 on an earlier server, where the README gave
the same MD5. A new data set is one entry in `_SOURCES`, and one row of `files.tsv` per file.
"""

import csv
from importlib import resources
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
_INATURALIST_TERMS = (
    "non-commercial research and education only, no redistribution of the images, iNaturalist's Terms of "
    "Service (https://www.inaturalist.org/pages/terms)"
)


class PublishedFile(NamedTuple):
    """One file of a data set as its publisher serves it.

    Attributes:
        url: Its address.
        num_bytes: Its size, rounded up by the publisher if there are no checksums.
        checksums: Published hexadecimal digests by `hashlib`'s names; may be empty.
        extract_to: Subfolder of the data set that it is unpacked into; empty for the data set's own folder.
    """

    url: str
    num_bytes: int
    checksums: dict[str, str]
    extract_to: str = ""

    @property
    def name(self) -> str:
        """Name of the file.

        >>> PublishedFile("https://example.org/birds/images.tgz?download=1", 7, {}).name
        'images.tgz'
        """
        return PurePosixPath(urlsplit(self.url).path).name

    @property
    def exact_size(self) -> int | None:
        """Size in bytes; None if only a rounded one is known."""
        return self.num_bytes if self.checksums else None


class DatasetSource(NamedTuple):
    """One published data set.

    Attributes:
        title: Its full name.
        data_name: The `--data.name` that reads it.
        page: Address of its page.
        terms: Licence or terms of use, in one line.
        files: The files to download; empty if there is no direct download.
        instructions: How to get it by hand if there is no direct download.
    """

    title: str
    data_name: str
    page: str
    terms: str
    files: tuple[PublishedFile, ...] = ()
    instructions: str = ""

    @property
    def num_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.num_bytes for file in self.files)


def _read_files() -> dict[str, tuple[PublishedFile, ...]]:
    """Read the files of each data set from the table beside this module."""
    table = resources.files(__package__).joinpath("files.tsv").read_text(encoding="utf-8")
    files: dict[str, tuple[PublishedFile, ...]] = {}
    for row in csv.DictReader(table.splitlines(), delimiter="\t"):
        checksums = {name: row[name] for name in ("md5", "sha256") if row[name]}
        file = PublishedFile(row["url"], int(row["num_bytes"]), checksums, row["extract_to"])
        files[row["data_set"]] = (*files.get(row["data_set"], ()), file)
    return files


def _inaturalist(year: str, part: str = "") -> DatasetSource:
    return DatasetSource(
        title=f"iNaturalist {year}{part}",
        data_name="inaturalist",
        page=f"https://github.com/visipedia/inat_comp/tree/master/{year}",
        terms=_INATURALIST_TERMS,
    )


_SOURCES = {
    "cub": DatasetSource(
        title="CUB-200-2011",
        data_name="cub",
        page="https://www.vision.caltech.edu/datasets/cub_200_2011/",
        terms="none in the archive's README; the photographs, from Flickr, belong to their photographers",
    ),
    "nabirds": DatasetSource(
        title="NABirds",
        data_name="nabirds",
        page="https://dl.allaboutbirds.org/nabirds",
        terms="those of the form on its page",
        instructions=(
            "fill in the form on https://dl.allaboutbirds.org/nabirds, where the terms of use are agreed to, "
            "download nabirds.tar.gz by the link that it leads to, and unpack it"
        ),
    ),
    "stanford_dogs": DatasetSource(
        title="Stanford Dogs",
        data_name="stanford_dogs",
        page="http://vision.stanford.edu/aditya86/ImageNetDogs/",
        terms=(
            "none known of the set; its photographs are from ImageNet: non-commercial research and education "
            "only (https://image-net.org/download)"
        ),
    ),
    "stanford_cars": DatasetSource(
        title="Stanford Cars",
        data_name="stanford_cars",
        page="https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
        terms="none known, as its page is gone",
        instructions=(
            "its publisher took it off the web in 2023; take one of the copies that "
            "https://github.com/pytorch/vision/issues/7545#issuecomment-1631441616 names, bring cars_train/, "
            "cars_test/, devkit/ and cars_test_annos_withlabels.mat into one folder, and compare what you "
            "can with the SHA-256 of the original files in "
            "https://github.com/tensorflow/datasets/blob/master/tensorflow_datasets/url_checksums/cars196.txt"
        ),
    ),
    "fgvc_aircraft": DatasetSource(
        title="FGVC-Aircraft",
        data_name="fgvc_aircraft",
        page=f"{_VGG}/fgvc-aircraft/",
        terms="non-commercial research only; the photographers keep the copyright",
    ),
    "inaturalist2017": _inaturalist("2017"),
    "inaturalist2018": _inaturalist("2018"),
    "inaturalist2021": _inaturalist("2021"),
    "inaturalist2021_mini": _inaturalist("2021", part=", train_mini"),
    "flowers102": DatasetSource(
        title="Oxford Flowers-102",
        data_name="flowers102",
        page=f"{_VGG}/flowers/102/",
        terms="none known; ask its publisher",
    ),
    "oxford_pets": DatasetSource(
        title="Oxford-IIIT Pets",
        data_name="oxford_pets",
        page=f"{_VGG}/pets/",
        terms=(
            "CC BY-SA 4.0 by its page, research only by the README in its archive; the photographs' "
            "copyright remains with their owners"
        ),
    ),
    "food101": DatasetSource(
        title="Food-101",
        data_name="food101",
        page="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        terms="photographs from Foodspotting: scientific fair use; anything else is up to their owners",
    ),
}

_FILES = _read_files()
REGISTRY = {name: source._replace(files=_FILES.get(name, ())) for name, source in _SOURCES.items()}
"""Data sets by the name that `ramstrans data download` takes."""
