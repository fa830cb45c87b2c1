from ramstrans.errors import first_few


def test_first_few_counts_the_rest():
    assert first_few(["a"]) == "a"
    assert first_few(list("abcde")) == "a; b; c; and 2 more"
