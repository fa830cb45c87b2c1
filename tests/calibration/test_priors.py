"""Priors: lists, tables, what holds when, and what may be wrong with them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.calibration.priors import Matched, read_priors, weighted, weights_of
from ramstrans.errors import DataError

NAMES = ("crow", "jay", "wren")


def read(tmp_path, text):
    path = tmp_path / "priors.csv"
    path.write_text(text)
    return read_priors(path, NAMES)


def weights(priors, **values):
    found = priors.matched(values)
    return None if found.weights is None else found.weights.tolist()


@pytest.mark.parametrize("text", ["wren\ncrow\n", "class\ncrow\nwren\n", "crow\n\nwren"])
def test_a_list_of_classes(tmp_path, text):
    priors = read(tmp_path, text)
    assert priors.conditions == ()
    assert weights(priors) == [1, 0, 1]
    assert priors.matched({}).what == "every photograph"


def test_weights_without_conditions(tmp_path):
    assert weights(read(tmp_path, "class,weight\nwren,3\ncrow,0.5\n*,0.125\n")) == [0.5, 0.125, 3]


MONTHS = "month,class,weight\n4..8,wren,3\n5,crow,2\n11..2,jay,1\n"


@pytest.mark.parametrize(
    ("month", "expected", "what"),
    [
        ("5", [2, 0, 3], "month 4..8; month 5"),
        (4.0, [0, 0, 3], "month 4..8"),
        ("08", [0, 0, 3], "month 4..8"),
        ("12", [0, 1, 0], "month 11..2"),
        (1, [0, 1, 0], "month 11..2"),
        ("3", None, None),
        ("May", None, None),
        (None, None, None),
    ],
)
def test_months(tmp_path, month, expected, what):
    priors = read(tmp_path, MONTHS)
    assert weights(priors, month=month) == expected
    assert priors.matched({"month": month}).what == what


def test_places_on_both_sides_of_the_date_line(tmp_path):
    priors = read(
        tmp_path, "latitude,longitude,class,weight\n-20..-10,170..-170,wren,1\n40..50,5..9.5,jay,1\n"
    )
    assert weights(priors, latitude=-17.5, longitude=-178.0) == [0, 0, 1]
    assert weights(priors, latitude=-17.5, longitude=0.0) is None
    assert weights(priors, latitude=47.4, longitude=8.5) == [0, 1, 0]


def test_an_empty_condition_holds_always_and_weights_are_added(tmp_path):
    priors = read(tmp_path, "class,place,weight\nwren,,1\nwren,Lake,2\ncrow,lake,4\n*,,0.5\n")
    assert weights(priors, place="lake ") == [4, 0.5, 3]
    assert weights(priors, place="hill") == [0.5, 0.5, 1]
    assert weights(priors) == [0.5, 0.5, 1]
    assert priors.matched({"place": "lake"}).what == "every photograph; place Lake; place lake"


def test_weights_that_exclude_all_are_none(tmp_path):
    priors = read(tmp_path, "class,place,weight\nwren,lake,0\ncrow,hill,1\n")
    assert priors.matched({"place": "lake"}) == Matched(None, None)


def test_classes_that_the_model_lacks(tmp_path, caplog):
    assert weights(read(tmp_path, "wren\nowl\nkite\n")) == [0, 0, 1]
    assert "left out, as the model does not have these classes: 'owl'; 'kite'" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("owl\n", "excludes all 3 classes of the model: 'owl' and the like are none of them; name some"),
        (
            "class,weight\nwren,0\n",
            "excludes all 3 classes of the model: no weight is above 0; name some",
        ),
        ("month,weight\n5,1\n", "has no column 'class', but month, weight; give class, weight, and columns"),
        ("class,month\nwren,5\n", "has no column 'weight', but class, month"),
        ("class,weight,\nwren,1,\n", "has a column without a name"),
        ("class,weight,weight\nwren,1,1\n", "has two columns of one name"),
        ("class,weight\nwren,-1\n", "line 2: the weight is '-1'; give a number, 0 or more"),
        ("class,weight\nwren,much\n", "line 2: the weight is 'much'; give a number"),
        ("class,weight\nwren,inf\n", "line 2: the weight is 'inf'; give a number"),
        ("class,weight\nwren\n", "line 2: 1 cells, and the header has 2"),
        ("class,weight\n,1\n", r"line 2: the class is empty; name it, or give \* for all others"),
        ("class,weight\nwren,1\nwren,2\n", "line 3: 'wren' is there twice under the same conditions"),
        ("class,month,weight\nwren,4..x,1\n", r"line 2: month is '4..x'; a range has two numbers, e.g. 4..8"),
        ("class,height,weight\nwren,9..4,1\n", "line 2: height is '9..4', which is empty; give the lower"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as raised:
        read(tmp_path, text)
    assert "\n" not in str(raised.value)


def test_a_name_with_a_comma_in_the_first_line_needs_quotes(tmp_path):
    (tmp_path / "list.csv").write_text("heron, grey\nwren\n")
    with pytest.raises(DataError, match="line 1: 'heron, grey' is a class; put names that hold a comma in"):
        read_priors(tmp_path / "list.csv", ("heron, grey", "wren"))


def test_bayes_by_hand():
    """Of 100 photographs 80 show crows: 0.25 * 0.8 against 0.75 * 0.2."""
    found = weighted(np.array([[0.25, 0.75]]), np.array([[80.0, 20.0]]))
    assert found[0] == pytest.approx([0.2 / 0.35, 0.15 / 0.35])


@given(st.integers(0, 999))
def test_rows_add_up_and_weights_of_one_size_change_nothing(seed):
    rng = np.random.default_rng(seed)
    probabilities, given_weights = rng.dirichlet(np.ones(5), 3), rng.integers(0, 3, (3, 5)).astype(float)
    given_weights[:, 2] = 1
    found = weighted(probabilities, given_weights)
    assert found.sum(axis=1) == pytest.approx(1)
    assert (found[given_weights == 0] == 0).all()
    assert weighted(probabilities, np.full((3, 5), 7.0)) == pytest.approx(probabilities)
    assert weighted(probabilities, 7 * given_weights) == pytest.approx(found)


def test_a_row_of_which_nothing_is_left_stays():
    """Calibrated probabilities may underflow, and the priors exclude the only class that is left."""
    rows = np.array([[1.0, 0.0, 0.0], [0.5, 0.25, 0.25]])
    weights = np.array([[0.0, 1.0, 0.5], [0.0, 1.0, 3.0]])
    assert weighted(rows, weights).tolist() == [[1.0, 0.0, 0.0], [0.0, 0.25, 0.75]]


def test_photographs_without_priors_have_ones():
    assert weights_of([Matched(None, None), Matched(np.array([0.0, 2]), "x")], 2).tolist() == [[1, 1], [0, 2]]
