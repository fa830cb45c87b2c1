from PIL import Image

from ramstrans.data.reading import formats


def test_a_suffix_is_listed_only_if_its_format_is_decoded():
    registered = Image.registered_extensions()
    kinds = {registered[suffix] for suffix in formats.image_suffixes()}
    assert kinds - {"MPO"} == set(formats.readable_formats())
    assert not {".eps", ".pdf", ".ico", ".psd"} & formats.image_suffixes()


def test_without_its_library_heic_is_not_listed(without_heif):
    assert ".heic" not in formats.image_suffixes()
    assert formats.needs_heif(".heic")
    assert not formats.needs_heif(".jpg")


def test_a_pillow_that_was_built_without_avif(monkeypatch, without_heif):
    monkeypatch.setattr(formats.features, "check", lambda feature: feature != "avif")
    assert ".avif" not in formats.image_suffixes()
    assert ".webp" in formats.image_suffixes()
