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
have none in any of these sources. A new data set is one entry in `REGISTRY`.
"""

from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
_DOGS = "http://vision.stanford.edu/aditya86/ImageNetDogs"
_INATURALIST = "https://ml-inat-competition-datasets.s3.amazonaws.com"
_INATURALIST_TERMS = (
    "non-commercial research and education only, no redistribution of the images, iNaturalist's Terms of "
    "Service (https://www.inaturalist.org/pages/terms)"
)
_MIB = 2**20


class PublishedFile(NamedTuple):
    """One file of a data set as its publisher serves it.

    Attributes:
        url: Its address.
        num_bytes: Its size; of a file without checksums, rounded up by the publisher.
        checksums: Published hexadecimal digests by `hashlib`'s names; may be empty.
        extract_to: Subfolder of the data set that it is unpacked into; empty for the data set's own folder.
    """

    url: str
    num_bytes: int
    checksums: dict[str, str]
    extract_to: str = ""

    @property
    def name(self) -> str:
        """The file's name.

        >>> PublishedFile("https://example.org/birds/images.tgz?download=1", 7, {}).name
        'images.tgz'
        """
        return PurePosixPath(urlsplit(self.url).path).name

    @property
    def exact_size(self) -> int | None:
        """Its size in bytes, None if only a rounded one is known."""
        return self.num_bytes if self.checksums else None


class DatasetSource(NamedTuple):
    """One published data set.

    Attributes:
        title: Its full name.
        data_name: The `--data.name` that reads it.
        page: Address of its page.
        terms: Licence or terms of use, in one line.
        files: The files to download; empty if there is no direct download.
        expected_files: Some paths that exist once it is unpacked.
        instructions: How to get it by hand if there is no direct download.
    """

    title: str
    data_name: str
    page: str
    terms: str
    files: tuple[PublishedFile, ...] = ()
    expected_files: tuple[str, ...] = ()
    instructions: str = ""

    @property
    def num_bytes(self) -> int:
        """Size of all its files."""
        return sum(file.num_bytes for file in self.files)


def _file(url: str, num_bytes: int, sha256: str = "", md5: str = "", extract_to: str = "") -> PublishedFile:
    """A file of known size with one or two published checksums."""
    checksums = {name: digest for name, digest in (("md5", md5), ("sha256", sha256)) if digest}
    return PublishedFile(url, num_bytes, checksums, extract_to=extract_to)


def _inaturalist(
    year: str, files: tuple[PublishedFile, ...], expected_files: tuple[str, ...], part: str = ""
) -> DatasetSource:
    return DatasetSource(
        title=f"iNaturalist {year}{part}",
        data_name="inaturalist",
        page=f"https://github.com/visipedia/inat_comp/tree/master/{year}",
        terms=_INATURALIST_TERMS,
        files=files,
        expected_files=expected_files,
    )


_INATURALIST_2021_VAL = (
    _file(
        f"{_INATURALIST}/2021/val.tar.gz",
        8_931_661_582,
        sha256="f162b45fed0f676839f335968990fa0f236433d6123bb07b7591f6732c56455d",
        md5="f6f6e0e242e3d4c9569ba56400938afc",
    ),
    _file(
        f"{_INATURALIST}/2021/val.json.tar.gz",
        9_797_665,
        sha256="d63dfdb2e5fbc0262373833ed3fd02030787bd4b5cf2bd4ff3caea6d3f4e2970",
        md5="4d761e0f6a86cc63e8f7afc91f6a8f0b",
    ),
)

REGISTRY: dict[str, DatasetSource] = {
    "cub": DatasetSource(
        title="CUB-200-2011",
        data_name="cub",
        page="https://www.vision.caltech.edu/datasets/cub_200_2011/",
        terms="none in the archive's README; the photographs, from Flickr, belong to their photographers",
        files=(
            _file(
                "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
                1_150_585_339,
                sha256="0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
                md5="97eceeb196236b17998738112f37df78",
            ),
        ),
        expected_files=("CUB_200_2011/images.txt",),
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
        page=f"{_DOGS}/",
        terms=(
            "none known of the set; its photographs are from ImageNet: non-commercial research and education "
            "only (https://image-net.org/download)"
        ),
        files=(
            _file(
                f"{_DOGS}/images.tar",
                793_579_520,
                sha256="a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58",
            ),
            _file(
                f"{_DOGS}/annotation.tar",
                21_852_160,
                sha256="662ed36f707be6b195c2fda392d8e153e83af28cedc8e2134a649f198def30fd",
            ),
            _file(
                f"{_DOGS}/lists.tar",
                481_280,
                sha256="34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c",
                extract_to="lists",
            ),
        ),
        expected_files=("Images", "Annotation", "lists/train_list.mat", "lists/test_list.mat"),
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
        files=(
            _file(
                f"{_VGG}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
                2_753_340_328,
                md5="d4acdd33327262359767eeaa97a4f732",
            ),
        ),
        expected_files=("fgvc-aircraft-2013b/data/images_variant_train.txt",),
    ),
    "inaturalist2017": _inaturalist(
        "2017",
        (
            # TFDS lists it on an earlier server, where the README gave the same MD5.
            _file(
                f"{_INATURALIST}/2017/train_val_images.tar.gz",
                198_765_436_676,
                sha256="c7675e4a3190a13ccd0e1b9d3ae6c6c5de978ac8e794c5623503f1e7880ce4a1",
                md5="7c784ea5e424efaec655bd392f87301f",
            ),
            PublishedFile(f"{_INATURALIST}/2017/train_val2017.zip", 26 * _MIB, {}),
            PublishedFile(f"{_INATURALIST}/2017/train_2017_bboxes.zip", 22 * _MIB, {}),
            PublishedFile(f"{_INATURALIST}/2017/val_2017_bboxes.zip", 3 * _MIB, {}),
        ),
        expected_files=("train_val_images",),
    ),
    "inaturalist2018": _inaturalist(
        "2018",
        (
            _file(
                f"{_INATURALIST}/2018/train_val2018.tar.gz",
                127_945_569_561,
                sha256="276522b02b65d98ee5168a17415b2b1ec971b035bd62959e37b80b1092130495",
                md5="b1c6952ce38f31868cc50ea72d066cc3",
            ),
            _file(
                f"{_INATURALIST}/2018/train2018.json.tar.gz",
                20_951_917,
                sha256="be550dd4e2692458e508dd03e3a8d79f087453e2ad570a438a4ff198a7abc68f",
                md5="bfa29d89d629cbf04d826a720c0a68b0",
            ),
            _file(
                f"{_INATURALIST}/2018/val2018.json.tar.gz",
                1_276_686,
                sha256="e23c47d61d3aa2a9095090dbc49de861445d9a8144884a78222873f11f7ef43e",
                md5="f2ed8bfe3e9901cdefceb4e53cd3775d",
            ),
            _file(  # the names of the classes, which the other lists leave out
                f"{_INATURALIST}/2018/categories.json.tar.gz",
                139_473,
                sha256="2287211e8da582419dc2ca66736005fdb079e0a89eaf38936a441d8277a8162e",
            ),
        ),
        expected_files=("train_val2018", "train2018.json", "val2018.json", "categories.json"),
    ),
    "inaturalist2021": _inaturalist(
        "2021",
        (
            _file(
                f"{_INATURALIST}/2021/train.tar.gz",
                239_909_164_970,
                sha256="5a9093b2174ac08538435d79f3c6fa4b5d40c72a49b7d9a7b24b5e48f9e4f5d9",
                md5="e0526d53c7f7b2e3167b2b43bb2690ed",
            ),
            _file(
                f"{_INATURALIST}/2021/train.json.tar.gz",
                230_885_383,
                sha256="96d5f2e5c558c851e1101d8534d5ffaa553cdabd6b2c4c721b323f1be8a61b94",
                md5="38a7bb733f7a09214d44293460ec0021",
            ),
            *_INATURALIST_2021_VAL,
        ),
        expected_files=("train", "train.json", "val", "val.json"),
    ),
    "inaturalist2021_mini": _inaturalist(
        "2021",
        (
            _file(
                f"{_INATURALIST}/2021/train_mini.tar.gz",
                44_636_137_542,
                sha256="faedb949568676e35cc0088b78090a761ab29e30f53edaa65dcad87940fdc7b5",
                md5="db6ed8330e634445efc8fec83ae81442",
            ),
            _file(
                f"{_INATURALIST}/2021/train_mini.json.tar.gz",
                46_769_466,
                sha256="7dffc85ec942b603f828229b20cf89c72072310a29954c74997d107d764c2789",
                md5="395a35be3651d86dc3b0d365b8ea5f92",
            ),
            *_INATURALIST_2021_VAL,
        ),
        expected_files=("train_mini", "train_mini.json", "val", "val.json"),
        part=", train_mini",
    ),
    "flowers102": DatasetSource(
        title="Oxford Flowers-102",
        data_name="flowers102",
        page=f"{_VGG}/flowers/102/",
        terms="none known; ask its publisher",
        files=(
            _file(
                f"{_VGG}/flowers/102/102flowers.tgz",
                344_862_509,
                sha256="2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
                md5="52808999861908f626f3c1f4e79d11fa",
            ),
            _file(
                f"{_VGG}/flowers/102/imagelabels.mat",
                502,
                sha256="4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
                md5="e0620be6f572b9609742df49c70aed4d",
            ),
            _file(
                f"{_VGG}/flowers/102/setid.mat",
                14_989,
                sha256="46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd",
                md5="a5357ecc9cb78c4bef273ce3793fc85c",
            ),
        ),
        expected_files=("jpg", "imagelabels.mat", "setid.mat"),
    ),
    "oxford_pets": DatasetSource(
        title="Oxford-IIIT Pets",
        data_name="oxford_pets",
        page=f"{_VGG}/pets/",
        terms=(
            "CC BY-SA 4.0 by its page, research only by the README in its archive; the photographs' "
            "copyright remains with their owners"
        ),
        files=(
            _file(
                f"{_VGG}/pets/data/images.tar.gz",
                791_918_971,
                sha256="67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
                md5="5c4f3ee8e5d25df40f4fd59a7f44e54c",
            ),
            _file(
                f"{_VGG}/pets/data/annotations.tar.gz",
                19_173_078,
                sha256="52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
                md5="95a8c909bbe2e81eed6a22bccdf3f68f",
            ),
        ),
        expected_files=("images", "annotations/list.txt", "annotations/trainval.txt", "annotations/test.txt"),
    ),
    "food101": DatasetSource(
        title="Food-101",
        data_name="food101",
        page="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        terms="photographs from Foodspotting: scientific fair use; anything else is up to their owners",
        files=(
            _file(
                "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
                4_996_278_331,
                sha256="d97d15e438b7f4498f96086a4f7e2fa42a32f2712e87d3295441b2b6314053a4",
                md5="85eeb15f3717b99a5da872d97d918f87",
            ),
        ),
        expected_files=("food-101/images", "food-101/meta/train.txt"),
    ),
}
"""Data sets by the name that `ramstrans data download` takes."""
