"""Options of `ramstrans export`, and what it says."""


def test_a_runtime_is_only_for_a_page(fails):
    line = fails(2, "export", "nowhere", "out", "--runtime", "dist")
    assert line == "ramstrans: --runtime has no effect without --format web; leave it out"
