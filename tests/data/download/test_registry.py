import re
import urllib.parse

import pytest
from torchvision import datasets
from torchvision.datasets import inaturalist

from ramstrans.data.build import READERS
from ramstrans.data.download.registry import REGISTRY, PublishedFile

FILES = {file.url: file for source in REGISTRY.values() for file in source.files}
LENGTHS = {"md5": 32, "sha256": 64}


@pytest.mark.parametrize("name", REGISTRY)
def test_an_entry_is_complete(name):
    source = REGISTRY[name]
    assert re.fullmatch(r"[a-z0-9_]+", name)
    assert urllib.parse.urlsplit(source.page).scheme == "https" or name == "stanford_dogs"
    assert source.data_name in READERS
    assert source.title
    assert source.terms
    for line in (source.title, source.terms, source.instructions):
        assert "\n" not in line
        assert not line.endswith(".")
    assert bool(source.files) == (not source.instructions)
    names = [file.name for file in source.files]
    assert len(set(names)) == len(names)
    assert source.num_bytes == sum(file.num_bytes for file in source.files)


@pytest.mark.parametrize("url", FILES)
def test_a_file_is_well_formed(url):
    file = FILES[url]
    parts = urllib.parse.urlsplit(url)
    assert parts.scheme == "https" or "sha256" in file.checksums, "without https, a strong checksum"
    assert parts.netloc
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", file.name)
    assert file.num_bytes > 0
    for algorithm, digest in file.checksums.items():
        assert re.fullmatch(rf"[0-9a-f]{{{LENGTHS[algorithm]}}}", digest)
    assert not file.extract_to.startswith(("/", "."))


def test_no_checksum_is_listed_twice():
    digests = [digest for file in FILES.values() for digest in file.checksums.values()]
    assert len(set(digests)) == len(digests)


def test_files_without_a_published_checksum():
    """Every other file must have one."""
    assert {file.name for file in FILES.values() if not file.checksums} == {
        "train_val2017.zip",
        "train_2017_bboxes.zip",
        "val_2017_bboxes.zip",
    }


@pytest.mark.parametrize(
    ("name", "shown", "unit"),
    [
        ("2017/train_val_images.tar.gz", 186, 2**30),
        ("2018/train_val2018.tar.gz", 120, 2**30),
        ("2021/train.tar.gz", 224, 2**30),
        ("2021/train.json.tar.gz", 221, 2**20),
        ("2021/train_mini.tar.gz", 42, 2**30),
        ("2021/train_mini.json.tar.gz", 45, 2**20),
        ("2021/val.tar.gz", 8.4, 2**30),
        ("2021/val.json.tar.gz", 9.4, 2**20),
    ],
)
def test_sizes_round_up_to_those_of_inaturalist(name, shown, unit):
    """Except for the lists of 2018, where the README has the sizes of other files."""
    (file,) = (file for url, file in FILES.items() if url.endswith(f".com/{name}"))
    step = 0.1 if isinstance(shown, float) else 1
    assert shown - step < file.num_bytes / unit <= shown


_FLOWERS = datasets.Flowers102
TORCHVISION = [
    (datasets.Food101._URL, datasets.Food101._MD5),
    *datasets.OxfordIIITPet._RESOURCES,
    *((_FLOWERS._download_url_prefix + name, md5) for name, md5 in _FLOWERS._file_dict.values()),
    *(
        (inaturalist.DATASET_URLS[version], inaturalist.DATASET_MD5[version])
        for version in ("2017", "2018", "2021_train", "2021_train_mini", "2021_valid")
    ),
]


@pytest.mark.parametrize(("url", "md5"), TORCHVISION)
def test_torchvision_has_the_same_checksums(url, md5):
    """Whether by http or https."""
    path = url.split("://")[1]
    (file,) = (file for file in FILES.values() if file.url.split("://")[1] == path)
    assert file.checksums["md5"] == md5


def test_torchvision_has_the_same_address_for_aircraft():
    assert datasets.FGVCAircraft._URL in FILES


def test_the_name_and_the_exact_size():
    rounded = PublishedFile("https://example.org/a/b.tgz?download=1#x", 7, {})
    assert (rounded.name, rounded.exact_size) == ("b.tgz", None)
    assert rounded._replace(checksums={"md5": "x"}).exact_size == 7
